"""People and models as rankers: comparisons of two, and a local page for a person."""

from anyorder.judging.pairwise import JudgeError, PairwiseRanker

__all__ = ["JudgeError", "PairwiseRanker"]
