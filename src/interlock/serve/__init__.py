"""Front doors on the network: REST API, webhooks and the console."""
