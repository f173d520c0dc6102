"""Exercises and their graders: a submission is judged by what it does, in processes that it can't break out of."""

from ..exercise import Exercise, Requirement, exercises, find, read
from .plugin import judge, judge_equal
from .run import Report, Verdict, grade, new_seed
from .submission import Ended, Raised, Running, Stopped, Submission

__all__ = [
    "Ended",
    "Exercise",
    "Raised",
    "Report",
    "Requirement",
    "Running",
    "Stopped",
    "Submission",
    "Verdict",
    "exercises",
    "find",
    "grade",
    "judge",
    "judge_equal",
    "new_seed",
    "read",
]
