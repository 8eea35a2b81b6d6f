"""Timed text, and how its features become TRs: never across a run's boundary."""

from phaselab.stimuli.grid import align, carried, convolve, convolve_events, delayed, resample, word_rate
from phaselab.stimuli.run import Run, Stimulus, items, read_textgrid, read_words

__all__ = ["Run", "Stimulus", "align", "carried", "convolve", "delayed", "items", "read_textgrid", "read_words"]
__all__ += ["convolve_events", "resample", "word_rate"]
