"""Lion and its generalisations: weight decay is the radius of a ball."""
