"""What Lion and its relatives minimise: weight decay as the radius of a ball."""
