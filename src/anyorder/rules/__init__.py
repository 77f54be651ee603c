"""Arithmetic used by two or more methods."""
