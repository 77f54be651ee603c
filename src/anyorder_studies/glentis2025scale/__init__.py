"""SCALE against Adam: normalised columns, one momentum, and the memory of the two."""
