"""Things done with operators and matrices."""
