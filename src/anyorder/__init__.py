"""Optimise with whatever your problem can tell you: a ranking, a value, a gradient, a product."""

__version__ = "0.1.0"
