"""The book: notebooks run strictly, pages placed, and what a notebook sees of a study."""

import warnings

# Said by libraries that draw progress bars, when they are imported; nothing of it belongs on a page.
warnings.filterwarnings("ignore", message="IProgress not found")

from phaselab.book.lab import Lab, interactive  # noqa: E402
from phaselab.book.runner import begin  # noqa: E402
from phaselab.curves import plain  # noqa: E402

__all__ = ["Lab", "begin", "interactive", "plain"]
