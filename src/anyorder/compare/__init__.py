"""Comparisons of methods on a problem under equal conditions, with statistics."""
