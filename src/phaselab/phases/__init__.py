"""Transitions of learning curves: found, dated with intervals, and tested.

A curve is fitted by a continuous piecewise-linear function of log10 tokens whose number of change points is chosen by
BIC (`fit_transitions`). The three phases are tests on such fits (`triple_phase_test`).
"""

from phaselab.phases.fit import log_tokens
from phaselab.phases.power import detachment_power, detectable_depth, sensitivity
from phaselab.phases.test import PHASE_COLUMNS, TriplePhase, holm, phase_text, transitions_of, triple_phase_test
from phaselab.phases.transitions import MOVE_COLUMNS, FittedTable, TableError, Transitions, fit_table, fit_transitions

__all__ = ["MOVE_COLUMNS", "PHASE_COLUMNS", "FittedTable", "TableError", "Transitions"]
__all__ += ["TriplePhase", "detachment_power", "detectable_depth", "fit_table", "fit_transitions", "holm"]
__all__ += ["log_tokens", "phase_text", "sensitivity", "transitions_of", "triple_phase_test"]
