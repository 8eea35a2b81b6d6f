"""Transitions of learning curves: found, dated with intervals, and tested.

A curve is fitted by a continuous piecewise-linear function of log10 tokens whose number of change points is chosen by
BIC (`fit_transitions`). The three phases are tests on such fits (`triple_phase_test`).

Step 0 has no logarithm: it is placed one log-step (the gap between the first two positive token counts) before the
first positive one, and no change point is ever placed before that one.
"""

from phaselab.curves import select_layer
from phaselab.phases.fit import log_tokens
from phaselab.phases.power import detachment_power, detectable_depth, sensitivity
from phaselab.phases.test import MARGIN, PHASE_COLUMNS, PHASES, TriplePhase, holm, triple_phase_test
from phaselab.phases.text import phase_text, transitions_of
from phaselab.phases.transitions import (
    MOVE_COLUMNS,
    FittedTable,
    Interval,
    Move,
    Segment,
    TableError,
    Transitions,
    fit_table,
    fit_transitions,
)

__all__ = ["MARGIN", "MOVE_COLUMNS", "PHASES", "PHASE_COLUMNS", "FittedTable", "Interval", "Move", "Segment"]
__all__ += ["TableError", "Transitions", "TriplePhase", "detachment_power", "detectable_depth", "fit_table"]
__all__ += ["fit_transitions", "holm", "log_tokens", "phase_text", "select_layer", "sensitivity", "transitions_of"]
__all__ += ["triple_phase_test"]
