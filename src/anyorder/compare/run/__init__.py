"""Doing one run: the pilot measurement, the adapter, the runner, workers and their pool."""
