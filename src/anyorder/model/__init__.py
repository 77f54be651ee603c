"""Parameters of a user's model: names, roles, embeddings, sharding."""
