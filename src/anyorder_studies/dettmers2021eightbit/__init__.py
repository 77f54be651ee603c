"""8-bit state: as good as 32-bit with the same settings, and which of its parts that takes."""
