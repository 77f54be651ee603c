"""Runs: the pilot, the adapter for optimizers, the runner, and worker processes."""
