"""Model requests of outside agents, in the APIs of OpenAI and of Anthropic."""
