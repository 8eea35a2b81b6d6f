"""Every figure of the book, from tables alone.

Each function takes tables (rows of the curves table, transitions, scores of vertices) and gives a matplotlib
``Figure``, or a plotly one where looking around helps. A figure that shows brain data takes ``simulated`` and says so
in the picture itself, so that a copied figure still says it. Colours are those of Okabe and Ito (2008, "Color
Universal Design"), told apart by markers and line styles as well; white behind them in light and in dark pages.
"""

# ruff: noqa: F401, F403  (each module lists its figures in its own __all__)
from phaselab.curves import *
from phaselab.figures.drawing import SIMULATED, TokenAxis
from phaselab.figures.interactive import *
from phaselab.figures.stimulus import *
from phaselab.figures.training import *
from phaselab.phases import phase_text, transitions_of
