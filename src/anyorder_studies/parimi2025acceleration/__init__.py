"""Acceleration: rates of one family of methods, and where heavy ball never arrives."""
