"""``phaselab new`` and ``add-model``: what is written is read, what was there stays, what cannot be is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from phaselab.cli import app
from phaselab.study import FeatureSpec, Model, PhaseSpec, Study, embedded, load_study, read_section

REVISIONS = ("step0-tokens0", "step10-tokens40K", "step100-tokens400K", "step1000-tokens4M")


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
    done = phaselab("new", "studies/mine", "--model", "runs/my-model")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == "next: phaselab plan studies/mine.yaml"
    study, demo = load_study("studies/mine.yaml"), load_study("demo")
    (model,) = study.models
    assert (study.name, model.name, model.checkpoints) == ("mine", "my-model", "log:20")
    assert (here / (model.folder or "")).resolve() == here / "runs" / "my-model"
    same = ("brain", "features", "encoding", "internals", "phases")
    assert all(getattr(study, part) == getattr(demo, part) for part in same)
    assert [task.name for task in study.tasks] == ["reading", "facts"]
    # What fields mean stands above each part, as it is told in Python.
    text = Path("studies/mine.yaml").read_text(encoding="utf-8")
    for part, section in {"models": Model, "features": FeatureSpec, "phases": PhaseSpec}.items():
        assert re.search(rf"^# \(phaselab\.study\.{section.__name__}\)\n(# )?{part}:", text, re.MULTILINE)
        told = " ".join((section.__doc__ or "").replace("``", "`").split())
        assert told in " ".join(text.replace("\n# ", " ").split())
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("like", list(embedded()))
def test_each_study_of_the_package_can_be_taken(like: str, here: Path) -> None:
    for beside in ([], ["--beside"]):
        path = here / f"mine{len(beside)}.yaml"
        done = phaselab("new", path, "--model", "data:mine", "--like", like, *beside)
        assert done.exit_code == 0, done.output
        study, base = load_study(path), load_study(like)
        assert study.models[-1].name == "mine"
        assert study.models[:-1] == (base.models if beside else ())
        assert (study.brain, study.phases) == (base.brain, base.phases)


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
        "models:\n  - name: a  # 1\n    family: olmo2-1b\n    # it has more\n\n# then\nencoding: {fdr: 0.1} # x\n",
        "models:\n- name: a\n  family: olmo2-1b  # at the end without a line feed",
        "models:\n-\n    name: a\n    family: olmo2-1b\n  # of a, if further in\n\n\ntasks: []\n",
        "models: [{name: a, family: olmo2-1b}]  # one line\ntasks: []\n",
        "models: [\n  {name: a, family: olmo2-1b},  # with a comma\n]\n",
        "models:\n  - {name: a, train: &t {text: world, architecture: llama}}\n  - {name: b, train: *t}\n",
    ],
)
def test_a_model_is_added_and_all_else_stays(models: str, here: Path) -> None:
    head = '# mine\nname: mine\ntitle: "Mine"   # said so\nbrain: {name: simulated}\n'
    file = here / "mine.yaml"
    file.write_text(head + models)
    before = read_section(file, Study)
    assert phaselab("add-model", file, "--model", "runs/my-model").exit_code == 0
    after = read_section(file, Study)
    assert after.models[:-1] == before.models
    assert after == before.model_copy(update={"models": after.models})
    # Line by line all that was there is there, in order, with one piece put in between.
    text, old = file.read_text(), (head + models).rstrip("\n") + "\n"
    start = next(i for i, (a, b) in enumerate(zip(text, old + "\0", strict=False)) if a != b)
    assert text[: start - 0] + text[start + len(text) - len(old) :] == old
    if "# it has more" in models:
        assert text.index("# it has more") < text.index("name: my-model") < text.index("# then")
    again = phaselab("add-model", file, "--model", "olmo2-1b", "--name", "null")
    assert again.exit_code == 0, again.output
    assert read_section(file, Study).models[-1].name == "null"


NEW = ("new", "x", "--model")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("new", "there", "--model", "me/a"),
            "there.yaml: found it there already, expected a new file; 'phaselab add-",
        ),
        (("new", "demo", "--model", "me/a"), "study: found 'demo', which comes with phaselab, expected another name:"),
        (
            ("new", "研究", "--model", "me/a"),
            "研究.yaml: not written, for it would be wrong (--name names the model): n",
        ),
        (
            (*NEW, "me/a", "--like", "dmeo"),
            "--like: found 'dmeo', expected one of alice-10mm, alice-small, alice, demo",
        ),
        ((*NEW, "me/a", "--name", "a b"), "models.0.name: found 'a b'; String should match pattern"),
        ((*NEW, "runs"), "runs: found my-model, expected sub-folders named as on a hub: step1000-tokens4B"),
        (
            (*NEW, "pythia-16m"),
            "--model: found 'pythia-16m', which is no folder here, expected a folder of checkpoints",
        ),
        ((*NEW, "pythia-16m"), "or a family as pythia-1"),
        (
            (*NEW, "./runs/none"),
            "--model: found './runs/none', which is no folder here, expected a folder of checkpoin",
        ),
        (("new", "trained", "--model", "me/a"), "name: found 'trained', expected another: results lie there"),
        ((*NEW, "me/Neox-EN-S0", "--beside"), "models: expected distinct names, found neox-en-s0 more than once"),
        (
            ("add-model", "demo", "--model", "me/a"),
            "study: found 'demo', expected a study file of yours: 'phaselab new",
        ),
        (("add-model", "there.yaml", "--model", "me/a"), "models: expected distinct names, found a more than once"),
        (("add-model", "there.yaml", "--model", "data:pages"), "models.1.name: found 'pages', expected another"),
        (("add-model", "broken.yaml", "--model", "me/b"), "broken.yaml: models: missing; expected a value"),
        (("add-model", "alias.yaml", "--model", "me/b"), "alias.yaml: "),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(arguments: tuple[str, ...], said: str, here: Path) -> None:
    text = "{name: there, title: There, brain: {name: simulated}, models: [{name: a, family: olmo2-1b}]}"
    (here / "there.yaml").write_text(text)
    (here / "alias.yaml").write_text(
        text.replace("{name: a,", "&a {name: a,").replace("there", "alias")[:-2] + ", *a]}"
    )
    (here / "broken.yaml").write_text("name: broken\ntitle: Broken\nbrain: {name: simulated}\n")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    done = phaselab(*arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
