"""Statistics of runs: estimates, intervals, tests, verdicts."""
