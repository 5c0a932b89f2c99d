"""Messages in: one reader per queue of the live release, over NATS, Redis or RabbitMQ."""
