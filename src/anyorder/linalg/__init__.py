"""Algorithms on linear operators and matrices."""
