"""Behaviour: multiple-choice tasks in files of lm-evaluation-harness, scored as it scores them."""

from phaselab.behaviour.files import digest, library, load_items
from phaselab.behaviour.score import GENERATED, MEASURES, score_tasks

__all__ = ["GENERATED", "MEASURES", "digest", "library", "load_items", "score_tasks"]
