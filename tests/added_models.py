"""Models that somebody adds, from the command that writes the study to the book's pages: what .ci/run does last.

    python tests/added_models.py FOLDER [RESULTS]

Into FOLDER go toy checkpoints, studies, a copy of the book's sources, and results, unless they are to go to RESULTS,
where another book has made the pages that do not depend on a study. First every page of studies that have
broken pages before, in this process; then a whole book as a user makes it (`phaselab new`, `add-model`, `book`, from
another folder than the book's), with a page that fails and then without. Exits with 1 when something is not as it
should be.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import transformers
import yaml

from films_book import ROOT, copy_book, expect, save
from phaselab.results import Store
from phaselab.study import load_study
from shell import run_pages
from tiny import TINY, sweep

LABEL = "<b>\"quoted\" 'single' & 日本語モデル"
REVISIONS = ("step0-tokens0", "step10-tokens40K", "step100-tokens400K", "step1000-tokens4M")
MINE = {"name": "my-model", "folder": "my-model", "label": LABEL}
ONE, FLAT = ({"name": name, "folder": name} for name in ("one-model", "flat"))
FEW = [{"name": name, "items": 8} for name in ("reading", "facts")]
#: Study -> its models and tasks.
CASES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "alone": ([MINE], []),
    "alone-with-tasks": ([MINE], FEW),
    "beside-trained-ones": ([*TINY["models"], MINE], FEW),
    "one-checkpoint": ([ONE], []),
    "no-transition": ([FLAT], FEW),
}


def phaselab(folder: Path, *arguments: object) -> tuple[int, str]:
    """Exit code and all that is said."""
    command = [str(Path(sys.executable).with_name("phaselab")), *map(str, arguments)]
    print("$", *command[1:], flush=True)
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": folder}
    done = subprocess.run(command, check=False, env=os.environ | {"COLUMNS": "200"}, **how)
    return done.returncode, done.stdout


def checkpoints(folder: Path) -> None:
    """Four random networks, a single one, and the same one eight times, of which no curve moves."""
    for seed, revision in enumerate(REVISIONS):
        save(folder / "my-model" / revision, transformers.GPTNeoXConfig, seed)
    save(folder / "one-model" / REVISIONS[-1], transformers.LlamaConfig, 9)
    for step in (1, 2, 5, 10, 20, 50, 100, 200):
        save(folder / "flat" / f"step{step}-tokens{4 * step}K", transformers.GPTNeoXConfig, 0)


def whole_book(folder: Path) -> None:
    """A user's way; the study is made smaller by hand, as the user may."""
    root = copy_book(folder / "book")
    code, said = phaselab(folder, "new", "mine.yaml", "--model", "my-model")
    expect(code == 0 and said.endswith("next: phaselab plan mine.yaml\n"), said)
    study, brain = folder / "mine.yaml", yaml.safe_dump(TINY["brain"], default_flow_style=True, width=200).strip()
    text = re.sub("^brain: .*$", f"brain: {brain}  # small", study.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = text.replace("- name: my-model\n", f"- name: my-model\n    label: {json.dumps(LABEL)}\n")
    study.write_text(re.sub("items: (150|100)", "items: 8", text), encoding="utf-8")
    code, said = phaselab(folder, "add-model", "mine.yaml", "--model", "one-model", "--name", "my_model.v2")
    expect(code == 0 and "# small" in study.read_text(encoding="utf-8"), said)
    expect(phaselab(folder, "plan", "mine.yaml")[0] == 0, "plan")

    page = root / "notebooks" / "07_phase_two.md"
    kept = page.read_text(encoding="utf-8")
    page.write_text(
        kept.replace("curves, verdict = ", 'raise ValueError("```` broken")\ncurves, verdict = ', 1), "utf-8"
    )
    code, said = phaselab(folder, "book", "mine.yaml", "--root", "book", "-j", "2")
    expect(code == 1, f"exit code {code} of a book with a page that fails: {said}")
    expect(said.rstrip().endswith("07_phase_two.ipynb: the page says why, and how to run it alone"), said[-2000:])
    expect("KeyboardInterrupt" not in said, said)
    html = {
        path.stem: path.read_text(encoding="utf-8") for path in (root / "_build/html/book/executed").rglob("*.html")
    }
    failed = [name for name, text in html.items() if "This page could not be made" in text]
    expect(failed == ["07_phase_two"], f"pages that failed: {failed}; {said}")
    expect("ValueError: ```` broken" in html["07_phase_two"], "the page does not say why")
    expect("-p study=../mine.yaml" in html["07_phase_two"], "the page does not say how to run it alone")
    expect({"my-model", "my_model.v2", "18_how_to_read"} <= {*html}, f"pages {sorted(html)}")
    expect("&lt;b&gt;" in html["my-model"] and "日本語モデル" in html["my-model"], "the label is not on its page")

    page.write_text(kept, encoding="utf-8")
    code, said = phaselab(folder, "book", "mine.yaml", "--root", "book", "-j", "2")  # strictly
    expect(code == 0, f"exit code {code} of a book: {said}")
    expect(re.findall(r"executed (.*)", said) == ["07_phase_two.ipynb"], said)
    expect("could not be made" not in (root / "_build/html/book/executed/07_phase_two.html").read_text("utf-8"), "07")


def pages(folder: Path) -> None:
    """Every page of each case, and the same study under another name."""
    os.chdir(ROOT)
    store = Store(folder / "results-of-cases")
    for name, (models, tasks) in CASES.items():
        for study in (name, f"{name}-again"):
            file, content = folder / f"{study}.yaml", copy.deepcopy(TINY) | {"models": models, "tasks": tasks}
            file.write_text(yaml.safe_dump(content | {"name": study}, allow_unicode=True), encoding="utf-8")
            outcome = sweep(load_study(file), store, jobs=2)
            expect(not outcome.failures, f"{study}: {outcome.failures}")
            expect(study == name or outcome.computed == 0, f"{study}: {outcome.computed} stages were made again")
        wrong = run_pages(load_study(folder / f"{name}.yaml"), folder / f"{name}.yaml", store.root, ROOT / "notebooks")
        expect(not wrong, f"{name}: {wrong}")
        print(f"{name}: all pages", flush=True)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)  # a new one
    if sys.argv[2:]:
        (folder / "results").symlink_to(Path(sys.argv[2]).resolve())
    checkpoints(folder)
    pages(folder)
    whole_book(folder)


if __name__ == "__main__":
    main()
