"""Behaviour: multiple-choice tasks, scored through lm-evaluation-harness."""

from phaselab.behaviour.files import TaskError, digest, library, load_items, validate
from phaselab.behaviour.score import GENERATED, MEASURES, score_tasks

__all__ = ["GENERATED", "MEASURES", "TaskError", "digest", "library", "load_items", "score_tasks", "validate"]
