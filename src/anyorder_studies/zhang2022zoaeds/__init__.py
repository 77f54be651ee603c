"""ZO-AE-DS: certified robustness for a classifier that can only be queried."""
