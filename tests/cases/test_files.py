"""Files as public bug reports tell of them: read rightly, or refused in a sentence that names file and line."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from phaselab import results
from phaselab.behaviour.files import read as read_task
from phaselab.book import runner
from phaselab.brains.alice import AliceSpec, files, read_stimulus
from phaselab.checkpoints import Checkpoint, choose, local_checkpoints
from phaselab.checkpoints.load import load
from phaselab.checkpoints.names import needed, read_amount, read_name
from phaselab.cli import app
from phaselab.encoding.arrays import open_array
from phaselab.errors import PhaselabError, escape, shown
from phaselab.files import parse_yaml
from phaselab.results import Store, numbers, read_table, write_file, write_folder, write_table
from phaselab.stages import Workbench
from phaselab.stimuli import read_textgrid
from phaselab.study import Study, StudyError, Training, load_study
from phaselab.texts import source
from tiny import PLACES, TINY, sweep

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def refused(act: Any, *arguments: Any) -> str:
    """What a PhaselabError says, in one sentence: no traceback, no line break."""
    with pytest.raises(PhaselabError) as caught:
        act(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def cli(*arguments: object) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "500"})
    assert done.exit_code in (0, 2), done.output
    assert "Traceback" not in done.output
    return done.output


# --- Tables ----------------------------------------------------------------------------------------

LABELS = "run , label\n001,NA\n1,None\n0.10,\n0.1, a b \n"


@pytest.mark.parametrize(
    "raw",
    [
        LABELS.encode(),
        LABELS.encode("utf-8-sig"),
        LABELS.replace("\n", "\r\n").encode("utf-8-sig"),
        LABELS.replace("\n", "\r").encode(),
        LABELS.encode("utf-16"),
        LABELS.encode("utf-16-le"),
        LABELS.encode("utf-16-be"),
        LABELS.replace(",", ";").encode(),
        LABELS.replace(",", "\t").encode(),
        f'"a, b"; {LABELS}'.replace(",", ";").replace("a;", "a,").replace("\n", "\n;", 4).encode(),
        LABELS.replace("\n", ",,\n").encode(),
        "".join(f"{'' if i == 0 else i - 1},{line}\n" for i, line in enumerate(LABELS.splitlines())).encode(),
    ],
)
def test_labels_are_text_however_a_table_was_written(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(raw)
    table = read_table(path, "run", "label")[["run", "label"]]
    assert table.to_dict("list") == {"run": ["001", "1", "0.10", "0.1"], "label": ["NA", "None", "", "a b"]}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "t.csv: found no table that can be read"),
        (b"x,y\n", ""),
        (b"# my run\nx,y\n1,2\n", "t.csv: found no table that can be read (.*line 2"),
        (b"x,y\n1,0,25\n", "t.csv: found no table that can be read (.*Expected 2 fields in line 2, saw 3"),
        (b'x,y\n"1,2\n3,4\n', "t.csv: found no table that can be read (.*inside string"),
        (b"x,x\n1,2\n", "t.csv: found columns x, x, expected distinct names"),
        (b"tokens,acc\n1,2\n", "t.csv: found columns tokens, acc, expected x, y"),
        (b"x|y\n1|2\n", "t.csv: found columns x|y, expected x, y"),
        ("x,y\n1,2\ncaf\xe9,3\n".encode("latin-1"), "t.csv: line 3: found byte 0xe9, which is not utf-8"),
        (b"x,y\n\0\0\0\0\n", "t.csv: found binary data, expected text in UTF-8"),
        (POINTER, "t.csv: found a pointer of Git LFS or git-annex, expected the file itself: 'git lfs pull'"),
        (
            b"," * 20_000 + b"\n",
            "t.csv: found no table that can be read (.*found 20,001 columns, expected",
        ),
    ],
)
def test_a_table_that_is_none_is_said(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(raw)
    if not said:
        assert len(read_table(path, "x", "y")) == 0
        return
    found = refused(read_table, path, "x", "y")
    for part in said.split(".*"):
        assert part in found
    assert found.startswith(str(path))


def test_other_places_of_tables_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").mkdir()
    assert refused(read_table, tmp_path / "t.csv").endswith(
        "t.csv: found a folder, a pipe or a device, expected a file"
    )
    assert "cannot be read: No such file" in refused(read_table, tmp_path / "none.parquet")
    assert "(it ends in '.xlsx'), expected one of .csv" in refused(read_table, tmp_path / "t.xlsx")
    (tmp_path / "t.parquet").write_bytes(POINTER)
    assert "pointer of Git LFS" in refused(read_table, tmp_path / "t.parquet")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "CAPS.CSV").write_text("x\n1\n")
    assert len(read_table(Path("~/CAPS.CSV"), "x")) == 1


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1), (" 2.5 ", 2.5), ("1e9", 1e9), ("-.5E-3", -0.0005), ("4.", 4), ("", None), ("NA", None), ("nan", None)],
)
def test_a_number_is_read(cell: str, value: float | None) -> None:
    (found,) = numbers(pd.Series([cell]), "y")
    assert found == value if value is not None else np.isnan(found)


@pytest.mark.parametrize(
    "cell", ["1,000", "0,25", "1M", "2B", "45.2%", "step1000", "1_000", "1 000", "-", "0x10", "１"]
)
def test_what_could_be_read_in_two_ways_is_no_number(cell: str) -> None:
    said = refused(numbers, pd.Series(["1", cell]), "y: column 'acc'")
    assert said.startswith(
        f"y: column 'acc': found {cell!r} in row 2, expected a number written out, as 1000 for 1,000"
    )


def test_numbers_of_other_types_are_themselves() -> None:
    for values in ([1, 2], [1.5, np.nan], [True, False]):
        np.testing.assert_array_equal(numbers(pd.Series(values), "y"), np.array(values, dtype=float))
    np.testing.assert_array_equal(numbers(pd.Series([1, None], dtype="Int64"), "y"), [1, np.nan])
    np.testing.assert_array_equal(numbers(pd.Series(["1", None, 2], dtype=object), "y"), [1, np.nan, 2])


def test_curves_of_labels_that_look_alike_stay_apart(tmp_path: Path) -> None:
    x = np.unique(np.round(np.logspace(6, 10, 20)))
    rows = [f"{t:.0f},{0.1 * k:.3f},{name}" for k, name in enumerate(("001", "1", "0.10", "NA")) for t in x]
    (tmp_path / "c.csv").write_bytes("\r\n".join(["tokens,acc,seed", *rows]).encode("utf-8-sig"))
    out = cli("phases", tmp_path / "c.csv", "--x", "tokens", "--y", "acc", "--by", "seed", "--out", tmp_path / "ph")
    assert [line.split(":")[0] for line in out.splitlines()[:4]] == ["001", "1", "0.10", "NA"]
    assert read_table(tmp_path / "ph" / "transitions.csv", "seed")["seed"].tolist() == ["001", "1", "0.10", "NA"]


TOKENS = [0, *(10**6 * 2**k for k in range(13))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "The curve"),
        ({"sep": ";"}, "The curve"),
        ({"sep": ";", "decimal": ","}, "--y: column 'acc': found '0,2"),
        (
            {"tokens": [f"{t:,}" for t in TOKENS]},
            "--axis: column 'tokens': found '1,000,000' in row 2, expected",
        ),
        ({"tokens": ["0", *(f"{2**k}M" for k in range(13))]}, "--axis: column 'tokens': found '1M' in row 2"),
        ({"tokens": [f"step{i}" for i in range(14)]}, "--axis: column 'tokens': found 'step0' in row 1"),
        ({"tokens": [-t for t in TOKENS]}, "--axis: column 'tokens': found -4.096e+09, expected 0 or more"),
        ({"acc": [f"{k}.5%" for k in range(14)]}, "--y: column 'acc': found '0.5%' in row 1, expected a number"),
        ({"acc": ["-"] * 14}, "--y: column 'acc': found '-' in row 1"),
        ({"acc": [""] * 13 + ["1"]}, "13 checkpoints with missing values dropped"),
        ({"tokens": [*TOKENS[:13], TOKENS[12]]}, "1 checkpoint with the tokens of another, averaged"),
    ],
)
def test_numbers_of_curves_are_read_or_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rise = 0.25 + 0.5 / (1 + np.exp(-3 * (np.log10(np.maximum(TOKENS, 5e5)) - 7.7)))
    frame = pd.DataFrame({"tokens": TOKENS, "acc": rise}).assign(
        **{name: values for name, values in change.items() if name in ("tokens", "acc")}
    )
    how = {name: value for name, value in change.items() if name in ("sep", "decimal")}
    frame.to_csv(tmp_path / "c.csv", index=False, **how)
    assert said in cli("phases", tmp_path / "c.csv", "--x", "tokens", "--y", "acc", "--out", tmp_path / "ph")


@pytest.mark.parametrize("more", [("--by", "tokens"), ("--by", "acc,acc"), ("--by", "m", "--replicates", "m")])
def test_a_column_has_one_part_in_a_table_of_curves(tmp_path: Path, more: tuple[str, ...]) -> None:
    pd.DataFrame({"tokens": TOKENS, "acc": 0.5, "m": "a"}).to_csv(tmp_path / "c.csv", index=False)
    said = cli("phases", tmp_path / "c.csv", "--y", "acc", *more, "--out", tmp_path / "ph")
    assert "--by: found columns tokens, acc, " in said


# --- TextGrid --------------------------------------------------------------------------------------

WORDS = [("", 0.0, 0.5), ("the", 0.5, 0.8), ("one\ntwo", 0.8, 1.2), ('says "hi"', 1.5, 2.0)]
HEAD = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0 \nxmax = 2 \ntiers? <exists> \n'


def long_grid(number: str = "{:g}", words: Any = WORDS) -> str:
    text = f'{HEAD}size = 1 \nitem []: \n    item [1]:\n        class = "IntervalTier" \n        name = "word" \n'
    text += f"        xmin = 0 \n        xmax = 2 \n        intervals: size = {len(words)} \n"
    for i, (word, start, end) in enumerate(words, 1):
        doubled = word.replace('"', '""')
        times = f"            xmin = {number.format(start)} \n            xmax = {number.format(end)} \n"
        text += f'        intervals [{i}]:\n{times}            text = "{doubled}" \n'
    return text


def short_grid() -> str:
    text = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n1\n"IntervalTier"\n"word"\n0\n2\n'
    text += f"{len(WORDS)}\n"
    for word, start, end in WORDS:
        doubled = word.replace('"', '""')
        text += f'{start:g}\n{end:g}\n"{doubled}"\n'
    return text


@pytest.mark.parametrize(
    "raw",
    [
        long_grid().encode(),
        long_grid().encode("utf-8-sig"),
        long_grid().replace("\n", "\r\n").encode(),
        long_grid().replace("\n", "\r").encode(),
        long_grid().encode("utf-16"),
        long_grid().encode("utf-16-le"),
        long_grid().encode("utf-16-be"),
        short_grid().encode(),
        short_grid().encode("utf-16-le"),
        long_grid("{:.3e}").encode(),
        long_grid().replace("xmin = ", "xmin=").encode(),
        long_grid().replace("xmin = 0.5 ", "xmin = 0.5 ! start").replace("\n", "\r").encode(),
    ],
)
def test_a_textgrid_is_read_in_every_format(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "g.TextGrid"
    path.write_bytes(raw)
    (tier,) = read_textgrid(path).values()
    assert [(i.text, i.start, i.end) for i in tier] == WORDS


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "line 1: found the end, expected a text"),
        (long_grid(words=[("caf\xe9", 0, 2)]).encode("latin-1"), "line 18: found byte 0xe9, which is not utf-8"),
        (
            b'"Praat chronological TextGrid text file"\n0 2\n',
            "line 1: found 'Praat chronological TextGrid text file', expec",
        ),
        (b"ooBinaryFile\x08TextGrid\0\0", "binary data"),
        (long_grid().replace("xmax = 0.8", "xmax = 1e999").encode(), "line 21: found inf, expected a number"),
        (long_grid().replace("xmax = 0.8", "xmax = nan").encode(), "line 22: found 'the', expected a number"),
        (
            long_grid().replace("xmin = 0.5", "xmin = 0.3").encode(),
            "found an interval from 0.3 to 0.8 s after one that",
        ),
        (
            long_grid().replace("size = 4", "size = 3").encode(),
            "found more after the last tier, expected as many as its",
        ),
        (long_grid().replace("size = 4", "size = 5").encode(), "found the end, expected a number"),
        (long_grid().replace('"the"', '"the').encode(), "line 27: found "),
        (POINTER, "found a pointer of Git LFS"),
    ],
)
def test_a_textgrid_that_is_none_is_said_with_file_and_line(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "g.TextGrid"
    path.write_bytes(raw)
    found = refused(read_textgrid, path)
    assert found.startswith(str(path))
    assert said in found


def test_one_textgrid_is_taken_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "alice2016"
    for path in (
        "alice_data_shared/6mm/s01-timecourses.txt",
        "alice_data_shared/s01-rp_x.txt",
        "alice_data_shared/s01-sndpwr.txt",
        "alice_stim_shared/a.TextGrid",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x")
        (folder / path).with_name(f"._{Path(path).name}").write_bytes(b"\0\5\x16\7Mac OS X")
    assert [path.name for path in files(AliceSpec(), tmp_path)["stimulus"]] == ["a.TextGrid"]
    (folder / "alice_stim_shared/b.TextGrid").write_text("x")
    assert "found 2 files, expected one" in refused(files, AliceSpec(), tmp_path)
    (folder / "alice_stim_shared/a.TextGrid").write_text(long_grid(words=[]))
    assert "found no word in tier 'word'" in refused(read_stimulus, folder / "alice_stim_shared/a.TextGrid")


# --- YAML, JSON ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("write", [yaml.safe_dump, json.dumps])
def test_a_study_in_any_encoding_is_the_same(tmp_path: Path, encoding: str, write: Any) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(write(TINY).encode(encoding))
    assert load_study(path).model_dump() == Study.model_validate(TINY).model_dump()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("name: s\ntitle: caf\xe9\n".encode("latin-1"), "s.yaml: line 2: found byte 0xe9, which is not utf-8"),
        (
            b"name: s\nbrain:\n  name: alice\n  seed: 1\n  name: simulated\n",
            "s.yaml:5: cannot be read as YAML: field 'name'",
        ),
        (b'{"name": "s",\n "name": "t"}', "s.yaml:2: cannot be read as YAML: field 'name' stands twice"),
        (b"name: s\n\ttitle: t\n", "s.yaml:2: cannot be read as YAML: found character"),
        (b"name: s\n---\nname: t\n", "s.yaml:2: cannot be read as YAML: but found another document"),
        (b"name: 2024-13-45\n", "s.yaml:1: cannot be read as YAML: month must be in 1..12"),
        (b"name: s\ntitle: \x07\n", "s.yaml:2: cannot be read as YAML: special characters are not allowed"),
        (b"[" * 1000, "cannot be read as YAML"),
        (b'name: s\ntitle: "a\\0b"\n', "s.yaml:2: cannot be read as YAML: found '\\x00', expected text"),
        (b'name: s\nmodels: [{"\\e[31m": 1}]\n', "s.yaml:2: cannot be read as YAML: found '\\x1b', expected text"),
        (b"name: !!bool x\n", "s.yaml:1: cannot be read as YAML: 'x'"),
        (b"name: !!timestamp x\n", "s.yaml:1: cannot be read as YAML: "),
        (b'name: "\\ud800"\n', "s.yaml:1: cannot be read as YAML: found '\\ud800', expected text"),
        (b"# " + b"x" * 2**18, "s.yaml: found 262,146 characters, expected YAML of at most 262,144"),
        (POINTER, "s.yaml: found a pointer of Git LFS"),
    ],
)
def test_yaml_that_is_none_is_said_with_the_line(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(raw)
    assert said in refused(load_study, path)
    assert said in refused(read_task, path)


def test_a_merged_field_may_be_given_again() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, x: 4}\n"
    assert parse_yaml(text, "t")[0] == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 4, "y": 3}}
    assert parse_yaml(text, "t")[1] == {"a": 1, "b": 2, "c": 3}
    assert parse_yaml("1: a\n'1': b\n", "t")[0] == {1: "a", "1": "b"}


# --- Books -----------------------------------------------------------------------------------------

BOOK = b"the cat and the dog went out. " * 400
BOOKS = Training(text="books", architecture="llama", vocabulary=300)


def books(
    folder: Path, n: int = 24, head: str = "slug,sha256,licence", encoding: str = "utf-8", book: bytes = BOOK
) -> Path:
    (folder / "books").mkdir()
    rows = [head]
    for number in range(n):
        (folder / f"books/book{number}.txt").write_bytes(book)
        rows.append(f"book{number},{hashlib.sha256(book).hexdigest()},pd".replace(",", ";" if ";" in head else ","))
    (folder / "books/MANIFEST.csv").write_bytes("\n".join(rows).encode(encoding))
    return folder


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"encoding": "utf-8-sig"}, ""),
        ({"encoding": "utf-16"}, ""),
        ({"head": "slug;sha256;licence"}, ""),
        ({"head": " slug , sha256 ,licence"}, ""),
        ({"book": b"\xef\xbb\xbf" + BOOK}, ""),
        ({"head": "slug,digest,licence"}, "MANIFEST.csv: found columns slug, digest, licence, expected slug, sha256"),
        ({"book": BOOK + "le caf\xe9".encode("latin-1")}, "line 1: found byte 0xe9, which is not utf-8"),
        ({"n": 1}, "books: found 1 book for training, 0 books for held out, expected some for each"),
        ({"n": 0}, "books: found 0 books for training, 0 books for held out"),
        ({"book": b"12 34. " * 999}, "books: found frequent words , expected three or more"),
    ],
)
def test_books_and_their_manifest(tmp_path: Path, how: dict[str, Any], said: str) -> None:
    books(tmp_path, **how)
    if said:
        assert said in refused(lambda: source(BOOKS, tmp_path).items("cloze", 2, 0))
    else:
        assert len(source(BOOKS, tmp_path).items("cloze", 2, 0)) == 2


def test_a_book_that_is_named_twice_or_has_other_ends_of_lines(tmp_path: Path) -> None:
    manifest = books(tmp_path) / "books/MANIFEST.csv"
    manifest.write_text(manifest.read_text() + "\nbook3,0,pd\n")
    assert "MANIFEST.csv: found book3 twice, expected a row per book" in refused(source, BOOKS, tmp_path)
    manifest.write_text(manifest.read_text().replace("\nbook3,0,pd\n", ""))
    (tmp_path / "books/book3.txt").write_bytes(BOOK.replace(b". ", b".\r\n"))
    assert "as in MANIFEST.csv (git's autocrlf, for one" in refused(source(BOOKS, tmp_path).items, "cloze", 2, 0)


# --- Paths -----------------------------------------------------------------------------------------


def test_paths_of_a_study_are_beside_it_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {**TINY, "models": [{"name": "m", "folder": "runs/m"}, {"name": "n", "folder": "~/n"}]}
    content["tasks"] = [{"name": "t", "file": "tasks/t.yaml", "data": {"test": "../d.jsonl", "train": "/d.jsonl"}}]
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/s.yaml").write_text(yaml.safe_dump(content))
    for place, asked in (
        (tmp_path, "deep/s.yaml"),
        (tmp_path / "deep", "s.yaml"),
        (Path("/"), tmp_path / "deep/s.yaml"),
    ):
        monkeypatch.chdir(place)
        study = load_study(asked)
        at = [*(m.folder for m in study.models), study.tasks[0].file, *study.tasks[0].data.values()]
        wanted = [
            tmp_path / "deep/runs/m",
            tmp_path / "home/n",
            tmp_path / "deep/tasks/t.yaml",
            tmp_path / "d.jsonl",
            Path("/d.jsonl"),
        ]
        assert [path and path.resolve() for path in at] == wanted
        # Where they lie is nothing that results depend on.
        assert study.model_dump(mode="json")["tasks"][0]["data"] == {"test": "d.jsonl", "train": "d.jsonl"}
    (tmp_path / "home").mkdir()
    (tmp_path / "deep/s.yaml").rename(tmp_path / "home/s.yaml")
    assert load_study("~/s.yaml").models[1].folder == tmp_path / "home/n"


def test_home_is_known_wherever_a_path_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store(Path("~/results")).root == tmp_path / "results"
    assert Workbench(Study.model_validate(TINY), Store(tmp_path), Path("~/data")).data == tmp_path / "data"
    write_table(pd.DataFrame({"tokens": TOKENS, "acc": np.arange(14.0)}), Path("~/c.csv"))
    cli("phases", "~/c.csv", "--x", "tokens", "--y", "acc", "--out=~/ph")
    assert (tmp_path / "ph/curves.png").is_file()
    np.save(tmp_path / "X.npy", np.zeros((3, 2)))
    assert open_array("a=~/X.npy", "features").shape == (3, 2)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", rng.standard_normal((60, 2)))
    (tmp_path / "runs.csv").write_bytes("\ufeffrun;n_trs\r\n001;20\r\n1;20\r\n01;20\r\n".encode())
    job = "features: ~/X.npy\nresponses: ~/X.npy\nruns: ~/runs.csv\nout: ~/s.csv\npermutations: 0\n"
    (tmp_path / "job.yaml").write_text(job)
    assert "3 runs" in cli("encode", "~/job.yaml")
    assert json.loads((tmp_path / "s.json").read_text())["runs"] == {"001": 20, "1": 20, "01": 20}
    (tmp_path / "alice2016").mkdir()
    assert "alice2016" in cli("doctor", "--data=~")


def test_results_are_tried_for_writing_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    study = Study.model_validate(TINY)
    for root in (tmp_path / "file", tmp_path / "file/results"):
        assert "cannot be written: Not a directory" in refused(sweep, study, Store(root))
        bench = Workbench(study, Store(root))
        assert "cannot be written: Not a directory" in refused(bench.folder, study.models[0])
    results.try_beside(Store(tmp_path).curves("tiny"))
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be written: Permission denied" in refused(results.try_beside, Store(tmp_path).curves("tiny"))
    tmp_path.chmod(0o700)


def test_a_folder_where_a_file_is_expected_is_said(tmp_path: Path) -> None:
    notebook = tmp_path / "n.md"
    notebook.write_text(NOTEBOOK)
    for act in (
        lambda: runner.execute(notebook, tmp_path, {}),
        lambda: write_table(pd.DataFrame({"a": [1]}), tmp_path / "t.csv"),
        lambda: write_file(tmp_path).__enter__(),
    ):
        (tmp_path / "t.csv").mkdir(exist_ok=True)
        assert "found a folder, expected the name of a file" in refused(act)
    assert "found the ending '.txt', expected one of .csv" in refused(write_table, pd.DataFrame(), tmp_path / "t.txt")
    assert "n.md/x.csv: cannot be written" in refused(write_table, pd.DataFrame(), notebook / "x.csv")


NOTEBOOK = """\
```{code-cell} ipython3
:tags: [parameters]

layers: list[int] = [1, 2]  # which
top: int = 3
```
"""


def test_notebooks_that_cannot_run_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "---\njupytext:\n  text_representation: {extension: .md, format_name: myst}\n"
    head += "kernelspec: {name: python3, display_name: Python 3, language: python}\n---\n\n"
    path, out = tmp_path / "n.md", tmp_path / "o.ipynb"
    path.write_text(head + NOTEBOOK)
    said = refused(runner.execute, path, out, {"layers": "[3]"})
    assert (
        "n.md: parameter 'layers': found the type list[int], expected one of str, int, float, bool: a list can" in said
    )
    path.write_bytes((head + NOTEBOOK + "caf\xe9").encode("latin-1"))
    assert "n.md: line 13: found byte 0xe9" in refused(runner.execute, path, out, {})
    cell = {"cell_type": "code", "metadata": {"tags": 5}, "outputs": [], "execution_count": None, "source": "n = 3"}
    odd = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4})
    for text in ("{", "", odd):
        (tmp_path / "n.ipynb").write_text(text)
        assert "n.ipynb: expected a notebook, .md or .ipynb, found none" in refused(
            runner.execute, tmp_path / "n.ipynb", out, {}
        )
    assert "none.md: cannot be read: No such file" in refused(runner.execute, tmp_path / "none.md", out, {})
    path.write_text(head + NOTEBOOK)
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    said = refused(runner.execute, path, out, {})
    assert said.startswith("TMPDIR: found a path too long for sockets: /")
    assert not out.exists()
    assert [*deep.iterdir()] == []


def test_what_has_no_end_or_is_too_long_is_said_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that nobody writes to, a device, and a file of a size that nobody has written."""
    monkeypatch.chdir(tmp_path)
    long, right = tmp_path / "long", "found a folder, a pipe or a device, expected a file"
    os.mkfifo("pipe")
    with long.open("wb") as stream:
        stream.truncate(2**40)
    acts: dict[str, Any] = {"x.csv": read_table, "x.parquet": read_table, "x.yaml": read_task, "x.md": _run}
    for name, act in acts.items():
        for target, said in {
            "pipe": right,
            "/dev/zero": right,
            str(long): "found 1,099,511,627,776 bytes, expected",
        }.items():
            Path(name).unlink(missing_ok=True)
            Path(name).symlink_to(target)
            assert said in refused(act, Path(name)) or (
                name == "x.yaml" and "found no file" in refused(act, Path(name))
            )
            assert results.read_json(Path(name)) == {}
    for name in ("x.npy", "x.npz", "x.h5", "x.zarr"):
        Path(name).symlink_to("pipe")
        assert right in refused(open_array, name, "--features")
    for name, target in {"c/0/0": "/dev/zero", "zarr.json": "/dev/zero", "c": "pipe", "0.0": "none"}.items():
        (part := Path("y.zarr", name)).parent.mkdir(parents=True)
        part.symlink_to(Path(target).absolute())
        assert f"{name}: found a pipe, a device or a broken link" in refused(open_array, "y.zarr", "--features")
        shutil.rmtree("y.zarr")
    Path("o.json").symlink_to("/dev/zero")
    np.save("X.npy", np.zeros((9, 2)))
    assert right in cli("encode", "--features", "X.npy", "--responses", "X.npy", "--out", "o.csv")
    assert "pipe: found no file, expected a wheel with" in cli("models", "anchor", "pipe", "--data", "d")


def test_more_values_than_memory_may_hold_are_said_before_they_are_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shortest take thirty times as much there as in a file."""
    crowd, said = "[" + "[]," * 2**21 + "[]]", "found 4,194,306 values, expected at most 4,194,304"
    folder = tmp_path / "step1-tokens1B"
    for name in ("n.ipynb", "q.jsonl", "x.zarr/zarr.json", "step1-tokens1B/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(crowd)
    (tmp_path / "notes.json").write_text(f'{{"a": {crowd}}}')
    assert results.read_json(tmp_path / "notes.json") == {}
    assert f"n.ipynb: {said}" in refused(_run, tmp_path / "n.ipynb")
    assert f"zarr.json: {said}" in refused(open_array, f"{tmp_path}/x.zarr", "--features")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").touch()
    assert f"config.json: {said}" in refused(load, Checkpoint(folder.name, 1, 1, folder))
    (tmp_path / "t.yaml").write_text(f"task: t\ndataset_path: json\n{PLACES.partition('json')[2]}")
    assert f"q.jsonl: {said}" in cli("tasks", "validate", tmp_path / "t.yaml", "--data", f"test={tmp_path}/q.jsonl")
    (tmp_path / "q.jsonl").write_text("5\n" * (2**22 + 2))
    assert f"q.jsonl: {said}" in cli("tasks", "validate", tmp_path / "t.yaml", "--data", f"test={tmp_path}/q.jsonl")
    monkeypatch.setattr("phaselab.files.MOST_CELLS", 100)
    monkeypatch.setattr("phaselab.results.MOST_CELLS", 25)
    pq.write_table(pa.table({"a": [[0.0] * 51], "b": [[0.0] * 51]}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n" * 50)
    for name in ("t.parquet", "t.csv"):
        assert "its cells: found 102 values, expected at most 100" in refused(read_table, tmp_path / name)

    monkeypatch.undo()
    monkeypatch.setattr("phaselab.results.MOST", 1000)
    for kind in (pa.string(), pa.large_string()):  # of a text that stands in many cells, once in the file
        texts = pa.array(["word " * 20] * 30, type=kind)
        pq.write_table(pa.table({"n": range(30), "label": texts}), tmp_path / "t.parquet")
        assert "its texts: found 3,000 bytes, expected at most 2,000" in refused(read_table, tmp_path / "t.parquet")


def _run(path: Path) -> None:
    runner.execute(path, path.with_suffix(".ipynb"), {})


def test_files_that_break_the_libraries_which_read_them_are_said(tmp_path: Path) -> None:
    """With errors of kinds that their documentation does not name."""
    about = {"index_columns": ["x"], "columns": [], "column_indexes": []}
    table = pa.table({"x": [1]}).replace_schema_metadata({"pandas": json.dumps(about)})
    pq.write_table(table, tmp_path / "t.parquet")
    assert refused(read_table, tmp_path / "t.parquet").startswith(f"{tmp_path}/t.parquet: found no table that can")
    head = f"{'(' * 99}\n".encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    assert "x.npy: " in refused(open_array, f"{tmp_path}/x.npy", "--features")
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / "zarr.json").write_text(json.dumps(ARRAY | {"shape": "x"}))
    assert "x.zarr: Expected an iterable of integers" in refused(open_array, f"{tmp_path}/x.zarr", "--features")


#: What Zarr says of an array.
ARRAY: dict[str, Any] = {"zarr_format": 3, "node_type": "array", "data_type": "float32", "fill_value": 0.0}
ARRAY |= {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [9, 2]}}, "attributes": {}}
ARRAY |= {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}}
ARRAY |= {"shape": [9, 2], "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}


def test_numbers_of_many_digits_are_none(tmp_path: Path) -> None:
    """Python refuses to read and write those of more than 4,300."""
    many = "9" * 5000
    (tmp_path / "step1-tokens1B").mkdir()
    (tmp_path / "checkpoints.csv").write_text(f"revision,tokens\nstep1-tokens1B,{many}\n")
    said = refused(local_checkpoints, tmp_path)
    assert "checkpoints.csv: step1-tokens1B: tokens: found '999" in said
    assert said.endswith("9 ..., expected a whole number or nothing")
    for choice in (f"log:{many}", f"every:{many}", f"all@{many}T-"):
        assert "expected 'all', 'log:N'" in refused(choose, [Checkpoint("step1", 1, 1, None)], choice)
    assert (read_name(f"step{many}", ["step{step}"]), read_amount("9" * 18 + "T")) == (None, None)
    (tmp_path / "s.yaml").write_text(f"name: s\nmodels: 0x{'f' * 5000}\n")
    assert "models: found an integer of 20000 bits" in cli("status", tmp_path / "s.yaml")
    assert shown([2**99, 16**5000]) == f"[{2**99}, an integer of 20001 bits]"


def test_what_would_steer_a_terminal_is_shown(tmp_path: Path) -> None:
    assert escape("[red]\x1b[31m\x07 a\nb\t\u202e \udcff \xe9\u96ea") == (
        r"\[red]\x1b[31m\x07 a" "\nb\t" r"\u202e \udcff " "\xe9\u96ea"
    )
    assert "\x1b" not in cli("models", "show", "\x1b[31m")
    for name in ("\x1b[31m", "step1-tokens1B"):
        (tmp_path / "m" / name).mkdir(parents=True)
    said = cli("new", tmp_path / "s.yaml", "--model", tmp_path / "m")
    assert f"note: {tmp_path}/m: left out \\x1b[31m: not named as checkpoints are on a hub\n" in said


# --- Weights and arrays ----------------------------------------------------------------------------


def test_files_that_are_half_there_or_stand_for_others_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "step1-tokens1B"
    folder.mkdir()
    whole = ["config.json", "tokenizer.json", "model.safetensors.index.json"]
    parts = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for names, said in (
        ([*whole, *parts[:2]], "model.safetensors.index.json, tokenizer.json; 2 of 3 parts of the weights, expected"),
        ([*whole[:2], *parts], "all parts of them with their index"),
        ([*whole[:2], "optimizer.bin", "optimizer.pt"], "optimizer.pt, tokenizer.json, expected config.json"),
    ):
        assert said in refused(needed, names, folder)
    assert needed([*whole, *parts], folder)[-3:] == parts
    assert needed([*whole, *parts[:2], "pytorch_model.bin", "optimizer.bin"], folder)[-1] == "pytorch_model.bin"
    checkpoint = Checkpoint(folder.name, 1, 10**9, folder)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(POINTER)
    assert "model.safetensors: found a pointer of Git LFS" in refused(load, checkpoint)
    save_file({"a": torch.zeros(99)}, folder / "model.safetensors")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    said = refused(load, checkpoint)
    assert said.startswith(str(folder / "model.safetensors"))
    assert "expected a whole file: download or copy it again" in said


@pytest.mark.parametrize("ending", ["h5", "hdf5", "hdf", "hf5"])
def test_arrays_have_all_the_endings_of_brain_data(tmp_path: Path, ending: str) -> None:
    with h5py.File(tmp_path / f"s.{ending}", "w") as file:
        file["bold"] = np.ones((4, 3))
    assert open_array(f"sub={tmp_path}/s.{ending}:bold", "responses").shape == (4, 3)
    (tmp_path / f"p.{ending}").write_bytes(POINTER)
    assert "found a pointer of Git LFS" in refused(open_array, f"{tmp_path}/p.{ending}", "responses")


# --- Two writers, and one that is killed -----------------------------------------------------------


def _writes_tables(folder: Path, said: Any) -> None:
    frame, wrong = pd.DataFrame({"a": np.arange(2000)}), ""
    for _ in range(60):
        try:
            write_table(frame, folder / "t.parquet")
            with write_folder(folder / "unit", {"i": 1}) as aside:
                (aside / "x").write_text("x" * 1000)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
    said.put(wrong)


def _two_writers(folder: Path, looked: Any) -> list[str]:
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    writers = [context.Process(target=_writes_tables, args=(folder, said)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        looked()
    return [said.get() for _ in writers]


def test_two_writers_and_a_reader_never_meet(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"a": np.arange(2000)}), tmp_path / "t.parquet")
    with write_folder(tmp_path / "unit", {"i": 1}) as aside:
        (aside / "x").write_text("x" * 1000)
    exchanged = results._exchanged(tmp_path / "unit", tmp_path / "unit")

    def looked() -> None:
        assert len(read_table(tmp_path / "t.parquet")) == 2000
        assert results.check(tmp_path / "unit", {"i": 1}).kind in (
            ("current",) if exchanged else ("current", "missing")
        )

    assert _two_writers(tmp_path, looked) == ["", ""]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.parquet", "unit"]


def test_two_writers_where_folders_cannot_be_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_exchanged", lambda one, other: False)
    assert _two_writers(tmp_path, lambda: time.sleep(0.01)) == ["", ""]
    assert results.check(tmp_path / "unit", {"i": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.parquet", "unit"]


@pytest.mark.parametrize("how", ["killed", "no space", "no space, no exchange"])
def test_between_two_renames_the_old_or_the_new_folder_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with write_folder(tmp_path / "unit", {"v": 1}) as aside:
        (aside / "x").write_text("old")
    if "no exchange" in how:
        monkeypatch.setattr(results, "_exchanged", lambda one, other: False)
    if (child := os.fork()) == 0:
        calls, replace = [], os.replace

        def second_fails(one: Any, other: Any) -> None:
            calls.append(one)
            if len(calls) == 2:
                if how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC, "No space left on device")
            replace(one, other)

        os.replace = second_fails
        try:
            with write_folder(tmp_path / "unit", {"v": 2}) as aside:
                (aside / "x").write_text("new")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    states = [bool(results.check(tmp_path / "unit", {"v": v})) for v in (1, 2)]
    assert states.count(True) == 1, states
    assert states[0] == ("no exchange" in how)


def test_a_file_that_fails_leaves_the_old_one_and_nothing_beside_it(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "t.csv")
    with pytest.raises(RuntimeError), write_file(tmp_path / "t.csv") as aside:
        aside.write_text("half")
        raise RuntimeError
    assert (tmp_path / "t.csv").read_text() == "a\n1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    assert oct((tmp_path / "t.csv").stat().st_mode)[-3:] != "600"


def test_a_study_that_is_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="expected a YAML file or one of"):
        load_study(tmp_path)
