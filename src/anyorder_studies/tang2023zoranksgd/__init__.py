"""ZO-RankSGD: the cost of knowing only the order of candidates."""
