"""Where results lie, how they are written, and what counts as up to date.

A unit of work writes one folder: data files and ``manifest.json``, which names the inputs and the digest of each
output. It is made aside and renamed when it is whole, so a half-written one never exists. It is up to date when its
manifest names the wanted inputs and every output has its digest; one that was damaged since is found and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from phaselab.errors import PhaselabError, expect

#: Columns of the one tidy table, every measure of every perspective at every checkpoint, and their types.
CURVE_TYPES = {
    "study": "str",
    "model": "str",
    "checkpoint": "str",
    "step": "int64",
    "tokens": "int64",
    "perspective": "str",
    "measure": "str",
    "task": "str",
    "layer": "int64",
    "subject": "str",
    "roi": "str",
    "value": "float64",
    "stderr": "float64",
}
CURVE_COLUMNS = tuple(CURVE_TYPES)
#: What stands where a column does not apply.
ABSENT: dict[str, Any] = {"task": "", "subject": "", "roi": "", "layer": -1, "stderr": float("nan")}

MANIFEST = "manifest.json"
#: Seconds after which a half-written folder is taken for abandoned: no unit takes two days.
LEFT_ALONE = 2 * 24 * 3600


class DataMissing(PhaselabError, FileNotFoundError):
    """Data that are not there; the message says what to fetch and where to put it."""


def curve_table(rows: Iterable[Mapping[Any, Any]], **constant: Any) -> pd.DataFrame:
    """Rows of the curves table with all its columns and types; `constant` and ``ABSENT`` are of columns they lack."""
    frame = pd.DataFrame(list(rows))
    frame = frame.assign(**{name: value for name, value in {**ABSENT, **constant}.items() if name not in frame})
    wrong = sorted(set(map(str, frame)) ^ set(CURVE_COLUMNS))
    found = f"unknown or missing columns {', '.join(wrong)}"
    expect(frame.empty or not wrong, "curves table", found, ", ".join(CURVE_COLUMNS))
    return frame.reindex(columns=list(CURVE_COLUMNS)).astype(CURVE_TYPES)


def _files(path: Path) -> dict[str, Path]:
    """Relative name -> path of all files in a folder, in order; of a file that one."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {file.relative_to(path).as_posix(): file for file in files}


def digest_file(path: Path) -> str:
    """SHA-256 of a file, or of a folder: the relative names and the bytes of all files in it."""
    sha = hashlib.sha256()
    for name, file in _files(path).items():
        sha.update(f"{name}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                sha.update(chunk)
    return sha.hexdigest()


def digest_code(*names: str) -> str:
    """Digest of modules or sub-packages of phaselab, with their data in YAML; recorded beside results."""
    here, sha = Path(__file__).parent, hashlib.sha256()
    files = {p for name in names for p in [*here.glob(f"{name}.py"), *(here / name).rglob("*")]}
    for file in sorted(p for p in files if p.suffix in (".py", ".yaml")):
        sha.update(file.relative_to(here).as_posix().encode() + b"\0" + file.read_bytes())
    return sha.hexdigest()[:16]


@dataclass(frozen=True)
class State:
    """What a folder of results is worth; of a stale one `why` has the inputs that changed, with old and new values."""

    kind: Literal["current", "missing", "stale", "damaged"]
    why: str = ""

    def __bool__(self) -> bool:
        return self.kind == "current"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of results, or an empty one when there is none that can be read."""
    return read_json(folder / MANIFEST)


def check(folder: Path, inputs: dict[str, Any], digest: Callable[[Path], str] = digest_file) -> State:
    """Whether `folder` holds the results of `inputs`, whole and undamaged.

    `digest` is how outputs are looked at: ``stamped_digest`` for weights, which are read once alone.
    """
    if not folder.exists():
        return State("missing", f"{folder}: not there")
    manifest = read_manifest(folder)
    if not manifest:
        return State("damaged", f"{folder / MANIFEST}: no manifest that can be read")
    found = manifest.get("inputs", {})
    changed = sorted(k for k in {*found, *inputs} if found.get(k) != inputs.get(k))
    if changed:
        told = "; ".join(f"{k} ({_shown(found.get(k))} -> {_shown(inputs.get(k))})" for k in changed)
        return State("stale", told)
    for name, wanted in manifest.get("outputs", {}).items():
        path = folder / name
        if not path.exists() or digest(path) != wanted:
            return State("damaged", f"{path}: missing, or its digest is not the one in {MANIFEST}")
    return State("current")


def _shown(value: Any) -> str:
    """A value of an input in a sentence: none, a number, or the beginning of what is long."""
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


def folders(root: Path) -> list[Path]:
    """All whole folders of results below `root`, in order; none that a killed process left half-written."""
    found = (path.parent for path in root.rglob(MANIFEST))
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(root).parts))


@contextmanager
def write_folder(folder: Path, inputs: dict[str, Any], **notes: Any) -> Iterator[Path]:
    """Write a folder of results whole or not at all.

    Yields a folder beside the final place; when the block ends, the manifest is added, everything is flushed to disk
    and the folder renamed over what was there. After an exception or a kill the final place is as it was before.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):
        # Left by a process that was killed; a younger one may be at work in its own.
        if time.time() - left.stat().st_mtime > LEFT_ALONE:
            shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        yield aside
        outputs = {p.name: digest_file(p) for p in sorted(aside.iterdir())}
        manifest = {"inputs": inputs, "outputs": outputs, **notes}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        aside.chmod(0o755)
        _flush(aside)
        old = aside.with_suffix(".old")
        if folder.exists():
            # A rename cannot replace a folder with files in it, so the old one steps aside first.
            os.replace(folder, old)
        os.replace(aside, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: yields a path beside it, which is renamed when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    yield aside
    os.replace(aside, path)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, or CSV by the name's ending; whole or not at all."""
    with write_file(path) as aside:
        frame.to_csv(aside, index=False) if path.suffix == ".csv" else frame.to_parquet(aside, index=False)


def write_json(value: Mapping[str, Any], path: Path) -> None:
    """Write a small file of notes, whole or not at all."""
    with write_file(path) as aside:
        aside.write_text(json.dumps(value), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A small file of notes; empty when there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def stamped_digest(path: Path, stamps: Path) -> str:
    """``digest_file(path)``, which is read again only when a file's size or time of change is another.

    What was read is noted in the folder `stamps`, one small file for each path; where it cannot be written, the next
    call reads again.
    """
    path = path.absolute()
    stamp = stamps / f"{hashlib.sha256(str(path).encode()).hexdigest()}.json"
    now, known = _sizes_and_times(path), read_json(stamp)
    if known.get("files") == now:
        return str(known["digest"])
    digest = digest_file(path)
    if _sizes_and_times(path) == now:  # else it was written to while it was read
        with suppress(OSError):
            write_json({"path": str(path), "digest": digest, "files": now}, stamp)
    return digest


def _sizes_and_times(path: Path) -> dict[str, list[int]]:
    status = {name: file.stat() for name, file in _files(path).items()}
    return {name: [s.st_size, s.st_mtime_ns] for name, s in status.items()}


@dataclass(frozen=True)
class Store:
    """The folders of results below one root: ``<root>/<study>/<model>/<checkpoint>/<stage>/``."""

    root: Path

    def study(self, study: str) -> Path:
        """The folder of a study."""
        return self.root / study

    def stage(self, study: str, model: str, checkpoint: str | None, stage: str) -> Path:
        """Results of a stage; of a whole model for no checkpoint (no revision begins with an underscore)."""
        return self.root / study / model / ("_model" if checkpoint is None else checkpoint) / stage

    def curves(self, study: str) -> Path:
        """The curves table of a study."""
        return self.root / study / "curves.parquet"

    def trained(self, model: str, digest: str) -> Path:
        """A model trained here; studies that train the same model share it."""
        return self.root / "trained" / f"{model}-{digest[:8]}"

    @property
    def stamps(self) -> Path:
        """Digests of large files, by path, size and time: they are read once (``stamped_digest``)."""
        return self.root / ".stamps"


def amount(count: float, letters: str = "kMBT") -> str:
    """A number in plain words: 0, 850, 1.2 k, 34 M, 2.1 B, 1.4 T; of bytes with ``kMGT`` and a B after it."""
    for power in range(len(letters), 0, -1):
        if count >= 1000**power:
            return f"{count / 1000**power:.3g} {letters[power - 1]}"
    return f"{count:.3g}"


def read_table(path: Path, *needed: str, **how: Any) -> pd.DataFrame:
    """A table of .csv, .tsv or .parquet that has the columns `needed`; `how` goes to the reader of pandas."""
    kind = path.suffix.lower()
    try:
        if kind not in (".csv", ".tsv", ".parquet"):
            raise ValueError("it ends in none of .csv, .tsv, .parquet")
        how |= {"sep": "\t"} if kind == ".tsv" else {}
        table = pd.read_parquet(path, **how) if kind == ".parquet" else pd.read_csv(path, **how)
    except (OSError, ValueError) as error:
        raise PhaselabError(f"{path}: found no table that can be read ({error})") from error
    expect({*needed} <= {*table}, str(path), f"columns {', '.join(map(str, table))}", ", ".join(needed))
    return table
