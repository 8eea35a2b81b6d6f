"""What a measure of hidden states is: a function in a file of ``measures/``, with what figures say of it.

Such a file is found by being there; nothing else is edited. The function takes the hidden states of a layer, float64
(n_words, p), and gives a value, a value and its standard error, or None where it is not defined. It may also take,
by their names, parts that several measures need (`part`): each is computed once a layer.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any, NamedTuple, TypeVar

import numpy as np

from phaselab.errors import expect
from phaselab.internals import measures

F = TypeVar("F", bound=Callable[..., Any])


class Measure(NamedTuple):
    """A registered measure: its name in figures, what its axis counts, a number raised when its values change."""

    label: str
    unit: str
    version: int
    function: Callable[..., Any]


MEASURES: dict[str, Measure] = {}
PARTS: dict[str, Callable[..., Any]] = {}


def measure(name: str, *, label: str, unit: str, version: int = 1) -> Callable[[F], F]:
    """Register a function as the measure `name`; a second of that name from another module is refused."""

    def register(function: F) -> F:
        free = name not in MEASURES or MEASURES[name].function.__module__ == function.__module__
        expect(free, f"{function.__module__}: measure", f"a second {name!r}", "distinct names")
        MEASURES[name] = Measure(label, unit, version, function)
        return function

    return register


def part(function: F) -> F:
    """Register what several measures share, under the function's own name."""
    PARTS[function.__name__] = function
    return function


def registered() -> dict[str, Measure]:
    """Name -> measure: those of the files of ``measures/``, and what a notebook has registered."""
    for module in pkgutil.iter_modules(measures.__path__):
        import_module(f"{measures.__name__}.{module.name}")
    return MEASURES


def labels() -> dict[str, tuple[str, str]]:
    """Name -> (label, unit) of each measure."""
    return {name: (one.label, one.unit) for name, one in registered().items()}


def versions() -> dict[str, int]:
    """Name -> version of each measure."""
    return {name: one.version for name, one in registered().items()}


def geometry(states: np.ndarray) -> dict[str, tuple[float, float]]:
    """Measure -> (value, standard error or NaN) of hidden states (n_words, p), without those that are not defined."""
    known: dict[str, Any] = {"states": states}

    def call(function: Callable[..., Any]) -> Any:
        for name in signature(function).parameters:
            if name not in known:
                expect(
                    name in PARTS, f"measure {function.__name__}", repr(name), f"states or one of {', '.join(PARTS)}"
                )
                known[name] = call(PARTS[name])
        return function(**{name: known[name] for name in signature(function).parameters})

    found = {name: call(one.function) for name, one in registered().items()}
    pairs = {name: value if isinstance(value, tuple) else (value, np.nan) for name, value in found.items()}
    return {name: (float(value), float(stderr)) for name, (value, stderr) in pairs.items() if value is not None}
