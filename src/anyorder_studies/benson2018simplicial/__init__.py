"""Which open triangles of people or things close? Higher-order link prediction in timed sets."""
