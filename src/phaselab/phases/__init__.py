"""Transitions of learning curves: found, dated with intervals, and tested.

`fit_transitions` fits one curve, `fit_table` a table of them; `triple_phase_test` tests the phases on such fits.
"""

from phaselab.phases.fit import log_tokens
from phaselab.phases.power import *
from phaselab.phases.three_phases import *
from phaselab.phases.transitions import *
