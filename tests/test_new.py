"""``phaselab new`` and ``phaselab add-model``: what is written is read, what was there stays, what cannot be is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from phaselab.cli import app
from phaselab.study import Study, load_study, read_section

REVISIONS = ("step0-tokens0", "step10-tokens40K", "step100-tokens400K", "step1000-tokens4M")
LABEL = "<b>\"quoted\" 'single' & 日本語: #1"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a folder of checkpoints by name (nothing is loaded)."""
    for revision in REVISIONS:
        (tmp_path / "runs" / "my-model" / revision).mkdir(parents=True)
    (tmp_path / "studies").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def phaselab(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "500"})


def test_a_new_study_is_read_and_says_what_each_part_is(here: Path) -> None:
    done = phaselab("new", "studies/mine", "--model", "runs/my-model", "--label", LABEL)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == "next: phaselab plan studies/mine.yaml"
    study, demo = load_study("studies/mine.yaml"), load_study("demo")
    (model,) = study.models
    assert (study.name, model.name, model.label, model.checkpoints) == ("mine", "my-model", LABEL, "log:20")
    assert (here / (model.folder or "")).resolve() == here / "runs" / "my-model"
    same = ("brain", "features", "encoding", "internals", "phases")
    assert all(getattr(study, part) == getattr(demo, part) for part in same)
    assert [task.name for task in study.tasks] == ["reading", "facts"]
    text = Path("studies/mine.yaml").read_text(encoding="utf-8")
    for part in (*same, "models", "tasks"):
        lines = text[: text.index(f"{part}:")].splitlines()
        assert lines[-1].strip("# ") == "" or lines[-1].startswith("# (phaselab.study.")
    assert all(len(line) < 200 for line in text.splitlines())


def test_a_new_study_has_what_another_one_has_and_its_models_if_asked_for(here: Path) -> None:
    assert phaselab("new", "a.yaml", "--model", "pythia-160m", "--like", "little-prince").exit_code == 0
    assert phaselab("new", "b.yml", "--model", "me/my-run", "--like", "demo", "--beside").exit_code == 0
    one, two, demo = load_study("a.yaml"), load_study("b.yml"), load_study("demo")
    assert (one.models[0].family, one.brain) == ("pythia-160m", load_study("little-prince").brain)
    assert two.models[:-1] == demo.models
    assert (two.models[-1].name, two.models[-1].repository, two.tasks) == ("my-run", "me/my-run", demo.tasks)


@pytest.mark.parametrize(
    "models",
    [
        "models:\n  - name: a  # the first\n    family: olmo2-1b\n    # it has more\n\n# then\nencoding: {fdr: 0.1} # x\n",
        "models:\n- name: a\n  family: olmo2-1b  # at the end without a line feed",
        "models:\n-\n    name: a\n    family: olmo2-1b\n  # of a, if further in\n\n\ntasks: []\n",
        "models: [{name: a, family: olmo2-1b}]  # one line\ntasks: []\n",
        "models: [\n  {name: a, family: olmo2-1b},  # with a comma\n]\n",
        "models:\n  - {name: a, train: &t {text: world, architecture: llama}}\n  - {name: b, train: {<<: *t, seed: 1}}\n",
    ],
)
def test_a_model_is_added_and_all_else_stays(models: str, here: Path) -> None:
    head = '# mine\nname: mine\ntitle: "Mine"   # said so\nbrain: {name: simulated}\n'
    file = here / "mine.yaml"
    file.write_text(head + models)
    before = read_section(file, Study)
    assert phaselab("add-model", file, "--model", "runs/my-model", "--checkpoints", "all").exit_code == 0
    after = read_section(file, Study)
    assert after.models[:-1] == before.models
    assert after == before.model_copy(update={"models": after.models})
    assert after.models[-1].checkpoints == "all"
    # Line by line all that was there is there, in order, with one piece put in between.
    text, old = file.read_text(), (head + models).rstrip("\n") + "\n"
    start = next(i for i, (a, b) in enumerate(zip(text, old + "\0", strict=False)) if a != b)
    assert text[: start - 0] + text[start + len(text) - len(old) :] == old
    if "# it has more" in models:
        assert text.index("# it has more") < text.index("name: my-model") < text.index("# then")
    again = phaselab("add-model", file, "--model", "olmo2-1b", "--name", "c", "--label", LABEL)
    assert again.exit_code == 0, again.output
    assert read_section(file, Study).models[-1].label == LABEL


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("new", "there", "--model", "runs/my-model"), "there.yaml: found it there already, expected a new file; 'phas"),
        (("new", "no/x.yaml", "--model", "runs/my-model"), "no/x.yaml: found no folder no, expected one that is there"),
        (("new", "demo", "--model", "runs/my-model"), "study: found 'demo', which comes with phaselab, expected another"),
        (("new", "研究.yaml", "--model", "runs/my-model"), "study: found '研究', of which no name can be made"),
        (("new", "x", "--model", "runs/my-model", "--like", "dmeo"), "--like: found 'dmeo', expected one of alice-10mm"),
        (("new", "x", "--model", "runs/my-model", "--name", "a b"), "x.yaml: not written, for it would not be read: mo"),
        (("new", "x", "--model", "runs/my-model", "--checkpoints", "log"), "checkpoints: found 'log', expected 'all', '"),
        (("new", "x", "--model", "runs"), "runs: found my-model, expected sub-folders named as on a hub: step1000-tok"),
        (("new", "x", "--model", "pythia-16m"), "which is no folder here, expected a folder of checkpoints, organisatio"),
        (("new", "x", "--model", "pythia-16m"), "or a family of 'phaselab models list', such as pythia-1"),
        (("new", "x", "--model", "./runs/none"), "--model: found './runs/none', which is no folder here, expected a fol"),
        (("new", "trained", "--model", "runs/my-model"), "name: found 'trained', expected another: results lie there"),
        (("new", "x", "--model", "me/Neox-EN-S0", "--beside"), "--name: found 'Neox-EN-S0', which is taken, expected a"),
        (("add-model", "demo", "--model", "runs/my-model"), "study: found 'demo', expected a study file of yours: 'phas"),
        (("add-model", "there.yaml", "--model", "me/a"), "--name: found 'a', which is taken, expected another than a"),
        (("add-model", "there.yaml", "--model", "data:x", "--name", "pages"), "there.yaml: not written, for it would no"),
        (("add-model", "broken.yaml", "--model", "me/b"), "broken.yaml: models: missing; expected a value"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(arguments: tuple[str, ...], said: str, here: Path) -> None:
    text = "{name: there, title: There, brain: {name: simulated}, models: [{name: a, family: olmo2-1b}]}"
    (here / "there.yaml").write_text(text)
    (here / "broken.yaml").write_text("name: broken\ntitle: Broken\nbrain: {name: simulated}\n")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    done = phaselab(*arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
