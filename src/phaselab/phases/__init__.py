"""Transitions of learning curves: found, dated with intervals, and tested.

`fit_transitions` fits one curve, `fit_table` a table of them; `triple_phase_test` tests the phases on such fits.
"""

from phaselab.phases.fit import log_tokens
from phaselab.phases.power import detachment_power, detectable_depth, sensitivity
from phaselab.phases.three_phases import (
    PHASE_COLUMNS,
    TriplePhase,
    dates_together,
    holm,
    judge,
    phase_text,
    rule_text,
    surges,
    transitions_of,
    triple_phase_test,
)
from phaselab.phases.transitions import MOVE_COLUMNS, FittedTable, Transitions, fit_table, fit_transitions

__all__ = ["MOVE_COLUMNS", "PHASE_COLUMNS", "FittedTable", "Transitions", "TriplePhase", "dates_together"]
__all__ += ["detachment_power", "detectable_depth", "fit_table", "fit_transitions", "holm", "judge", "log_tokens"]
__all__ += ["phase_text", "rule_text", "sensitivity", "surges", "transitions_of", "triple_phase_test"]
