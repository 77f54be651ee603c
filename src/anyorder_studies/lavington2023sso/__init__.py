"""SSO: several model steps per gradient of the loss."""
