"""Ridge regression with one alpha per target, for thousands of ridges on the same responses.

As much as can be is shared: ``Splits`` by everything, ``Targets`` by all layers of all models, a ``Plan`` by all
subjects of one stimulus. The page *The encoder, derived* has the mathematics, with the names that are used here.
"""

from phaselab.encoding.ridge.alphas import Fit, batch_size, solve
from phaselab.encoding.ridge.plan import ALPHAS, Plan, find_device
from phaselab.encoding.ridge.splits import Splits
from phaselab.encoding.ridge.targets import Targets

__all__ = ["ALPHAS", "Fit", "Plan", "Splits", "Targets", "batch_size", "find_device", "solve"]
