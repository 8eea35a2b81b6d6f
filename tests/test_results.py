"""Results on disk: whole or not at all, and damage is found."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from phaselab import results
from phaselab.errors import PhaselabError
from phaselab.results import MANIFEST, check, claim, clear, curve_table, digest_file, write_folder, writing

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


@pytest.mark.parametrize("outputs", [{}, [], "a.txt", None, 3, {"../a": "0"}, {"a.txt": 3}, {"/etc/hostname": "0"}])
def test_a_manifest_of_odd_outputs_is_damaged(tmp_path: Path, outputs: object) -> None:
    with write_folder(tmp_path / "u", INPUTS) as aside:
        fill(aside)
    (tmp_path / "u" / MANIFEST).write_text(json.dumps({"inputs": INPUTS, "outputs": outputs}))
    assert check(tmp_path / "u", INPUTS).kind == "damaged"


@pytest.mark.parametrize("odd", [{"made_by": 5}, {"made_by": {"seconds": "1e400"}}, {"step": "x"}, {"checkpoint": 1}])
def test_a_manifest_of_odd_notes_is_damaged(tmp_path: Path, odd: dict[str, object]) -> None:
    for notes in ({"made_by": {"seconds": 1.5, "device": "cpu"}, "step": 1}, odd):
        with write_folder(tmp_path / "u", INPUTS, **notes) as aside:
            fill(aside)
        assert check(tmp_path / "u", INPUTS).kind == ("damaged" if notes == odd else "current")


def test_whatever_a_manifest_says_is_under_its_digest(tmp_path: Path) -> None:
    with write_folder(tmp_path / "u", INPUTS, seconds=12.5) as aside:
        fill(aside)
    manifest = tmp_path / "u" / MANIFEST
    whole = manifest.read_text()
    for before, after in (("12.5", "12.6"), ("abc", "abd"), ('"a.txt"', '"b.txt"')):
        manifest.write_text(whole.replace(before, after))
        assert check(tmp_path / "u", INPUTS).kind == "damaged"
    # Older ones have none.
    old = {name: value for name, value in json.loads(whole).items() if name != "sealed"}
    manifest.write_text(json.dumps(old))
    assert check(tmp_path / "u", INPUTS)


def test_what_the_killed_have_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from phaselab import results\n"
        "at = Path(sys.argv[1])\n"
        "folder, file = results.write_folder(at / 'u', {}), results.write_file(at / 'f')\n"
        "with results.claim(at / 'u'), folder as aside, file as file:\n"
        "    (aside / 'half').write_text('x'); file.write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 3
    assert not writing(tmp_path / "u")
    with claim(tmp_path / "mine"), write_folder(tmp_path / "v", INPUTS) as aside:
        fill(aside)
        assert writing(tmp_path / "v")
        clear(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".mine.claim", aside.name])
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_of_another_machine_only_what_is_old_goes(tmp_path: Path) -> None:
    names = [".u~00000000-1-aaaaaaaa", ".u~00000000-1-bbbbbbbb"]
    for name in names:
        (tmp_path / name).mkdir()
    os.utime(tmp_path / names[1], (1, time.time() - results.ABANDONED - 9))
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == names[:1]


def test_killed_between_two_renames_gives_the_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system cannot exchange two folders in one step."""
    with write_folder(tmp_path / "u", INPUTS) as aside:
        fill(aside)
    program = (
        "import os, signal, sys; from pathlib import Path; from phaselab import results\n"
        "results._exchanged = lambda one, other: False\n"
        "true, seen = os.replace, []\n"
        "def replace(*paths):\n"
        "    seen.append(paths); len(seen) == 2 and os.kill(os.getpid(), signal.SIGKILL); true(*paths)\n"
        "os.replace = replace\n"
        "with results.write_folder(Path(sys.argv[1]), {'study': 'new'}) as aside: (aside / 'a').write_text('x')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "u")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "u").exists()
    assert check(tmp_path / "u", INPUTS)
    assert [path.name for path in tmp_path.iterdir()] == ["u"]
    # And without a kill it is replaced as well.
    monkeypatch.setattr(results, "_exchanged", lambda one, other: False)
    with write_folder(tmp_path / "u", {"study": "new"}) as aside:
        fill(aside)
    assert check(tmp_path / "u", {"study": "new"})
    assert [path.name for path in tmp_path.iterdir()] == ["u"]


def test_a_claim_of_a_process_that_was_killed_before_it_wrote_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """filelock waits for those without end."""
    marker = tmp_path / ".u.claim"
    for at in (0.0, time.time() + 3600):
        marker.touch()
        os.utime(marker, (at, at))
        clear(tmp_path)
        assert not marker.exists(), at
    marker.touch()
    clear(tmp_path)
    assert marker.exists(), "its process may be about to write it"
    monkeypatch.setattr("phaselab.results.NAMELESS", 0.5)
    with claim(tmp_path / "u"):
        # What one leaves that is killed while it takes over a claim; it may be the claim of another one, which filelock
        # gives back.
        (aside := tmp_path / f".u.claim.break.{2**22 + 1}.{'0' * 32}").touch()
        clear(tmp_path)
        assert aside.exists()
    clear(tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_process_at_a_time_has_a_claim_and_that_of_a_dead_one_is_taken_over(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from phaselab.results import claim\n"
        "with claim(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "u")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"mine\n"
    told = (tmp_path / ".u.claim").read_text()
    assert f"pid={process.pid}\n" in told
    assert re.search(r"^host=.+\n(.*\n)*start=\d+", told, re.MULTILINE)
    waiting = claim(tmp_path / "u")
    with pytest.raises(TimeoutError):
        waiting.acquire(timeout=0.3)
    process.kill()
    process.wait()
    with claim(tmp_path / "u"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_with_the_path_and_what_it_must_hold(tmp_path: Path) -> None:
    said = r"u: found .*B free on its disk, expected more than 4 kB, which were written when it was full"
    with pytest.raises(PhaselabError, match=said), write_folder(tmp_path / "u", INPUTS) as aside:
        (aside / "a").write_bytes(b"x" * 4000)
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode != 0
    if sys.platform == "linux"
    else True,
    reason="a small disk needs a name space of one's own",
)
@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("with write_folder(u, {}) as aside: torch.save(torch.zeros(2**20), aside / 'state.pt')", "u"),
        ("u.with_name('else').write_bytes(bytes(2**20)); claim(u).acquire()", r"\.u\.claim"),
        ("[Path(sys.argv[1], str(n)).touch() for n in range(5)]; claim(u / 'v').acquire()", "v"),
    ],
    ids=["written", "claimed", "no folder more"],
)
def test_a_disk_that_is_really_full(tmp_path: Path, does: str, told: str) -> None:
    program = (
        "import sys, torch; from pathlib import Path; from phaselab.results import claim, write_folder\n"
        f"u = Path(sys.argv[1], 'u')\n{does}\n"
    )
    mounted = 'mount -t tmpfs -o size=1m,nr_inodes=6 none "$1" && "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", mounted, "sh", str(tmp_path), sys.executable, program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    said = rf"PhaselabError: .*/{told}: found .*B free on its disk, expected more than .*B, which were written"
    assert re.search(said, done.stderr), done.stderr


def test_a_full_disk_is_told_while_threads_of_zarr_remove_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "walk", lambda folder: [(folder, [], ["zarr.partial"])])  # which is not there any more
    with pytest.raises(PhaselabError, match="free on its disk"), write_folder(tmp_path / "u", INPUTS):
        raise OSError(errno.ENOSPC, "no space")


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
    for odd in (lambda said: [said], lambda said: {"files": said.get("files")}):
        for stamp in stamps.iterdir():
            stamp.write_text(json.dumps(odd(results.read_json(stamp))))
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
