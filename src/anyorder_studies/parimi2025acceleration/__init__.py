"""Acceleration: rates of one family of methods, and a function on which heavy ball cycles."""
