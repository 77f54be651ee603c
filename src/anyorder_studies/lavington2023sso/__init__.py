"""SSO: several steps of the model for each gradient of the loss."""
