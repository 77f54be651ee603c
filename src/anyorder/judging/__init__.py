"""People and models as rankers: comparisons of two, and a local page for a person."""

from anyorder.judging.media import MediaError, Sound
from anyorder.judging.pairwise import JudgeError, PairwiseRanker
from anyorder.judging.task import Task, TaskError, load_task

__all__ = [
    "JudgeError",
    "MediaError",
    "PairwiseRanker",
    "Sound",
    "Task",
    "TaskError",
    "load_task",
]
