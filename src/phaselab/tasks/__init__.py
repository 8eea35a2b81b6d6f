"""Behaviour: multiple-choice tasks, scored through lm-evaluation-harness."""

from phaselab.tasks.runner import MEASURES, TaskError, score_tasks

__all__ = ["MEASURES", "TaskError", "score_tasks"]
