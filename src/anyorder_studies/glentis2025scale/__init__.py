"""SCALE and Adam: normalised columns, a single momentum, and memory."""
