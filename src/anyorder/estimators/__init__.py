"""Estimates of the gradient from other answers than gradients."""
