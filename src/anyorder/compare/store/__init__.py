"""Storage: the database of runs, the results file and its schema."""
