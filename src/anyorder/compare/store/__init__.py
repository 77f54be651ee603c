"""Where runs are kept: the database, the results file and its schema."""
