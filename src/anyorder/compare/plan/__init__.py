"""The plan of a comparison: entrants, search spaces, limits."""
