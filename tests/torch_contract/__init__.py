"""What working code does to a ``torch.optim.Optimizer``, done to every method here."""
