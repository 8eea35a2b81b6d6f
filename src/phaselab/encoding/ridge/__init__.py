"""Ridge regression with one alpha per target, for thousands of ridges on the same responses.

As much as can be is shared: ``Splits`` by everything, ``Targets`` by all layers of all models, a ``Plan`` by all
subjects of one stimulus. The page *The encoder, derived* has the mathematics, with the names that are used here.
"""

from phaselab.encoding.ridge.plan import ALPHAS, Fit, Plan, batch_size, find_device, solve
from phaselab.encoding.ridge.targets import Splits, Targets

__all__ = ["ALPHAS", "Fit", "Plan", "Splits", "Targets", "batch_size", "find_device", "solve"]
