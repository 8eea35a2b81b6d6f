"""The page of the package's functions, made from their docstrings, and what each page uses of them, with links there.

A module is documented by its ``__all__``; one without by the functions and classes that are written in it, or below it.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from functools import cache
from importlib import import_module
from typing import Any

from sphinx.application import Sphinx

from phaselab import curves

#: The page; modules with the names in them that are documented, if not as above.
PAGE = "book/reference"
MODULES: dict[str, tuple[str, ...]] = {
    "phaselab.book": (),
    "phaselab.study": ("embedded", "load_study", "published", "StudyError"),
    "phaselab.brains": (),
    "phaselab.stimuli": (),
    "phaselab.checkpoints": (),
    "phaselab.features": ("Features", "extract", "opening", "read_features", "to_trs", "write_features"),
    "phaselab.encoding": (),
    "phaselab.encoding.estimator": (),
    "phaselab.encoding.folds": (),
    "phaselab.internals": (),
    "phaselab.internals.probes": ("targets",),
    "phaselab.behaviour": (),
    "phaselab.behaviour.scoring": ("requests",),
    "phaselab.stats": (),
    "phaselab.curves": ("brain_by_subject", "interval_over", *curves.__all__),
    "phaselab.phases": (),
    "phaselab.figures": (),
    "phaselab.stages": ("choose_device", "one_thread"),
    "phaselab.results": ("amount", "curve_table", "digest_file", "read_table"),
}
#: Members that libraries give to classes of ours.
FOREIGN = re.compile(r"set_\w+_request|model_\w+")
#: What stands for a value of which a page uses the methods; of these, what every page uses and nobody looks up.
VALUES, USUAL = {"lab": "phaselab.book.Lab"}, {"about", "glue", "stamp", "table"}


@cache
def public(name: str) -> dict[str, str]:
    """Name -> role of the functions and classes of a module that are documented."""
    module = import_module(name)
    own = [n for n, of in vars(module).items() if getattr(of, "__module__", "").startswith(name)]
    names = MODULES[name] or getattr(module, "__all__", [n for n in own if not n.startswith("_")])
    kinds = {n: getattr(module, n) for n in names}
    functions = {n: "func" for n, of in kinds.items() if inspect.isfunction(of) and inspect.getdoc(of)}
    return functions | {n: "class" for n, of in kinds.items() if inspect.isclass(of) and inspect.getdoc(of)}


def write_reference(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the directives of all modules where the page says ``@modules``."""
    if docname != PAGE:
        return
    parts = []
    for name in MODULES:
        about = (inspect.getdoc(import_module(name)) or "").split("\n\n")[0].replace("``", "`")
        lines = [f".. py:module:: {name}", ""]
        for member, role in sorted(public(name).items(), key=lambda of: of[0].lower()):
            lines += [f".. autofunction:: {member}" if role == "func" else f".. autoclass:: {member}\n   :members:", ""]
        parts.append(f"## {name}\n\n{about}\n\n```{{eval-rst}}\n" + "\n".join(lines) + "```\n")
    source[0] = source[0].replace("@modules", "\n".join(parts))


def used(code: str, known: dict[str, str]) -> list[tuple[str, str]]:
    """(role, whole name) of what a cell uses of the package; `known`: name in the notebook -> whole name, added to."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # magics
        return []
    found: list[str] = []
    for node in sorted(ast.walk(tree), key=lambda of: (getattr(of, "lineno", 0), getattr(of, "col_offset", 0))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("phaselab"):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Name) and node.id in known:
            found.append(known[node.id])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            found.append(f"{known[node.value.id]}.{node.attr}")
    return [(role, name) for name in dict.fromkeys(map(home, found)) if (role := role_of(name))]


def home(name: str) -> str:
    """The whole name under which something is documented that a room only passes on."""
    module, _, own = name.rpartition(".")
    if role_of(name) or module not in MODULES:
        return name
    return f"{getattr(getattr(import_module(module), own, None), '__module__', module)}.{own}"


def role_of(name: str) -> str:
    """The role by which a whole name is referred to; empty for one that is not on the page."""
    module, _, own = name.rpartition(".")
    if module in VALUES.values():
        of = getattr(import_module(module.rpartition(".")[0]).Lab, own, None)
        return "meth" if own not in USUAL and inspect.isfunction(of) and inspect.getdoc(of) else ""
    return public(module).get(own, "") if module in MODULES else ""


def link_what_is_used(app: Sphinx, docname: str, source: list[str]) -> None:
    """Below each cell of a notebook name what it is the first to use of the package, with links."""
    if not app.env.doc2path(docname).endswith(".ipynb") or PAGE not in app.env.found_docs:
        return
    notebook, cells, known, told = json.loads(source[0]), [], dict(VALUES), set[str]()
    for cell in notebook["cells"]:
        cells.append(cell)
        tags = set(cell["metadata"].get("tags", ()))
        if cell["cell_type"] != "code" or tags & {"remove-cell", "remove-input", "injected-parameters"}:
            continue
        names = used("".join(cell["source"]), known)
        fresh = [(role, name) for role, name in names if name not in told and name not in VALUES.values()]
        told |= {name for _, name in fresh}
        if fresh:
            links = ", ".join(f"{{py:{role}}}`~{name}`" for role, name in fresh)
            text = f"```{{container}} used\nIn the reference: {links}\n```"
            cells.append({"cell_type": "markdown", "id": f"used-{len(cells)}", "metadata": {}, "source": text})
    source[0] = json.dumps(notebook | {"cells": cells})


def leave_out(app: Sphinx, what: str, name: str, of: Any, skip: bool, options: Any) -> bool | None:
    """Members that say nothing: of libraries, and fields of tuples without a text of their own."""
    return True if FOREIGN.fullmatch(name) or (inspect.getdoc(of) or "").startswith("Alias for field") else None


FIELD, TRAILING = re.compile(r"^(\w[\w, ]*) : (.*)$"), re.compile(r"(?<![`\w])(\w+_)(?![`\w])")
#: A further field on the line of one, ``...; why : ...``; a colon after a name that is set off already.
FURTHER, SET_OFF = re.compile(r"([.;])\s+(\w+(?:, \w+)*) : "), re.compile(r"(?<=`) : ")


def list_fields(app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Make lists of lines such as ``step : optimiser steps taken``; a name that ends in ``_`` is no link."""
    made: list[str] = []
    inside = False
    for line in FURTHER.sub(r"\1\n\2 : ", SET_OFF.sub(": ", "\n".join(lines))).split("\n"):
        found, goes_on = FIELD.match(line), inside and line.startswith(" ")
        if inside != bool(found or goes_on):  # before a list, and after it
            made.append("")
        inside = bool(found or goes_on)
        # Texts begin at the fourth column, as those of docstrings do: a list below a field is a part of it.
        text = f"-   ``{found[1]}``: {found[2]}" if found else f"    {line.strip()}" if goes_on else line
        made.append(TRAILING.sub(r"``\1``", text))
    lines[:] = made


#: What stands in signatures -> what a reader is to see of it.
READABLE = {
    r"<function [^>]*>+|<factory>|functools\.partial\([^)]*\)": "...",
    r"~[\w.]*Buffer \|.*?_NestedSequence\[complex \| bytes \| str\]": "~numpy.typing.ArrayLike",
    r"(~numpy\.ndarray)\[tuple\[[^]]*\], ~numpy\.dtype\[[^]]*\]\]": r"\1",
    r"= (\w+)\(\w+=[^()]*\)": r"= \1(...)",
}


def shorten(
    app: Sphinx, what: str, name: str, of: Any, options: Any, signature: str | None, gives: str | None
) -> tuple[str | None, str | None]:
    """A signature without addresses, aliases taken apart and models written out, which would leave it unreadable."""
    shown = [signature or "", gives or ""]
    for pattern, instead in READABLE.items():
        shown = [re.sub(pattern, instead, text) for text in shown]
    return shown[0] or None, shown[1] or None


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("source-read", write_reference)
    app.connect("source-read", link_what_is_used)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("autodoc-process-docstring", list_fields)
    app.connect("autodoc-process-signature", shorten)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
