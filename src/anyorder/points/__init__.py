"""Points near the present parameters: random directions as seeds, and shifts by substitution."""
