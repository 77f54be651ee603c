"""Lion and its generalizations: weight decay is the radius of a ball."""
