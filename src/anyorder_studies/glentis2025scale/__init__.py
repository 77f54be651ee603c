"""SCALE and Adam: normalized columns, a single momentum, and memory."""
