"""What a comparison is to do: entrants, search spaces, limits."""
