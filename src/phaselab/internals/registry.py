"""Measures of hidden states: functions in the files of ``measures/``, each registered under its own name.

They take the states of a layer, float64 (n_words, p), or by their names parts that several need (functions registered
with version 0), and give a value, a value and its standard error, or None where it, or a part, is not defined.
"""

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules
from typing import Any

import numpy as np

from phaselab.errors import expect

Function = Callable[..., Any]

MEASURES: dict[str, tuple[int, Function]] = {}


def measure(*, version: int) -> Callable[[Function], Function]:
    """Register a measure, whose `version` is raised when its values change; none from another module has its name."""

    def register(function: Function) -> Function:
        name, module = function.__name__, function.__module__
        free = name not in MEASURES or MEASURES[name][1].__module__ == module
        expect(free, f"{module}: measure", f"a second {name!r}", "distinct names")
        MEASURES[name] = version, function
        return function

    return register


def versions() -> dict[str, int]:
    """Name -> version of each measure: those of the files of ``measures/``, and what a notebook has registered."""
    folder = import_module("phaselab.internals.measures")
    for file in iter_modules(folder.__path__):
        import_module(f"{folder.__name__}.{file.name}")
    return {name: version for name, (version, _) in MEASURES.items() if version}


def geometry(states: np.ndarray) -> dict[str, tuple[float, float]]:
    """Measure -> (value, standard error or NaN) of hidden states (n_words, p), without those that are not defined."""
    known: dict[str, Any] = {"states": states}

    def call(function: Function) -> Any:
        names, parts = [*signature(function).parameters], [name for name in MEASURES if not MEASURES[name][0]]
        for name in [name for name in names if name not in known]:
            expect(name in parts, f"measure {function.__name__}", repr(name), f"states or one of {', '.join(parts)}")
            known[name] = call(MEASURES[name][1])
        return None if any(known[name] is None for name in names) else function(*(known[name] for name in names))

    found = {name: call(MEASURES[name][1]) for name in versions()}
    pairs = {name: value if isinstance(value, tuple) else (value, np.nan) for name, value in found.items()}
    return {name: (float(value), float(stderr)) for name, (value, stderr) in pairs.items() if value is not None}
