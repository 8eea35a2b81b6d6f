"""Every figure of the book, from tables alone, by matplotlib, or by plotly where looking around helps.

One that shows brain data takes ``simulated`` and says so in the picture itself. Lines are told apart by markers and
styles as well as colours; white is behind them in light and in dark pages.
"""

from phaselab.curves import *
from phaselab.figures.brain import *
from phaselab.figures.drawing import SIMULATED, TokenAxis
from phaselab.figures.interactive import *
from phaselab.figures.training import *
from phaselab.phases import phase_text, rule_text, transitions_of
