"""What a page offers to run: a clean notebook for any folder, and buttons that open it, or the repository.

- A clean notebook has the cells of the page without outputs. Its first cell installs the package where there is none,
  from the repository and the commit that the book was built of; its parameters name the published results, if the
  page's study has some, so that nothing is trained. What only Sphinx understands of its text becomes plain Markdown.
- Where the address of the repository is known (``PHASELAB_REPOSITORY``, else the remote ``origin`` of git; an empty
  variable: none) pages have buttons to it and to their source, and notebooks on GitHub those of Binder and Colab, which
  open the clean notebook on the branch ``notebooks``, where the workflow ``book`` puts them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from sphinx.application import Sphinx
from sphinx.util import logging

from phaselab import __version__
from phaselab.study import OF_TABLES, published

logger = logging.getLogger(__name__)

#: Folder of clean notebooks in the built book; branch on which Binder and Colab find them; folders of notebooks' pages.
FOLDER, BRANCH, PAGES = "notebooks", "notebooks", ("book/executed/", "book/starters/")
INSTALL = """\
import importlib.util

# Runs in any folder. Where there is no phaselab, as on Colab, it is installed, which takes minutes, once.
if importlib.util.find_spec("phaselab") is None:
    {how}"""
#: A block of MyST with its kind, title, options and body; a role with its text; a label of a heading.
BLOCK = re.compile(
    r"^(`{3,}|:{3,})\{([\w:-]+)\}[ ]*([^\n]*)\n(---\n.*?^---\n|(?::[\w-]+:[^\n]*\n)*)(.*?)^\1[ \t]*$\n?", re.M | re.S
)
ROLE, LABEL = re.compile(r"\{([\w:]+)\}`([^`<]+?)(?:\s*<[^>]+>)?`"), re.compile(r"^\([\w@-]+\)=\n", re.M)

#: What stands for a reference to something that has a number in the book alone.
NAMED = {"numref": "the figure", "eq": "the equation"}


def plain(text: str, glued: dict[str, str], hide: bool = False) -> str:
    """Markdown for any reader of notebooks; `glued`: name -> what the text takes from cells; `hide` the solutions."""

    def block(found: re.Match[str]) -> str:
        kind, title, body = found[2], found[3].strip(), plain(found[5], glued, hide).strip()
        if kind == "solution":
            return "" if hide else f"<details><summary>Solution</summary>\n\n{body}\n\n</details>\n"
        if kind.endswith("figure"):  # a picture of the book, which does not come along
            return f"*{body}*\n"
        return f"**{kind.capitalize()}{f': {title}' if title else ''}.** {body}\n"

    def role(found: re.Match[str]) -> str:
        return glued.get(found[2], found[2]) if found[1] == "glue:text" else NAMED.get(found[1], found[2])

    return ROLE.sub(role, BLOCK.sub(block, LABEL.sub("", text)))


def glued_in(notebook: Any) -> dict[str, str]:
    """Name -> text of what cells keep for the text of their page."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    kept = {o.metadata["scrapbook"]["name"]: o.data for o in outputs if "scrapbook" in o.get("metadata", {})}
    texts = {name: next((v for k, v in data.items() if k.endswith("text/plain")), "") for name, data in kept.items()}
    return {name.removeprefix("application/papermill.record/"): text.strip("'") for name, text in texts.items()}


def clean(page: Any, first: str, hide: bool = False) -> Any:
    """The clean notebook of an executed page, or of a starter notebook, without solutions if they are to `hide`."""
    given = page.metadata.get("phaselab", {}).get("parameters", {})
    study, glued, cells = given.get("study", ""), glued_in(page), []
    tables = published().get(OF_TABLES + study)  # with which pages run if they have a sample
    whole = tables is not None and tables.with_name("checkpoint").is_dir()
    of = {"study": OF_TABLES * whole + study, "model": given.get("model")}
    given = {name: value for name, value in of.items() if value}
    for cell in page.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            continue
        source = cell.source if cell.cell_type == "code" else plain(cell.source, glued, hide).strip()
        for name, value in given.items() if "parameters" in tags else ():
            source = re.sub(
                rf'^({name}: str = )"[^"]*"',
                lambda old, value=value: f"{old[1]}{json.dumps(value)}",
                source,
                flags=re.M,
            )
        if not source:
            continue
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        cells.append(make(source, id=f"cell-{len(cells)}", metadata={"tags": tags} if tags else {}))
        if caption := cell.metadata.get("mystnb", {}).get("figure", {}).get("caption"):
            told = f"*{' '.join(plain(caption, glued).split())}*"
            cells.append(nbformat.v4.new_markdown_cell(told, id=f"cell-{len(cells)}"))
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(first, id="install"), *cells], metadata=metadata)


@cache
def git(folder: Path, *what: str) -> str:
    """What git says of a checkout; nothing where `folder` is none, or a part of another one."""

    def said(*asked: str) -> str:
        return subprocess.run(["git", *asked], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return said(*what) if Path(said("rev-parse", "--show-toplevel")) == folder.resolve() else ""
    except (OSError, subprocess.CalledProcessError):
        return ""


def repository(folder: Path) -> str:
    """The address of the repository for browsers, without what is secret in it; empty: not known."""
    given = os.environ.get("PHASELAB_REPOSITORY")
    address = git(folder, "remote", "get-url", "origin") if given is None else given
    address = re.sub(r"^(?:ssh://)?git@([\w.-]+)[:/]", r"https://\1/", re.sub(r"^https://[^/@]*@", "https://", address))
    if re.fullmatch(r"https://[\w.-]+(/[\w.-]+){2,}", address := address.rstrip("/").removesuffix(".git")):
        return address
    if given:
        expected = "an address as https://github.com/owner/name"
        logger.warning("PHASELAB_REPOSITORY: found %r, expected %s", given, expected, once=True)
    return ""


def install(folder: Path) -> str:
    """The first cell of a clean notebook: the package, of the repository and the commit that the book is built of."""
    if not (address := repository(folder)):
        return INSTALL.format(how="""raise ModuleNotFoundError("phaselab: install the wheel of this book")""")
    commit = git(folder, "rev-parse", "HEAD") or f"v{__version__}"
    return INSTALL.format(how=f'%pip install --quiet "phaselab[notebooks] @ git+{address}@{commit}"')


def name_of(pagename: str) -> str:
    """The name of a page's clean notebook, without its ending; empty for a page that is no notebook."""
    return next((pagename.removeprefix(folder) for folder in PAGES if pagename.startswith(folder)), "")


def read(app: Sphinx, pagename: str) -> Any:
    """The notebook of a page that can be run; None for other pages, and for one that says that it could not be made."""
    path = Path(app.env.doc2path(pagename))
    if not name_of(pagename) or path.suffix != ".ipynb":
        return None
    page = nbformat.read(path, as_version=4)
    return page if any(cell.cell_type == "code" for cell in page.cells) else None


def source_of(pagename: str, page: Any) -> str:
    """Where in the repository a page is written."""
    if made := (page.metadata.get("phaselab", {}) if page else {}).get("source"):
        return f"notebooks/{made}"
    return f"notebooks/starters/{name_of(pagename)}.md" if page else f"{pagename}.md"


def button(text: str, url: str, icon: str, tooltip: str) -> dict[str, str]:
    """A button of the theme."""
    return {"type": "link", "text": text, "url": url, "icon": icon, "tooltip": tooltip}


def offer(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Write the clean notebook of a page, and add buttons to the page."""
    if doctree is None or "header_buttons" not in context:
        return
    page, name, buttons = read(app, pagename), name_of(pagename), context["header_buttons"]
    if page:
        to = Path(app.outdir) / FOLDER / f"{name}.ipynb"
        to.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(clean(page, install(Path(app.srcdir)), app.config.hide_solutions), to)
        own = button(
            "clean .ipynb",
            f"{context['pathto'](FOLDER, 1)}/{quote(name)}.ipynb",
            "fas fa-play",
            "Download the notebook without outputs, which runs in any folder",
        )
        for group in (group for group in buttons if group.get("label") == "download-buttons"):
            group["buttons"].insert(0, own)
    if not (address := repository(Path(app.srcdir))):
        return
    links = [button("Repository", address, "fab fa-github", "Source repository")]
    groups = [
        {"type": "group", "buttons": links, "icon": "fab fa-github", "tooltip": "Source", "label": "source-buttons"}
    ]
    if (at := address.removeprefix("https://github.com/")) != address:
        where = f"{address}/edit/main/{source_of(pagename, page)}"
        links.append(button("Suggest edit", where, "fas fa-pencil-alt", "Suggest an edit of this page"))
        if page:
            opened = quote(f"{name}.ipynb")
            binder = f"https://mybinder.org/v2/gh/{at}/{BRANCH}?urlpath=lab/tree/{opened}"
            colab = f"https://colab.research.google.com/github/{at}/blob/{BRANCH}/{opened}"
            run = [button("Binder", binder, "fas fa-server", "Run this page on Binder")]
            run.append(button("Colab", colab, "fab fa-google", "Run this page on Colab"))
            group = {
                "type": "group",
                "buttons": run,
                "icon": "fas fa-rocket",
                "tooltip": "Run",
                "label": "launch-buttons",
            }
            groups.insert(0, group)
    buttons[:0] = groups


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("html-page-context", offer, priority=600)  # after the theme's own buttons
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
