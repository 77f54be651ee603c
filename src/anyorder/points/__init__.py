"""Points near the current parameters: random directions stored as seeds, and shifted evaluation."""
