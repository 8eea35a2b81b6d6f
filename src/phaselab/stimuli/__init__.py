"""Timed text, and how its features become TRs: never across a run's boundary."""

from phaselab.stimuli.grid import align, convolve, delayed, resample, word_rate
from phaselab.stimuli.run import Run, Stimulus, items
from phaselab.stimuli.textgrid import read_textgrid

__all__ = ["Run", "Stimulus", "align", "convolve", "delayed", "items", "read_textgrid", "resample", "word_rate"]
