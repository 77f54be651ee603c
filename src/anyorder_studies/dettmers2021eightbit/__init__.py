"""8-bit and 32-bit state with the same settings, and the effect of each part of the format."""
