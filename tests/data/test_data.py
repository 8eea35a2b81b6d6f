"""``phaselab data``: registries against the manifests, and downloads from a server that behaves badly."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shlex
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from data import files_server
from phaselab.brains import base, films
from phaselab.cli import app
from phaselab.data import SETS, DataSet, File, data_missing
from phaselab.data import download as downloads
from phaselab.data.download import Place, Refused, fetch
from phaselab.errors import PhaselabError
from phaselab.results import DataMissing

CONTENT = np.random.default_rng(0).bytes(1_000_000)
HALF = 600_000


def digest(content: bytes, kind: str = "sha256") -> str:
    if kind == "git":
        return "git:" + hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return f"{kind}:{hashlib.new(kind, content).hexdigest()}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(downloads, "WAIT", 0.01)
    monkeypatch.setattr(downloads, "CHUNK", 10_000)
    with files_server.serving() as of:
        yield of


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, SETS["ds005531"])


def served(
    server: Any, name: str = "a/b.mat", content: bytes = CONTENT, kind: str = "sha256", sized: bool = True
) -> File:
    server.files[f"/{name}"] = content
    return File(name, len(content) if sized else None, digest(content, kind), f"{server.url}/{name}?versionId=v.1")


def bring(files: list[File], place: Place, source: Path | None = None) -> int:
    """Fetch; the sum of what the progress was told."""
    told: list[int] = []
    fetch(files, place, source, told.append, lambda _: None)
    return sum(told)


def left(place: Place) -> list[Path]:
    return [p for p in place.data.rglob("*") if p.is_file() and ".stamps" not in p.parts and p.name != "lock"]


@pytest.mark.parametrize("kind", ["sha256", "md5", "git"])
def test_a_cut_download_goes_on_where_it_was(server: Any, place: Place, kind: str) -> None:
    file = served(server, kind=kind)
    server.cut["/a/b.mat"] = [HALF]
    assert bring([file], place) == len(CONTENT)
    assert place.path(file).read_bytes() == CONTENT
    (first, second) = server.requests
    assert first == ("/a/b.mat?versionId=v.1", "")
    start = int(second[1].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= HALF
    assert left(place) == [place.path(file)]
    (usual := place.data / "usual").touch()
    assert place.path(file).stat().st_mode == usual.stat().st_mode


def test_the_next_call_goes_on_where_one_gave_up(server: Any, place: Place) -> None:
    file = served(server)
    server.cut["/a/b.mat"] = [HALF, *[0] * downloads.TRIES]
    with pytest.raises(PhaselabError, match=r"a/b\.mat; what has come of it is kept, and the same command goes on"):
        bring([file], place)
    assert len(server.requests) == downloads.TRIES + 1
    assert not place.path(file).exists()
    server.cut.clear()
    bring([file], place)
    assert server.requests[-1][1].startswith("bytes=")
    assert place.path(file).read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["sha256", "md5", "git"])
def test_a_flipped_byte_is_refused_and_others_come(
    server: Any, place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "AT_ONCE", 1)  # the other one has its turn afterwards
    file, other = served(server, kind=kind), served(server, "c.mat", b"other")
    server.files["/a/b.mat"] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(Refused, match=r"a/b\.mat.*its digest is not the published one, what came was deleted"):
        bring([file, other], place)
    assert left(place) == [place.path(other)]
    server.files["/a/b.mat"] = CONTENT
    bring([file, other], place)
    assert place.state(file) == "here"


def test_a_server_without_ranges_begins_anew(server: Any, place: Place) -> None:
    file = served(server)
    server.ranges, server.cut["/a/b.mat"] = False, [HALF]
    assert bring([file], place) == len(CONTENT)
    assert [bool(asked) for _, asked in server.requests] == [False, True]
    assert place.path(file).read_bytes() == CONTENT


def part_of(place: Place, file: File, content: bytes) -> None:
    place.parts.mkdir(parents=True)
    place.part(file).write_bytes(content)


@pytest.mark.parametrize("sized", [True, False])
def test_a_part_that_the_server_has_no_more_of_is_dropped(server: Any, place: Place, sized: bool) -> None:
    part_of(place, file := served(server, sized=sized), b"x" * (len(CONTENT) + 1))
    assert bring([file], place) == len(CONTENT)
    assert [bool(asked) for _, asked in server.requests] == [True, False]
    assert place.path(file).read_bytes() == CONTENT


@pytest.mark.parametrize("size", [HALF, 2 * len(CONTENT)])
def test_a_server_with_a_longer_or_shorter_file_is_refused(server: Any, place: Place, size: int) -> None:
    file = replace(served(server), bytes=size, digest=digest(b"another one"))
    with pytest.raises(Refused, match="its digest is not the published one"):
        bring([file], place)
    assert not left(place)
    assert len(server.requests) == 1


def test_errors_of_a_server(server: Any, place: Place) -> None:
    file = served(server)
    server.statuses["/a/b.mat"] = [503, 429]
    bring([file], place)
    gone = replace(file, path="gone", url=f"{server.url}/gone")
    with pytest.raises(Refused, match=r"/gone: 404"):
        bring([gone], place)
    assert len(server.requests) == 4


def test_a_second_call_makes_no_request_and_reads_nothing(
    server: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = served(server)
    bring([file], place)
    monkeypatch.setattr(downloads, "digest_of", lambda *_: pytest.fail("read again"))
    assert place.state(file) == "here"
    bring([file], place)
    assert len(server.requests) == 1


def test_a_changed_file_is_wrong_and_replaced(server: Any, place: Place) -> None:
    for file in (served(server), served(server, "g.gz", kind="git")):
        bring([file], place)
        path = place.path(file)
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        path.write_bytes(b"x" * len(CONTENT))
        os.utime(path, ns=times)
        assert place.state(file, again=True) == "wrong"
        os.utime(path)
        assert place.state(file) == "wrong"
        bring([file], place)
        assert path.read_bytes() == CONTENT


def test_too_little_disk_is_said_before_the_first_byte(
    server: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = served(server)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage(0, 0, 500_000))
    with pytest.raises(PhaselabError, match=r"ds005531: found 500 kB free, expected 1 MB: free some, or choose less"):
        bring([file], place)
    assert not server.requests
    place.part(file).write_bytes(CONTENT[:HALF])
    bring([file], place)  # what has come needs no room


def test_what_one_process_brings_another_one_takes(server: Any, place: Place) -> None:
    """Two processes at once: the second one says that it waits, and asks the server for nothing."""
    file, server.gate = served(server), threading.Event()
    code = (
        "import sys; from pathlib import Path; from phaselab.data import SETS, File\n"
        "from phaselab.data.download import Place, fetch\n"
        f"fetch([{file!r}], Place(Path({str(place.data)!r}), SETS['ds005531']), None, int, print)"
    )
    first = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not server.requests:
            assert first.poll() is None
        said: list[str] = []
        threading.Timer(0.5, server.gate.set).start()
        fetch([file], place, None, lambda _: None, said.append)
    finally:
        assert first.wait(30) == 0
    assert "waiting for another process" in said[0]
    assert len(server.requests) == 1
    assert place.path(file).read_bytes() == CONTENT


def test_an_interrupted_call_keeps_what_has_come(server: Any, place: Place) -> None:
    file, told = served(server), []

    def moved(count: int) -> None:
        told.append(count)
        if len(told) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([file], place, None, moved, lambda _: None)
    assert 0 < place.part(file).stat().st_size < len(CONTENT)
    (place.parts / "tmp12345").write_bytes(b"of a process that was killed")
    bring([file], place)
    assert place.path(file).read_bytes() == CONTENT
    assert left(place) == [place.path(file)]


def test_copies_from_a_folder_are_checked_and_nothing_is_asked(server: Any, place: Place, tmp_path: Path) -> None:
    file, source = served(server), tmp_path / "usb"
    with pytest.raises(DataMissing, match=r"usb: found no a/b\.mat, expected it there or in .*ds005531"):
        bring([file], place, source)
    (source / "ds005531" / "a").mkdir(parents=True)
    copy = source / "ds005531" / "a" / "b.mat"
    copy.write_bytes(b"wrong")
    with pytest.raises(PhaselabError, match="digest"):
        bring([file], place, source)
    copy.write_bytes(CONTENT)
    place.part(file).write_bytes(CONTENT[:12_345])
    assert bring([file], place, source) == len(CONTENT)
    assert place.path(file).read_bytes() == CONTENT
    assert copy.exists()
    assert not server.requests


def manifest(data: Path, name: str) -> list[dict[str, str]]:
    with (data / "manifests" / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "source"), [("ds005531", "ds005531"), ("ds003020", "ds003020"), ("little-prince", "ds003643")]
)
def test_registries_are_the_manifests(data: Path, name: str, source: str) -> None:
    known = {row["path"]: row for row in manifest(data, f"{source}.csv")}
    files = [file for file in SETS[name].files() if not file.digest.startswith("git:")]
    assert files
    for file in files:
        row, base = known[file.path], f"https://s3.amazonaws.com/openneuro.org/{source}/{file.path}"
        version = f"?versionId={row['s3_version']}" if row["s3_version"] else ""
        assert file == File(file.path, int(row["bytes"]), f"{row['hash']}:{row['digest']}", base + version)


@pytest.mark.data
def test_files_of_git_have_their_blob_ids(data: Path) -> None:
    known = {row["path"]: row["git_blob"] for row in manifest(data, "little_prince.csv")}
    found = {
        f.path: f.digest.removeprefix("git:") for f in SETS["little-prince"].files() if f.digest.startswith("git:")
    }
    assert len(found) == 40
    assert found.items() <= known.items()
    for name in ("alice2016", "books"):
        place = Place(data, SETS[name])
        assert {place.state(file, again=True) for file in place.of.files()[::20]} == {"here"}


@pytest.mark.data
def test_a_choice_is_exactly_the_rows_of_the_manifest(data: Path) -> None:
    rows = {row["path"]: int(row["bytes"]) for row in manifest(data, "ds005531.csv")}
    wanted = {
        path
        for path in rows
        if ("sub-S01_task-suits" in path and "preprocessed" in path)
        or ("suits" in path and "speechTranscription_EN" in path)
        or path == "derivatives/preprocessed_data/sub-S01/vset_100.mat"
        or any(path.endswith(f"sub-S01_froi_{roi}.mat") for roi in ("Language", "ToM", "Auditory"))
    }
    chosen = SETS["ds005531"].select({"subjects": "S01", "titles": "suits", "annotation": "speech_en"})
    assert {file.path for file in chosen} == wanted
    assert len(wanted) == 3 + 3 + 1 + 3
    assert round(sum(file.bytes or 0 for file in chosen) / 1e9, 2) == 1.79
    everything = SETS["ds005531"].select({"subjects": "all", "titles": "all", "annotation": "all"})
    assert sum("task-" in file.path for file in everything) == 6 * 43
    stories = SETS["ds003020"].select({"subjects": "UTS04, UTS03", "stories": "life,sloth"})
    assert sorted(file.path.removeprefix("derivative/") for file in stories) == [
        "TextGrids/life.TextGrid",
        "TextGrids/sloth.TextGrid",
        "preprocessed_data/UTS03/life.hf5",  # UTS04 has none
        "preprocessed_data/UTS03/sloth.hf5",
        "preprocessed_data/UTS04/sloth.hf5",
    ]
    average = {file.path for file in SETS["little-prince"].select({"languages": "en", "subjects": "average"})}
    runs = {f"lpp_en_average_subject/average_subject_run-{run}.gz" for run in range(9)}
    others = {"annotation/EN/lppEN_word_information.csv", "mask_lpp_en.nii.gz", "isc_10trials_en.gz"}
    assert runs | others == {path for path in average if not path.startswith("roi_masks/")}
    assert len(SETS["little-prince"].select({"languages": "fr", "subjects": "all"})) == 28 * 9 + 9 + 3 + 7
    (of_pereira,) = SETS["brainscore"].select({"benchmarks": "Pereira2018"})
    bucket = "https://brainscore-storage.s3.amazonaws.com/brainscore-language"
    assert of_pereira.url == f"{bucket}/assy_Pereira2018_language.nc"
    assert of_pereira.digest == "sha1:f8434b4022f5b2c862f0ff2854d5b3f5f2a7fb96"


def cli(*words: object) -> Any:
    return CliRunner().invoke(app, ["data", *map(str, words)], env={"COLUMNS": "200", "PHASELAB_DATA": ""})


@pytest.mark.parametrize(
    ("words", "found", "expected"),
    [
        (
            ["ds5531"],
            "data set: found 'ds5531'",
            "one of ds005531, ds003020, little-prince, brainscore, alice2016, books",
        ),
        (["ds005531"], "--subjects: found nothing", "phaselab data get ds005531 --subjects S01 --titles suits"),
        (
            ["ds005531", "--subjects", "S1"],
            "--subjects: found 'S1'",
            "some of S01, S02, S03, S04, S05, S06 with commas",
        ),
        (["ds005531", "--subjects", "S01", "--titles", "suit"], "--titles: found 'suit'", "some of bigbangtheory, "),
        (["ds003020", "--titles", "suits"], "--titles: found 'suits'", "none: ds003020 has --subjects, --stories"),
        (
            ["alice2016", "--subjects", "s18"],
            "--subjects: found 's18'",
            "none: alice2016 has no choice: it is taken whole",
        ),
        (["ds003020", "--subjects", "UTS04", "--stories", "life"], "--subjects: found UTS04, without a file", "others"),
        (["alice2016"], "--data: found neither it nor PHASELAB_DATA", "the folder in which the sets lie"),
    ],
)
def test_wrong_words_are_told_in_one_sentence(words: list[str], found: str, expected: str) -> None:
    result = cli("get", *words)
    assert result.exit_code == 2
    assert found in result.output
    assert expected in result.output
    assert result.output.count("\n") == 1


@pytest.fixture
def small(server: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, bytes]]:
    """Serve every file of a set as a small one under its own address."""

    def serve(name: str) -> dict[str, bytes]:
        of, contents = SETS[name], {}
        table = of.table.copy()
        for row, path in enumerate(table["path"]):
            contents[path] = path.encode()
            server.files[f"/{path}"] = contents[path]
            kind = table.at[row, "digest"].partition(":")[0]
            table.loc[row, ["bytes", "digest"]] = [str(len(path)), digest(contents[path], kind)]
        urls = {kind: f"{server.url}/{{path}}?versionId={{version}}" for kind in ("sha256", "md5", "sha1", "git")}
        fake = DataSet(**{**{k: getattr(of, k) for k in of.__dataclass_fields__}, "urls": urls})
        fake.__dict__["table"] = table
        monkeypatch.setitem(SETS, name, fake)
        return contents

    return serve


def test_the_command_line_brings_a_choice(server: Any, small: Any, tmp_path: Path) -> None:
    contents = small("ds005531")
    words = ["ds005531", "--subjects", "S01", "--titles", "suits", "--annotation", "speech_en", "--data", tmp_path]
    dry = cli("get", *words, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert dry.output.count("missing: ") == 10
    assert "still to come" in dry.output
    assert "free in" in dry.output
    assert not server.requests
    done = cli("get", *words)
    assert done.exit_code == 0, done.output
    assert "please cite Yamaguchi" in done.output
    here = {
        p.relative_to(tmp_path / "ds005531").as_posix(): p for p in (tmp_path / "ds005531").rglob("*") if p.is_file()
    }
    assert len(here) == 10
    assert all(path.read_bytes() == contents[name] for name, path in here.items())
    versions = {path.partition("?")[2] for path, _ in server.requests}
    assert all(version.startswith("versionId=") and len(version) == 42 for version in versions)
    assert "to bring 0 files" in cli("get", *words).output
    assert len(server.requests) == 10
    assert "here 10 files" in cli("verify", "--data", tmp_path).output
    (path := next(iter(here.values()))).write_bytes(b"y")
    wrong = cli("verify", "--data", tmp_path)
    assert wrong.exit_code == 2
    assert str(path) in wrong.output
    assert "10 files" in cli("list", "--data", tmp_path).output


def test_what_was_dropped_when_it_was_copied_is_not_brought_again(server: Any, small: Any, tmp_path: Path) -> None:
    small("ds005531")
    words = ["ds005531", "--subjects", "S01", "--titles", "suits", "--annotation", "speech_en", "--data", tmp_path]
    assert cli("get", *words).exit_code == 0
    reader, asked = films.Films(films.FilmsSpec(), tmp_path), len(server.requests)
    key, original = reader.key("S01", "suits_run-02"), reader.path("response", "S01", "suits_run-02")
    (copy := base.copy_of(key, key.read_text())).touch()
    assert "copies" not in cli("get", *words).output  # the original is still there
    original.unlink()
    known = key.read_text()
    key.write_text("x")  # of which nobody knows what it is a copy of
    assert "to bring 1 file " in cli("get", *words, "--dry-run").output
    key.write_text(known)
    assert f"a copy: {original}" in cli("get", *words, "--dry-run").output
    again = cli("get", *words).output
    assert "to bring 0 files" in again
    assert f"as copies alone, in {tmp_path / 'cache' / 'ds005531'}: 1 file (" in again
    assert re.search(r"as copies *│ 1 file \(", cli("list", "--data", tmp_path).output)
    (tmp_path / "ds005531/derivatives/preprocessed_data/sub-S01/vset_100.mat").unlink()  # it comes without the response
    assert "to bring 1 file (" in cli("get", *words).output
    assert (len(server.requests) - asked, original.exists()) == (1, False)
    copy.unlink()
    assert cli("get", *words).exit_code == 0
    assert original.exists()


def test_the_list_names_all_and_needs_no_folder() -> None:
    result = cli("list")
    assert result.exit_code == 0
    for word in (*SETS, "CC BY 4.0", "137 GB", "1.79 GB", "--from FOLDER", "no PHASELAB_DATA", "speech_en --data DATA"):
        assert word in result.output, word


@pytest.mark.parametrize("name", [name for name, of in SETS.items() if of.urls])
def test_the_command_of_each_smallest_part_is_one(name: str, tmp_path: Path) -> None:
    words = shlex.split(SETS[name].command(tmp_path))[3:]
    result = cli("get", *words, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "to bring" in result.output
    # Where a size is not stated, what is to come is not told as nothing.
    unknown = any(file.bytes is None for file in SETS[name].select(SETS[name].smallest))
    assert ("; at least " in result.output) == unknown


def test_missing_data_print_the_command_that_works(small: Any, tmp_path: Path) -> None:
    small("alice2016")
    folder = tmp_path / "my data"
    message = str(data_missing("x: not there", "alice2016", folder))
    assert message.startswith(f"x: not there; type: phaselab data get alice2016 --data '{folder}'")
    assert cli("get", "alice2016", "--data", folder).exit_code == 0
    chosen = {"subjects": "S02", "titles": "glee", "annotation": "story"}
    assert "get ds005531 --subjects S02 --titles glee --annotation story --data DATA" in str(
        data_missing("x", "ds005531", None, chosen)
    )
    books = cli("get", "books", "--data", folder)
    assert books.exit_code == 2
    assert "no public address" in books.output
    assert "phaselab data get books --from FOLDER --data" in books.output
