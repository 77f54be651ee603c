"""ZO-RankSGD: what is lost when only the order of candidates is told."""
