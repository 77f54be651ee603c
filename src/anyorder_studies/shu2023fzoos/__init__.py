"""FZooS: federations of functions that can only be evaluated."""
