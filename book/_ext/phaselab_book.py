"""What the book needs of Sphinx beyond its configuration: a page that asks nothing of any server.

Twelve things, each small:

- maths becomes MathML while the book is built, so no page loads MathJax;
- only pages with a plotly figure load plotly.js, and of it the part that holds lines and meshes (``book/assets``);
- in the pages of the models ``@model`` stands for the page's name: one notebook, labels that differ;
- pages are made light: pictures as WebP of 128 colours, icons from a font, the search's index where one searches;
- what a figure says of itself in numbers (``figures.drawing.Drawn``) follows the form in its alternative text;
- starter notebooks become pages, whose sources are whole notebooks that carry their self-check with them;
- the lists of public data sets and training runs are made from what the package knows;
- pages of the models of another study, whose book was built in the same folder before, go;
- the experiments with sliders are loaded where a page has one;
- scripts of Thebe, which Jupyter Book always adds and which would ask a server, are left out;
- markup that the theme and docutils get wrong for assistive technology is put right in the finished page;
- each page has a description for search engines and for those who are sent its address; where the address of the site
  is known (``PHASELAB_SITE``) also that of the page, a picture, and a map of the site.

In the student's build solutions are also taken out of the sources that pages offer for download.
"""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from docutils import nodes
from latex2mathml.converter import convert
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html import HTML5Translator

logger = logging.getLogger(__name__)

#: The gl3d distribution of plotly.js (MIT), of the version that the plotly package of ``constraints.txt`` brings.
PLOTLY = "plotly-gl3d.min.js"
MODEL_PAGES = "book/executed/models/"
LISTS = "book/data_and_models"
#: Starter notebooks, the cell for which their self-check stands, and where they are put as notebooks.
STARTERS, CHECK, PLACED = "notebooks/starters", "from check import check", "book/starters"
EXPERIMENT = re.compile(r'class="phaselab-widget" data-widget="([a-z]+)"')
#: The picture of a page that somebody is sent; characters of a sentence at least, and of a description at most.
PICTURE, MEANT, SHOWN = "readme.png", 60, 200
# A space that must not break is written ~ in LaTeX; latex2mathml would print the sign itself.
LATEX_REPLACEMENTS = (("~", r"\ "),)


def to_mathml(latex: str, display: str, node: nodes.Node) -> str:
    """MathML of a formula in LaTeX, its source kept as the alternative text."""
    for old, new in LATEX_REPLACEMENTS:
        latex = latex.replace(old, new)
    try:
        mathml = convert(latex, display=display)
    except Exception as error:  # latex2mathml has no common base class of errors
        logger.warning("maths that cannot be read: %s (%s)", latex, error, location=node)
        return f"<code>{html.escape(latex)}</code>"
    # What it does not know, latex2mathml prints as it stands: commands, and the columns of environments.
    if "\\" in mathml or "<mi>&</mi>" in mathml:
        logger.warning("maths with a command that is not known: %s", latex, location=node)
    return mathml.replace("<math ", f'<math alttext="{html.escape(latex.strip())}" ', 1)


def visit_math(translator: HTML5Translator, node: nodes.math) -> None:
    """Inline formula."""
    translator.body.append(translator.starttag(node, "span", "", CLASS="math notranslate nohighlight"))
    translator.body.append(to_mathml(node.astext(), "inline", node) + "</span>")
    raise nodes.SkipNode


def visit_math_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Displayed formula, with its number when it has a label."""
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    translator.body.append('<div class="formula">' + to_mathml(node.astext(), "block", node) + "</div>")
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, _("Link to this equation"))
        translator.body.append("</span>")
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def settle(app: Sphinx, config: Config) -> None:
    """Hide solutions in the student's build; take the site's address."""
    config.hide_solutions = config.hide_solutions or "PHASELAB_STUDENT" in os.environ
    if site := os.environ.get("PHASELAB_SITE", ""):
        config.html_baseurl = site.rstrip("/") + "/"


def starter(path: Path) -> str:
    """A starter notebook as .ipynb, with the self-check in it: students have this one file."""
    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        if cell.source == CHECK:
            cell.source = (path.parent / "check.py").read_text(encoding="utf-8").rstrip()
            cell.metadata["tags"] = ["hide-input"]
    return nbformat.writes(notebook) + "\n"


def place_starters(app: Sphinx, config: Config) -> None:
    """Write the starter notebooks where Sphinx reads them as pages; what is as it was is left alone."""
    for path in sorted((Path(app.srcdir) / STARTERS).glob("*.md")):
        to, content = Path(app.srcdir) / PLACED / f"{path.stem}.ipynb", starter(path)
        if not to.is_file() or to.read_text(encoding="utf-8") != content:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(content, encoding="utf-8")


def name_the_model(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the name of the page where a model page says ``@model``."""
    if docname.startswith(MODEL_PAGES):
        source[0] = source[0].replace("@model", docname.removeprefix(MODEL_PAGES))


def tell_what_is_seen(app: Sphinx, docname: str, source: list[str]) -> None:
    """Give each picture of a notebook an alternative text of its form (the cell's) and what it says in numbers."""
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        outputs = (output.get("metadata", {}).get("image/png", {}) for output in cell.get("outputs", ()))
        if seen := " ".join(filter(None, (output.get("alt") for output in outputs))):
            image = cell["metadata"].setdefault("mystnb", {}).setdefault("image", {})
            image["alt"] = " ".join([*image.get("alt", "").split(), *seen.split()])
    source[0] = json.dumps(notebook)


def list_what_is_public(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put what ``phaselab data list`` and ``models list`` tell where a page says ``@sets`` and ``@families``."""
    if docname != LISTS:
        return
    from phaselab.checkpoints import manifest
    from phaselab.checkpoints.families import FAMILIES
    from phaselab.data.sets import SETS, counted

    sets = []
    for of in SETS.values():
        facts = {"Licence": of.licence, "Cite": of.citation, "Whole": counted(of.files())}
        facts |= {
            "Smallest part": counted(of.select(of.smallest)),
            "Get it": f"`{of.command()}`",
            "How": re.sub(r"--\w+", r"`\g<0>`", of.how),
        }
        facts |= {"Not in it": of.left_out}
        lines = [f"- {name}: {fact}" for name, fact in facts.items() if fact]
        sets += [f"### {of.name}", f"{of.about}.", "\n".join(lines)]
    rows = ["| family | repository | licence | languages | checkpoints |", "|---|---|---|---|---|"]
    for family in (family for family in FAMILIES.values() if not family.seed):
        known = len(manifest.listing(family).checkpoints) if family.manifest else "ask the hub"
        seeds = f", seeds 0 to {family.seeds}" if family.seeds else ""
        about = family.repository, family.licence, " ".join(family.languages), str(known)
        rows.append(f"| {family.name}{seeds} | {' | '.join(about)} |")
    source[0] = source[0].replace("@sets", "\n\n".join(sets)).replace("@families", "\n".join(rows))


def finish_page(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Load plotly where it is used, and mend the markup of the page."""
    context["script_files"][:] = [script for script in context["script_files"] if not of_thebe(script)]
    body = context.get("body")
    if body is None:
        return
    if "plotly-graph-div" in body:
        # Not deferred: the figures' own scripts follow in the page and call Plotly at once.
        app.add_js_file(PLOTLY)
    if shown := EXPERIMENT.findall(body):
        app.add_css_file("widgets/widgets.css")
        for name in ("widgets", *shown):
            app.add_js_file(f"widgets/{name}.js", loading_method="defer")
    context["body"] = mend(body)
    if doctree is not None:
        context["metatags"] = context.get("metatags", "") + "\n".join(tags_of(app, pagename, context, doctree))


def tags_of(app: Sphinx, pagename: str, context: dict[str, Any], doctree: Any) -> list[str]:
    """Tags of the head that say what a page is about: its title and its first paragraph that is a sentence."""
    paragraphs = (" ".join(node.astext().split()) for node in doctree.findall(nodes.paragraph))
    about = next((text for text in paragraphs if len(text) > MEANT), app.config.html_title)
    about = about if len(about) <= SHOWN else about[: about.rfind(" ", 0, SHOWN)] + " …"
    title = re.sub(r"<[^>]+>", "", context.get("title", ""))
    of = {"og:title": html.unescape(title), "og:type": "article", "og:site_name": app.config.html_title}
    of |= {"description": about, "og:description": about}
    if base := app.config.html_baseurl:
        of |= {"og:url": f"{base}{pagename}.html", "og:image": f"{base}_static/{PICTURE}"}
    kinds = {name: "property" if name.startswith("og:") else "name" for name in of}
    return [f'<meta {kinds[name]}="{name}" content="{html.escape(text)}" />' for name, text in of.items()]


def map_the_site(app: Sphinx, error: Exception | None) -> None:
    """Write ``sitemap.xml`` where the address of the site is known."""
    if error or app.builder.format != "html" or not (base := app.config.html_baseurl):
        return
    places = (f"<url><loc>{html.escape(f'{base}{name}.html')}</loc></url>" for name in sorted(app.env.found_docs))
    text = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
    (Path(app.outdir) / "sitemap.xml").write_text(text + "\n".join(places) + "\n</urlset>\n", encoding="utf-8")


def drop_other_studies(app: Sphinx, error: Exception | None) -> None:
    """Remove pages that the book of another study left in this folder, with what they offer for download."""
    if error or app.builder.format != "html":
        return
    for page in (Path(app.outdir) / MODEL_PAGES).glob("*.html"):
        if MODEL_PAGES + page.stem not in app.env.found_docs:
            page.unlink()
            for folder in (f"_sources/{MODEL_PAGES}", "notebooks/models/"):
                Path(app.outdir, folder, f"{page.stem}.ipynb").unlink(missing_ok=True)


ICONS = re.compile(r"<(?:script|link)[^>]*/fontawesome\.js[^>]*>(?:</script>)?")
#: What the theme loads on every page for a search while typing, which is off: the page of the search has its own.
SEARCH = re.compile(r'<script src="[^"]*/?(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\s*')
FIGURE = re.compile(r'<img([^>]*)src="([^"]*_images/)([^"/]+)\.png"')


def lighten(app: Sphinx, error: Exception | None) -> None:
    """Make pages light: icons without 1.5 MB of JavaScript, the search's index on its own page alone, WebP.

    Pictures have 128 colours, and their sizes stand in the page, so that nothing moves when they come.
    """
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_images"
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).convert("RGB").save(
                path.with_suffix(".webp"), lossless=True, method=2
            )
        path.unlink()
    sizes = {path.stem: Image.open(path).size for path in folder.glob("*.webp")}

    def sized(found: re.Match[str]) -> str:
        before, place, name = found.groups()
        width, height = sizes[name]
        return f'<img{before}src="{place}{name}.webp" width="{width}" height="{height}"'

    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        light = FIGURE.sub(sized, ICONS.sub("", text))
        light = re.sub(r'(href="[^"]*_images/[^"/]+)\.png"', r'\1.webp"', light)
        light = light if path.name == "search.html" else SEARCH.sub("", light)
        if light != text:
            path.write_text(light, encoding="utf-8")


def of_thebe(script: Any) -> bool:
    """Whether a script belongs to Thebe, which runs cells on a server that this book does not have."""
    attributes = getattr(script, "attributes", {})
    return "thebe" in f"{script} {attributes.get('body', '')}".lower()


def mend(body: str) -> str:
    """Markup of a page's body with the roles and titles that assistive technology needs.

    - docutils marks the bibliography as a list of entries that are not list items;
    - scrolling boxes of notebook output can be reached with the keyboard only if they can have the focus;
    - an embedded view (``iframe``) must have a title;
    - Thebe's settings, which Jupyter Book writes at the end of each page, go with its scripts.
    """
    body = re.sub(
        r'<script type="text/x-thebe-config">.*?</script>\s*<script>kernelName = .*?</script>',
        "",
        body,
        flags=re.S,
    )
    body = re.sub(r'(<div role="list" class="citation-list)', r'<div class="citation-list', body)
    body = re.sub(r'(<div class="citation" id="[^"]*") role="doc-biblioentry"', r"\1", body)
    return re.sub(r"<iframe(?![^>]*\btitle=)", '<iframe title="Interactive view"', body)


SOLUTION = re.compile(r"^(`{3,}|:{3,})\{solution\}[^\n]*\n.*?^\1[ \t]*$\n?", re.MULTILINE | re.DOTALL)


def hide_solutions_in_sources(app: Sphinx, error: Exception | None) -> None:
    """Take solutions out of the copies of the sources, which a page offers for download."""
    if error or app.builder.format != "html" or not app.config.hide_solutions:
        return
    for path in (Path(app.outdir) / "_sources").rglob("*"):
        if path.suffix == ".ipynb":
            notebook = json.loads(path.read_text(encoding="utf-8"))
            for cell in notebook["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = SOLUTION.sub("", "".join(cell["source"])).strip()
            notebook["cells"] = [cell for cell in notebook["cells"] if cell["source"]]
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        elif path.suffix == ".md":
            path.write_text(SOLUTION.sub("", path.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.setup_extension("clean_notebooks")
    app.setup_extension("reference")
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.connect("config-inited", settle)
    app.connect("config-inited", place_starters)
    app.connect("source-read", name_the_model)
    app.connect("source-read", tell_what_is_seen)
    app.connect("source-read", list_what_is_public)
    app.connect("html-page-context", finish_page)
    app.connect("build-finished", hide_solutions_in_sources)
    app.connect("build-finished", drop_other_studies)
    app.connect("build-finished", map_the_site)
    app.connect("build-finished", lighten)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
