"""Every figure of the book, from tables alone.

Each function takes tables (rows of the curves table, transitions, scores of vertices) and gives a
matplotlib ``Figure``, or a plotly one where looking around helps. Nothing is computed here but
means and intervals; nothing is read from disk. A figure that shows brain data takes ``simulated``
and says so in the picture itself, so that a copied figure still says it.

Colours are those of Okabe and Ito (2008, "Color Universal Design"), told apart by markers and line
styles as well. The background is white in light and in dark pages.
"""

from phaselab.curves import (
    MEASURES,
    PHASE_NAMES,
    NothingToDraw,
    amount,
    best_layer,
    brain_curve,
    brain_measure,
    chance_level,
    comparison,
    control_table,
    families,
    internal_layer,
    interval_of,
    interval_over,
    model_curve,
    monotone,
    of_tasks,
    probe_advantage,
    select,
    subjects_text,
)
from phaselab.figures.anywhere import fitted_curves, move_raster
from phaselab.figures.drawing import COLOURS, SIMULATED, TokenAxis
from phaselab.figures.interactive import phase_interactive, surface_interactive
from phaselab.figures.models import across_models, final_scores, transition_raster
from phaselab.figures.stimulus import by_layer, by_region, similarity_matrices, time_courses, words_on_grid
from phaselab.figures.surface import HEMISPHERE, on_surface, surface
from phaselab.figures.training import (
    behaviour_curves,
    controls_bars,
    internals_curves,
    layer_checkpoint_heatmap,
    loss_curve,
    perspective_pair,
    power_curve,
    probe_curves,
    roi_curves,
    significance_curves,
    three_perspectives,
)
from phaselab.phases.text import phase_text, transitions_of

__all__ = [
    "COLOURS",
    "HEMISPHERE",
    "MEASURES",
    "PHASE_NAMES",
    "SIMULATED",
    "NothingToDraw",
    "TokenAxis",
    "across_models",
    "amount",
    "behaviour_curves",
    "best_layer",
    "brain_curve",
    "brain_measure",
    "by_layer",
    "by_region",
    "chance_level",
    "comparison",
    "control_table",
    "controls_bars",
    "families",
    "final_scores",
    "fitted_curves",
    "internal_layer",
    "internals_curves",
    "interval_of",
    "interval_over",
    "layer_checkpoint_heatmap",
    "loss_curve",
    "model_curve",
    "monotone",
    "move_raster",
    "of_tasks",
    "on_surface",
    "perspective_pair",
    "phase_interactive",
    "phase_text",
    "power_curve",
    "probe_advantage",
    "probe_curves",
    "roi_curves",
    "select",
    "significance_curves",
    "similarity_matrices",
    "subjects_text",
    "surface",
    "surface_interactive",
    "three_perspectives",
    "time_courses",
    "transition_raster",
    "transitions_of",
    "words_on_grid",
]
