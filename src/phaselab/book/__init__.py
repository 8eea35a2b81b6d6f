"""The book: notebooks run strictly, pages placed, and what a notebook sees of a study."""

from phaselab.book.lab import Lab, begin, interactive

__all__ = ["Lab", "begin", "interactive"]
