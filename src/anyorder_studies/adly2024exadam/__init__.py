"""EXAdam and Adam, both tuned: the size of the improvement and its cause."""
