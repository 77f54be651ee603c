"""Comparisons: which method is best on a problem, under equal conditions, and how sure that is."""
