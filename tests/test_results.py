"""Results on disk: whole or not at all, and damage is found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from phaselab import results
from phaselab.results import check, curve_table, digest_file, write_folder

INPUTS = {"study": "abc", "brain": "def"}


def fill(folder: Path, text: str = "x") -> None:
    (folder / "a.txt").write_text(text)
    (folder / "deep.zarr").mkdir()
    (folder / "deep.zarr" / "b").write_text(text)


def test_written_is_current(tmp_path: Path) -> None:
    with write_folder(tmp_path / "u", INPUTS) as aside:
        fill(aside)
    assert check(tmp_path / "u", INPUTS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["u"]


def test_absent_is_missing(tmp_path: Path) -> None:
    assert check(tmp_path / "u", INPUTS).kind == "missing"


def test_other_inputs_are_stale_and_named(tmp_path: Path) -> None:
    with write_folder(tmp_path / "u", INPUTS) as aside:
        fill(aside)
    state = check(tmp_path / "u", {**INPUTS, "brain": "other"})
    assert state.kind == "stale"
    assert state.why == "brain (def -> other)"


@pytest.mark.parametrize("name", ["a.txt", "deep.zarr/b"])
@pytest.mark.parametrize("how", ["changed", "removed"])
def test_damage_is_found_and_named(tmp_path: Path, name: str, how: str) -> None:
    with write_folder(tmp_path / "u", INPUTS) as aside:
        fill(aside)
    path = tmp_path / "u" / name
    path.write_text("y") if how == "changed" else path.unlink()
    state = check(tmp_path / "u", INPUTS)
    assert state.kind == "damaged"
    assert name.split("/")[0] in state.why


def test_damaged_manifest_is_found(tmp_path: Path) -> None:
    with write_folder(tmp_path / "u", INPUTS) as aside:
        fill(aside)
    (tmp_path / "u" / results.MANIFEST).write_text("{")
    assert check(tmp_path / "u", INPUTS).kind == "damaged"


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    with write_folder(tmp_path / "u", INPUTS) as aside:
        fill(aside)
    with pytest.raises(RuntimeError), write_folder(tmp_path / "u", {"study": "new"}) as aside:
        fill(aside, "new")
        raise RuntimeError
    assert check(tmp_path / "u", INPUTS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["u"]


def test_replaced_whole(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with write_folder(tmp_path / "u", {"study": text}) as aside:
            fill(aside, text)
    assert check(tmp_path / "u", {"study": "new"})
    assert (tmp_path / "u" / "a.txt").read_text() == "new"


def test_killed_leaves_nothing_in_the_final_place(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from phaselab.results import write_folder\n"
        "with write_folder(Path(sys.argv[1]), {}) as aside:\n"
        "    (aside / 'half').write_text('x'); print('ready', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "u")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.1)
    assert not (tmp_path / "u").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are read from /proc")
def test_content_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    true = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (flushed.append(Path(os.readlink(f"/proc/self/fd/{handle}"))), true(handle))
    )
    with write_folder(tmp_path / "u", INPUTS) as aside:
        fill(aside)
    assert {path.name for path in flushed} == {"a.txt", "deep.zarr", "b", results.MANIFEST, aside.name}
    flushed.clear()
    with results.write_file(tmp_path / "t") as beside:
        beside.write_text("x")
    assert flushed == [beside]


def test_digest_of_a_folder_follows_names_and_bytes(tmp_path: Path) -> None:
    fill(tmp_path)
    before = digest_file(tmp_path)
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    assert digest_file(tmp_path) != before


def test_curve_table_has_all_columns_and_types() -> None:
    rows = [{"measure": "r", "value": np.float32(0.5), "layer": 2}]
    constant = {
        "study": "s",
        "model": "m",
        "checkpoint": "c",
        "step": 1,
        "tokens": 2**40,
        "perspective": "brain",
    }
    table = curve_table(rows, **constant)
    assert tuple(table) == results.CURVE_COLUMNS
    assert table.tokens[0] == 2**40
    assert table.roi[0] == ""
    assert np.isnan(table.stderr[0])


def test_curve_table_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="unknown or missing columns .*vlaue"):
        curve_table([{"vlaue": 1.0}])


def test_empty_curve_table() -> None:
    assert tuple(curve_table([])) == results.CURVE_COLUMNS


def test_a_stamped_digest_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, stamps, read = tmp_path / "folder", tmp_path / "stamps", []
    folder.mkdir()
    fill(folder)

    def counted(path: Path) -> str:
        read.append(path)
        return digest_file(path)

    monkeypatch.setattr(results, "digest_file", counted)

    def stamped(path: Path) -> tuple[str, int]:
        before = len(read)
        return results.stamped_digest(path, stamps), len(read) - before

    for path in (folder, folder / "a.txt"):
        assert stamped(path) == (digest_file(path), 1)
        assert stamped(path) == (digest_file(path), 0)
    assert len(list(stamps.iterdir())) == 2
    # A file changed (of the same size), added or removed; a stamp that is damaged, and one that cannot be written.
    (folder / "a.txt").write_text("y")
    os.utime(folder / "a.txt", ns=(1, 1))
    assert [stamped(path) for path in (folder, folder / "a.txt")] == [
        (digest_file(path), 1) for path in (folder, folder / "a.txt")
    ]
    (folder / "c").write_text("")
    assert stamped(folder) == (digest_file(folder), 1)
    (folder / "c").unlink()
    assert stamped(folder) == (digest_file(folder), 1)
    for stamp in stamps.iterdir():
        stamp.write_text("{")
    assert [stamped(folder)[1], stamped(folder)[1]] == [1, 0]
    assert results.stamped_digest(folder, folder / "a.txt" / "stamps") == digest_file(folder)


def test_what_is_written_to_while_it_is_read_is_not_stamped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")

    def slow(path: Path) -> str:
        found = digest_file(path)
        path.write_text("longer")
        return found

    monkeypatch.setattr(results, "digest_file", slow)
    results.stamped_digest(path, tmp_path / "stamps")
    monkeypatch.undo()
    assert results.stamped_digest(path, tmp_path / "stamps") == digest_file(path)


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0"), (850, "850"), (1200, "1.2 k"), (34e6, "34 M"), (2_100_000_000, "2.1 B"), (1.4e12, "1.4 T")],
)
def test_amounts_are_plain_words(count: float, said: str) -> None:
    assert results.amount(count) == said
    assert results.amount(29e9, "kMGT") == "29 G"
