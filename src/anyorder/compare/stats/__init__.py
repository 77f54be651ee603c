"""From runs to verdicts: estimates, intervals, tests."""
