"""The command line, ``anyorder``."""
