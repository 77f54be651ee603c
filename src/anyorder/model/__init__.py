"""What is known of a user's model: parameters and their names, roles, embeddings, sharding."""
