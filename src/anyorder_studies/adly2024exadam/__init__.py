"""EXAdam against Adam: what remains of its lead when both are tuned, and what it comes from."""
