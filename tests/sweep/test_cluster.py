"""A study as jobs of Snakemake: what they are, and what is said of them. Real ones run in tests/slurm."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from phaselab.cli import app
from phaselab.errors import PhaselabError
from phaselab.results import Store, claim, write_folder
from phaselab.stages import Workbench
from phaselab.study import Study
from phaselab.sweep import cluster
from phaselab.sweep.plan import plan
from phaselab.sweep.pool import View
from tiny import CHECKPOINT, LAST, TINY, with_

ROOT = Path(__file__).parents[2]
REVISIONS = ["step6-tokens1536", "step1-tokens256", "step0-tokens0"]
#: A program that says what Snakemake does, and fails.
FAILS = """#!/bin/sh
echo "$@" > called
cat <<END
Job stats:
job       count
------  -------
units         2
total         2

Finished jobid: 2 (Rule: units)
1 of 2 steps (50%) done
Error in rule units:
    message: None
    jobid: 3
    log: logs/units/one/1.log (check log file(s) for error details)
Trying to restart job 3.
Exiting because a job execution failed. Look below for error messages
[Fri Nov 27 11:31:41 2026]
Error in rule units:
    message: SLURM-job '3' failed, SLURM status is: 'TIMEOUT'
    jobid: 3
    input: done/train/one
    output: done/units/one/1
    log: logs/units/one/1.log (check log file(s) for error details)
    shell:
        x
END
exit 1
"""


def surveyed(study: Study, store: Path, device: str = "cpu", **options: Any) -> dict[str, Any]:
    bench = Workbench(study, Store(store), **options)
    return cluster.survey(bench, plan(bench, study.name)["rows"], device)


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str = FAILS, name: str = "snakemake") -> None:
    """A program of this name, beside a Python that is not there."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(program)
    (folder / "bin" / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "bin" / "python"))


def run(folder: Path, more: tuple[str, ...] = (), profile: str = "local") -> str:
    """What is shown of a run in the folder of results `folder`."""
    told, bench = StringIO(), Workbench(Study.model_validate(TINY), Store(folder))
    with View(Console(file=told, width=500)) as view:
        cluster.run(bench, {"jobs": 2, "models": {}, "pages": ["01_a.ipynb", "models/one.ipynb"]}, profile, more, view)
    return told.getvalue()


def test_units_are_known_before_a_model_is_trained_and_limits_come_from_the_study(tmp_path: Path) -> None:
    minutes = {name: 5.0 for name in (*CHECKPOINT, *LAST)} | {"brain": 30.0}
    study = Study.model_validate(with_(("minutes", minutes), ("encoding.memory", 2.5)))
    found = surveyed(study, tmp_path)
    assert [row["make"] for row in found.values()] == [REVISIONS, REVISIONS]
    assert {(row["train"], row["compare"], row["minutes"]) for row in found.values()} == {(True, False, 45)}
    # GiB: 3, the study's 2.5, and one for a network of which nothing is known.
    assert {row["mem_mb"] for row in found.values()} == {1024 * 7}
    told: list[str] = []
    bench = Workbench(Study.model_validate(with_()), Store(tmp_path), say=told.append)
    rows = plan(bench, "tiny")["rows"]
    assert cluster.survey(bench, rows, "cpu")["one"]["minutes"] == 60 * 4, "of none of four stages anything is known"
    unknown = "behaviour, brain, controls, internal: jobs have 60 minutes for each of these; 'minutes' in the study"
    assert [line.startswith("one: nobody") and unknown in line for line in told] == [True, False]
    surveyed(study, tmp_path / "limits", say=told.append)
    assert len(told) == 2, "where the study has limits, nothing is guessed"
    rows.loc[(rows["of"] == "one") & (rows["what"] == "brain"), "cpu hours"] = 3 * 0.0625
    assert [row["minutes"] for row in cluster.survey(bench, rows, "cpu").values()] == [4 * 15, 240]
    assert cluster.survey(bench, rows, "cuda")["one"]["minutes"] == 240
    compared = Study.model_validate(with_(("internals.compare", True)))
    assert surveyed(compared, tmp_path)["one"]["compare"]


def test_what_is_current_is_no_job_and_what_is_damaged_is_one(tmp_path: Path) -> None:
    study = Study.model_validate(with_(("models.1.train.steps", 1), ("models.1.train.checkpoints", 2)))
    bench = Workbench(study, Store(tmp_path))
    model = study.model("one")
    bench.folder(model)
    for at in bench.checkpoints(model):
        for stage in bench.asked(model, at):
            with write_folder(bench.place(stage, model, at), bench.inputs(stage, model, at)) as aside:
                (aside / stage.table).write_text("stands for a table")
    found = surveyed(study, tmp_path)
    assert (found["one"]["make"], found["one"]["train"]) == ([], False)
    assert found["two"]["make"] == ["step1-tokens256", "step0-tokens0"]
    broken = tmp_path / "tiny" / "one" / "step1-tokens256" / "brain" / "curves.parquet"
    broken.write_text("changed")
    said: list[str] = []
    assert surveyed(study, tmp_path, say=said.append)["one"]["make"] == ["step1-tokens256"]
    assert any(str(broken) in line and "made again" in line for line in said)
    table = plan(Workbench(study, Store(tmp_path)), "tiny")["rows"].set_index(["of", "what"])
    assert table.loc[("one", "brain"), ["asked", "here", "damaged"]].tolist() == [3, 2, 1]


def test_without_snakemake_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(PhaselabError, match=r"no snakemake beside .*expected it: pip install 'phaselab\[cluster\]'"):
        run(tmp_path)
    assert not (tmp_path / "tiny").exists()
    fake(tmp_path, monkeypatch, "#!/bin/sh\n")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # of another environment
    assert str(tmp_path / "bin" / "snakemake") in run(tmp_path)


def test_a_job_that_failed_for_good_is_told_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "tiny" / ".sweep"
    log, left = own / "logs" / "units" / "one" / "1.log", own / "done" / "units" / "one" / "0"
    for path in (log, left):
        path.parent.mkdir(parents=True)
        path.write_text("many\nfailed one step0: no memory\nwords\nthat do not matter\n")
    fake(tmp_path, monkeypatch, "", "sbatch")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    with pytest.raises(PhaselabError) as caught:
        run(tmp_path, ("--default-resources", "slurm_account=me"), "slurm")
    assert str(caught.value).split("\n") == [
        "failed jobs:",
        f"  {log}: SLURM-job '3' failed, SLURM status is: 'TIMEOUT' failed one step0: no memory",
        f"  see {own / 'snakemake.log'}",
    ]
    assert not left.exists(), "what an earlier sweep has done says nothing of this one"
    assert json.loads((own / "config.json").read_text())["jobs"] == 2
    called = (tmp_path / "called").read_text()
    assert called.endswith("--forceall --nolock --drop-metadata --default-resources slurm_account=me\n")
    assert re.search(r"--profile \S+/workflow/profiles/slurm --jobs 2 ", called)
    fake(tmp_path, monkeypatch, FAILS.replace("SLURM-job '3' failed, SLURM status is: 'TIMEOUT'", "None"))
    with pytest.raises(PhaselabError, match=f"{log}: failed one step0: no memory"):
        run(tmp_path)
    fake(tmp_path, monkeypatch, "#!/bin/sh\necho 'Error: no such executor'\nexit 2\n")
    with pytest.raises(PhaselabError, match="failed jobs:\n  Error: no such executor"):
        run(tmp_path)
    fake(tmp_path, monkeypatch, FAILS.partition("Exiting because")[0] + "END\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.v8+.yaml").write_text("keep-going: true\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    shown = run(tmp_path, profile="~/mine")
    assert "jobs: units         2" in shown
    assert "jobs: 1 of 2" in shown
    assert f"--profile {tmp_path / 'mine'} " in (tmp_path / "called").read_text()


def test_pages_that_could_not_be_made_are_named_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "tiny" / ".sweep"
    for name, said in {"pages/01_a.ipynb": "failed 01_a.ipynb: cell 2", "book": "failed 01_a.ipynb: the page"}.items():
        (own / "logs" / name).parent.mkdir(parents=True, exist_ok=True)
        (own / "logs" / f"{name}.log").write_text(f"words\n{said}\n")
    # Snakemake is content with them: only what it has done in this sweep tells anything.
    does = "#!/bin/sh\n"
    fake(tmp_path, monkeypatch, does)
    run(tmp_path)
    does += f"mkdir -p {own}/done/pages; touch {own}/done/pages/01_a.ipynb\n"
    fake(tmp_path, monkeypatch, does)
    with pytest.raises(PhaselabError, match=r"pages/01_a.ipynb.log: not all pages: failed 01_a.ipynb: cell 2\n  see"):
        run(tmp_path)
    fake(tmp_path, monkeypatch, does + f"touch {own}/done/book\n")
    with pytest.raises(PhaselabError, match=r"jobs:\n  \S+/logs/book.log: not all pages: failed 01_a.ipynb: the"):
        run(tmp_path)


def test_where_no_job_can_be_sent_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, "#!/bin/sh\n")
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("jobs: 2\nexecutor: 'slurm'\n")
    for more, profile in (((), "slurm"), ((), str(tmp_path / "mine")), (("--executor", "slurm"), "local")):
        with pytest.raises(PhaselabError, match="phaselab sweep: found no sbatch in PATH, expected it: a machine from"):
            run(tmp_path, more, profile)
    run(tmp_path, ("--dry-run",), "slurm")
    shutil.rmtree(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    for profile in (".", "..", "none", "mine/config.yaml"):  # no folders of phaselab's own
        with pytest.raises(PhaselabError, match=f"--profile: found '{profile}', expected local, slurm, or a folder"):
            run(tmp_path, (), profile)
    assert not (tmp_path / "tiny").exists()


def test_two_sweeps_of_one_study_are_one_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch)
    with (
        claim(tmp_path / "tiny" / ".sweep"),
        pytest.raises(PhaselabError, match="another sweep of this study under way"),
    ):
        run(tmp_path)


def test_an_interrupted_sweep_has_its_jobs_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"""#!{sys.executable}
import pathlib, time
pathlib.Path("begun").touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path("cancelled").touch()
"""
    fake(tmp_path, monkeypatch, program)
    monkeypatch.chdir(tmp_path)

    def interrupt() -> None:
        while not Path("begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background are made to ignore it
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert Path("cancelled").exists()
    assert not list((tmp_path / "tiny").glob(".*.claim"))


def sweep(folder: Path, *arguments: str) -> Result:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return CliRunner().invoke(app, ["sweep", "tiny.yaml", *arguments], env={"COLUMNS": "500"})


def test_the_command_says_what_there_is_to_do_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    # A folder of data that a shell would part.
    result = sweep(tmp_path, "--dry-run", "--until", "phases", "--data", "my data", "--", "--config", "group=2")
    assert result.exit_code == 2, result.output
    assert result.output.index("bytes to fetch") < result.output.index("jobs: units         2")
    assert "failed jobs:" in result.output
    assert (tmp_path / "called").read_text().endswith(" --config group=2 --dry-run\n")
    config = json.loads((tmp_path / "results" / "tiny" / ".sweep" / "config.json").read_text())
    assert [config[name] for name in ("study", "results", "data", "folder")] == [
        "tiny.yaml",
        "results",
        "my data",
        str(tmp_path),
    ]
    assert (config["until"], config["pages"], config["models"]["one"]["make"]) == ("phases", [], REVISIONS)
    assert sweep(tmp_path, "--until", "pages").exit_code == 2
    assert "--device: found 'gpu', expected auto, cpu, cuda or cuda:N" in sweep(tmp_path, "--device", "gpu").output
    result = sweep(tmp_path, "--root", str(tmp_path))
    assert "no _toc.yml" in result.output
    assert result.exit_code == 2
    sweep(tmp_path, "--root", str(ROOT), "--device", "cuda")
    config = json.loads((tmp_path / "results" / "tiny" / ".sweep" / "config.json").read_text())
    assert {"03_brain_alignment.ipynb", "models/one.ipynb", "models/two.ipynb"} <= {*config["pages"]}
    assert config["device"] == "cuda"


def test_a_page_alone_is_executed_without_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    line = ["book", "tiny.yaml", "--root", str(ROOT), "--page", "99_none.ipynb"]
    result = CliRunner().invoke(app, line, env={"COLUMNS": "500"})
    assert result.exit_code == 2
    assert "--page: found 99_none.ipynb, expected some of 00_" in result.output
    assert not (tmp_path / "results").exists(), "no result was made for it"


@pytest.mark.skipif(not Path(sys.executable).with_name("snakemake").exists(), reason="needs the extra 'cluster'")
@pytest.mark.parametrize(("until", "group", "jobs"), [("units", 2, 2 + 4), ("book", 3, 2 + 2 + 2 + 1 + 1 + 2 + 1)])
def test_the_rules_give_the_jobs(tmp_path: Path, until: str, group: int, jobs: int) -> None:
    """Of training, units, and up to the book also comparisons, curves, phases, two pages and the book."""
    row = {"train": True, "make": REVISIONS, "compare": until == "book", "minutes": 10, "mem_mb": 2048}
    config: dict[str, Any] = {"models": {"one": row, "two": row}, "jobs": 2, "until": until}
    config |= {"pages": ["01_a.ipynb", "models/one.ipynb"] if until == "book" else []}
    config |= dict.fromkeys(("folder", "python", "study", "results", "data", "keep", "device", "root"), "x")
    (tmp_path / "config.json").write_text(json.dumps(config))
    files = ["--snakefile", cluster.WORKFLOW / "Snakefile", "--configfile", tmp_path / "config.json"]
    how = ["--profile", cluster.WORKFLOW / "profiles" / "local", "--directory", tmp_path, "--dry-run", "--jobs", "2"]
    program = shutil.which("snakemake", path=str(Path(sys.executable).parent))
    line = [program, *files, *how, "--config", f"group={group}"]
    said = subprocess.run(list(map(str, line)), capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^total +{jobs + 1}$", said, re.MULTILINE), said  # with `all`
    if until == "book":
        assert "runtime=30" in said
