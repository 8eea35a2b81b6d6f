"""Where results lie, how they are written whole, with a manifest of inputs and digests, and what is up to date."""

import ctypes
import errno
import hashlib
import io
import json
import os
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from filelock import SoftFileLease, Timeout

from phaselab.errors import PhaselabError, expect, shown
from phaselab.files import MOST, MOST_CELLS, home, parse_json, read_bytes, read_text, refuse_crowd

#: Columns of a table that is text, at most.
WIDEST = 10_000
#: Columns of the one tidy table, every measure of every perspective at every checkpoint, and their types.
CURVE_COLUMNS: tuple[str, ...] = ("study", "model", "checkpoint", "step", "tokens", "perspective", "measure")
CURVE_COLUMNS += ("task", "layer", "subject", "roi", "value", "stderr")
CURVE_TYPES = dict.fromkeys(CURVE_COLUMNS, "str") | dict.fromkeys(("step", "tokens", "layer"), "int64")
CURVE_TYPES |= dict.fromkeys(("value", "stderr"), "float64")
#: What stands where a column does not apply.
ABSENT: dict[str, Any] = {"task": "", "subject": "", "roi": "", "layer": -1, "stderr": float("nan")}
MANIFEST = "manifest.json"
#: Types of what manifests say beside inputs and outputs, and in ``made_by``, where others reckon with it.
_NOTES: dict[str, Any] = {"made_by": dict, "checkpoint": dict, "step": int}
_MADE_BY: dict[str, Any] = {"seconds": (int, float), "memory": (int, float), "device": str, "code": str}
#: What is being written has a name beside its own, with its machine and process; of other machines nobody knows whether
#: that one still runs: it is taken for abandoned after so many seconds (no unit takes two days).
_SPACE = os.readlink("/proc/self/ns/pid") if sys.platform == "linux" else ""  # numbers of processes are of a container
_HOST = hashlib.sha256(f"{socket.gethostname()} {_SPACE}".encode()).hexdigest()[:8]
_ASIDE, ABANDONED = re.compile(r"\.(?P<name>.+)~(?P<host>\w{8})-(?P<pid>\d+)-\w{8}(?P<old>\.old)?"), 2 * 24 * 3600
#: Seconds after which a claim that is not renewed is no longer one: its process was stopped, or its machine is gone.
LEASE = 120.0
#: Seconds after which a claim without a name is nobody's.
NAMELESS = 10.0
#: Endings of tables, and what separates the columns of those that are text.
TABLES = {".csv": ",", ".tsv": "\t", ".parquet": ""}


class DataMissing(PhaselabError, FileNotFoundError):
    """Data that are not there; the message says what to fetch and where to put it."""

    needs: tuple[str, Mapping[str, str]] | None = None  # set and choice of ``phaselab data``


def curve_table(rows: Iterable[Mapping[Any, Any]], **constant: Any) -> pd.DataFrame:
    """Rows of the curves table with all its columns and types; `constant` and ``ABSENT`` are of columns they lack."""
    frame = pd.DataFrame(list(rows))
    frame = frame.assign(**{name: value for name, value in (ABSENT | constant).items() if name not in frame})
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
            hashlib.file_digest(stream, lambda: sha)
    return sha.hexdigest()


def digest_code(*names: str) -> str:
    """Digest of modules or sub-packages of phaselab, with their data in YAML; recorded beside results."""
    here, sha = Path(__file__).parent, hashlib.sha256()
    files = {p for name in names for p in [*here.glob(f"{name}.py"), *(here / name).rglob("*")]}
    own = (p for p in files if "_book" not in p.relative_to(here).parts)  # which is data: sources of pages
    for file in sorted(p for p in own if p.suffix in (".py", ".yaml")):
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
    """The manifest of a folder of results; empty when there is none that can be read."""
    return read_json(folder / MANIFEST)


def check(folder: Path, inputs: dict[str, Any], digest: Callable[[Path], str] = digest_file) -> State:
    """Whether `folder` holds the results of `inputs`, undamaged; `digest`: ``stamped_digest`` for large outputs."""
    if not folder.exists():
        clear(folder.parent)  # which gives it back if its writer was killed between two renames
    if not folder.exists():
        return State("missing", f"{folder}: not there")
    manifest = read_manifest(folder)
    outputs, found = (value if isinstance(value := manifest.get(k), dict) else {} for k in ("outputs", "inputs"))
    plain = all(isinstance(wanted, str) and Path(name).name == name for name, wanted in outputs.items())
    typed = ((manifest, _NOTES), (by if isinstance(by := manifest.get("made_by"), dict) else {}, _MADE_BY))
    plain &= all(isinstance(of[name], kinds[name]) for of, kinds in typed for name in {*of} & {*kinds})
    if not (outputs and plain):
        return State("damaged", f"{folder / MANIFEST}: no manifest that can be read, one of no files, or changed")
    if changed := sorted(k for k in {*found, *inputs} if found.get(k) != inputs.get(k)):
        why = (f"{k} ({shown(found.get(k), 24)} -> {shown(inputs.get(k), 24)})" for k in changed)
        return State("stale", "; ".join(why))
    for name, wanted in outputs.items():
        path = folder / name
        if not path.exists() or digest(path) != wanted:
            if read_manifest(folder).get("outputs") != outputs:  # another process has put a new folder there
                return check(folder, inputs, digest)
            return State("damaged", f"{path}: missing, or its digest is not the one in {MANIFEST}")
    return State("current")


def folders(root: Path) -> list[Path]:
    """All whole folders of results below `root`, in order; none that a killed process left half-written."""
    found = (path.parent for path in root.rglob(MANIFEST))
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(root).parts))


@contextmanager
def write_folder(folder: Path, inputs: dict[str, Any], **notes: Any) -> Iterator[Path]:
    """Write a folder of results whole or not at all: yields one beside it, which takes its place at the end."""
    with beside(folder) as aside:
        aside.mkdir()
        yield aside
        outputs = {p.name: digest_file(p) for p in sorted(aside.iterdir())}
        (aside / MANIFEST).write_bytes(as_json({"inputs": inputs, "outputs": outputs, **notes}))
        _flush(aside)
        _put(aside, folder)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name beside `path`, and nothing of it left at the end; a full disk is told as by `full_disk_told`."""
    aside = try_beside(path)
    try:
        with full_disk_told(path, aside):
            yield aside
    finally:
        remove(aside)


@contextmanager
def full_disk_told(path: Path, aside: Path) -> Iterator[None]:
    """An error of a full disk becomes a PhaselabError that names `path` and how much `aside` already holds."""
    try:
        yield
    except Exception as error:
        free = shutil.disk_usage(next(parent for parent in path.parents if parent.exists())).free
        # Of several libraries the error has no number, or does not tell why.
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)
        if not full and free >= 2**16:
            raise
        size, files = 0, (Path(root, name) for root, _, names in os.walk(aside) for name in names)
        for file in (aside, *files):  # which may go meanwhile: threads of Zarr end after its error
            with suppress(OSError):
                size += file.stat().st_size * file.is_file()
        right = f"more than {amount(size, 'kMGT')}B, which were written when it was full: free some, or write elsewhere"
        raise PhaselabError(f"{path}: found {amount(free, 'kMGT')}B free on its disk, expected {right}") from error


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one and it can be."""
    with suppress(OSError):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink()


def clear(*folders: Path, named: str = "*") -> None:
    """Remove what killed processes have left half-written in these folders, and give back what had stepped aside."""
    for left in (path for folder in folders for path in sorted(folder.glob(f".{named}"))):
        if (match := _ASIDE.fullmatch(left.name)) and not _at_work(left):
            with suppress(OSError):
                if match["old"] and not (folder := left.with_name(match["name"])).exists():
                    os.replace(left, folder)
            remove(left)
        elif left.suffix == ".claim":
            with suppress(OSError, Timeout, PhaselabError), _Claim(left, lease_duration=LEASE, timeout=0):
                pass  # what was nobody's claim goes with the end of ours
        elif (of := re.match(r".+\.claim(?=\.(break|restore)\.)", left.name)) and not left.with_name(of[0]).exists():
            remove(left)  # by one that was killed while it took a claim over


def writing(path: Path) -> bool:
    """Whether a process is writing what is to have this path."""
    return any(map(_at_work, path.parent.glob(f".{path.name}~*")))


def _at_work(aside: Path) -> bool:
    """Whether the process that a name of ``try_beside`` is of may still write it."""
    try:
        if (match := _ASIDE.fullmatch(aside.name)) and match["host"] == _HOST:
            os.kill(int(match["pid"]), 0)
        return time.time() - aside.stat().st_mtime < ABANDONED
    except OSError as error:  # no such process, no such file
        return isinstance(error, PermissionError)


class _Claim(SoftFileLease):
    def acquire(self, *how: Any, **options: Any) -> Any:
        """As a SoftFileLease; also where a claim names nobody, whom that waits for without end."""
        marker = Path(self.lock_file)
        with full_disk_told(marker, marker):
            _drop_nameless(marker)
            return super().acquire(*how, cancel_check=lambda: _drop_nameless(marker), **options)


def _drop_nameless(marker: Path) -> bool:
    # Its process was killed between making it and writing its name into it, which takes no second.
    with suppress(OSError):
        if not (of := marker.stat()).st_size and abs(time.time() - of.st_mtime) > NAMELESS:
            marker.unlink()
    return False  # it is waited on


def claim(folder: Path) -> SoftFileLease:
    """A context in which this is the only process, on all machines, that makes what lies in `folder`; waits for others.

    A file beside it names machine, process and the time when that began. Claims of the dead, and those that are not
    renewed for ``LEASE`` seconds, are taken over.
    """
    return _Claim(try_beside(folder).with_name(f".{folder.name}.claim"), lease_duration=LEASE, poll_interval=0.2)


def _flush(folder: Path) -> None:
    """Have a folder, or a file, on the disk: else a machine that stops may keep the new name without its content."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _put(aside: Path, folder: Path) -> None:
    """Give a folder the place of another one, if there is one; of several writers the last one wins."""
    old = aside.with_name(f"{aside.name}.old")
    while not _exchanged(aside, folder):
        # Nothing is there, or the file system cannot do it: a rename replaces no folder with files in it, so the old
        # one steps aside first (`clear` gives it back after a kill). Where another process is faster, once more.
        remove(old)
        with suppress(FileNotFoundError):
            os.replace(folder, old)
        try:
            os.replace(aside, folder)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                with suppress(OSError):
                    os.replace(old, folder)
                raise
    remove(old)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, so that at no moment there is none; whether this system can, and both exist."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: yields a path beside it, renamed at the end; PhaselabError if it cannot be."""
    path = home(path)
    expect(not path.is_dir(), str(path), "a folder", "the name of a file")
    with beside(path) as aside:
        yield aside
        _flush(aside)
        os.replace(aside, path)


def try_beside(path: Path) -> Path:
    """A name beside `path`; a PhaselabError where nothing can be written there."""
    aside = path.with_name(f".{path.name}~{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with full_disk_told(path, aside):
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.touch()
            aside.unlink()
    except OSError as error:
        raise PhaselabError(f"{path}: cannot be written: {error.strerror}") from error
    return aside


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, or text by the name's ending (``TABLES``); whole or not at all."""
    kind = path.suffix.lower()
    expect(kind in TABLES, str(path), f"the ending {kind!r}", f"one of {', '.join(TABLES)}")
    write: Any = frame.to_parquet if kind == ".parquet" else partial(frame.to_csv, sep=TABLES[kind])
    with write_file(path) as aside:
        write(aside, index=False)


def as_json(value: Any) -> bytes:
    """The content of a small file of notes; of a mapping also a digest of all it says, which `read_json` heeds."""
    text = json.dumps(value, sort_keys=True)
    if isinstance(value, dict):
        value = json.loads(text) | {"sealed": hashlib.sha256(text.encode()).hexdigest()}
    return f"{json.dumps(value, indent=1)}\n".encode()


def write_json(value: object, path: Path) -> None:
    """Write a small file of notes, whole or not at all."""
    with write_file(path) as aside:
        aside.write_bytes(as_json(value))


def read_json(path: Path) -> dict[str, Any]:
    """A small file of notes; empty when there is none that can be read, or it was changed."""
    try:
        value = parse_json(read_text(path), path)
    except (OSError, ValueError):
        return {}
    sealed = value.pop("sealed", None) if isinstance(value, dict) else None
    same = sealed in (None, hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest())
    return value if isinstance(value, dict) and same else {}


def seal(path: Path, made: object) -> dict[str, Any]:
    """Write the digest of a file, and what it was `made` from, into a hidden file beside it; without that read it.

    Empty when there is none, or the file is not as it was written.
    """
    seal = path.with_name(f".{path.name}.json")
    if made:
        write_json({"made": made, "digest": digest_file(path)}, seal)
    found = read_json(seal)
    return found if path.is_file() and found.get("digest") == digest_file(path) else {}


def stamped_digest(path: Path, stamps: Path, digest: Callable[[Path], str] | None = None) -> str:
    """``digest_file(path)`` (or `digest`), read anew only when a file's size or time changes; kept in `stamps`."""
    path = path.absolute()
    stamp = stamps / f"{hashlib.sha256(str(path).encode()).hexdigest()}.json"
    now, known = _sizes_and_times(path), read_json(stamp)
    if known.get("files") == now and isinstance(known.get("digest"), str):
        return str(known["digest"])
    found = (digest or digest_file)(path)
    if _sizes_and_times(path) == now:  # else it was written to while it was read
        with suppress(OSError, PhaselabError):
            write_json({"path": str(path), "digest": found, "files": now}, stamp)
    return found


def _sizes_and_times(path: Path) -> dict[str, list[int]]:
    return {name: [(of := file.stat()).st_size, of.st_mtime_ns] for name, file in _files(path).items()}


@dataclass(frozen=True)
class Store:
    """The folders of results below one root: ``<root>/<study>/<model>/<checkpoint>/<stage>/``."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", home(self.root))

    def study(self, study: str) -> Path:
        """The folder of a study."""
        return self.root / study

    def curves(self, study: str) -> Path:
        """The curves table of a study."""
        return self.root / study / "curves.parquet"

    @property
    def stamps(self) -> Path:
        """Where ``stamped_digest`` keeps digests of large files."""
        return self.root / ".stamps"


def amount(count: float, letters: str = "kMBT") -> str:
    """A number in plain words: 0, 850, 1.2 k, 34 M, 2.1 B, 1.4 T; of bytes with ``kMGT`` and a B after it."""
    for power in range(len(letters), 0, -1):
        if count >= 1000**power:
            return f"{count / 1000**power:.3g} {letters[power - 1]}"
    return f"{count:.3g}"


def read_table(path: Path, *needed: str) -> pd.DataFrame:
    """A table of .csv, .tsv or .parquet that has the columns `needed`.

    Cells of text files are text, without spaces around it: labels such as 001, 0.10, NA and None are those very labels;
    `numbers` makes numbers of a column. Columns are separated by what the first line has most of: , ; or tabs.
    """
    kind, path = path.suffix.lower(), home(path)
    right = f"one of {', '.join(TABLES)}"
    expect(kind in TABLES, str(path), f"no table that can be read (it ends in {kind!r})", right)
    content = read_bytes(path) if kind == ".parquet" else read_text(path)
    with _none_told(path):
        if isinstance(content, bytes):
            _of_parquet(content)
            table = pd.read_parquet(io.BytesIO(content))
        else:
            table = _of_text(content, TABLES[kind])
    _refuse_columns(path, [*table], needed)
    return table


@contextmanager
def _none_told(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of pandas or pyarrow
        raise PhaselabError(f"{path}: found no table that can be read ({' '.join(str(error).split())})") from error


def _refuse_columns(path: Path, names: Sequence[Any], needed: Iterable[str]) -> None:
    found = f"columns {', '.join(map(str, names))}"
    expect(len({*names}) == len(names), str(path), found, "distinct names")
    expect({*needed} <= {*names}, str(path), found, ", ".join(needed))


def read_curves(files: Iterable[Path]) -> pd.DataFrame:
    """Rows of the curves table that stages have written to `files` (Parquet), file by file."""
    import pyarrow as pa

    kinds = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
    columns = [pa.field(name, kinds[kind], nullable=kind == "float64") for name, kind in CURVE_TYPES.items()]
    schema, tables = pa.schema(columns), []
    for path in files:
        content = read_bytes(path)
        with _none_told(path):
            table = _of_parquet(content)
        _refuse_columns(path, table.column_names, schema.names)
        with _none_told(path):
            tables.append(table.select(schema.names).cast(schema))
    # One conversion of all: pandas takes as long for each table as Arrow for ten.
    frame: pd.DataFrame = pa.concat_tables([schema.empty_table(), *tables]).to_pandas()
    return frame.astype(CURVE_TYPES)


def _of_parquet(content: bytes) -> Any:
    """A table as Arrow has it, where a text that stands in many cells is kept once, as it is in the file."""
    from pyarrow import compute, parquet

    file = parquet.ParquetFile(io.BytesIO(content))
    groups = [file.metadata.row_group(number).to_dict()["columns"] for number in range(file.num_row_groups)]
    n = sum(column["num_values"] for columns in groups for column in columns)  # of lists what is in them
    expect(n <= 4 * MOST_CELLS, "its cells", f"{n:,} values", f"at most {4 * MOST_CELLS:,}")
    texts = [of.name for of in file.schema_arrow if str(of.type) in ("string", "large_string", "binary")]
    table = parquet.ParquetFile(io.BytesIO(content), metadata=file.metadata, read_dictionary=texts).read()
    for column in map(table.column, texts):
        lengths = (compute.take(compute.binary_length(of.dictionary), of.indices) for of in column.chunks)
        n = sum(compute.sum(length).as_py() or 0 for length in lengths)
        expect(n <= 2 * MOST, "its texts", f"{n:,} bytes", f"at most {2 * MOST:,}")
    return table


def _of_text(text: str, usual: str) -> pd.DataFrame:
    first = re.sub('"[^"]*"', "", text.lstrip("\n").partition("\n")[0])
    how: dict[str, Any] = {"sep": max(usual, ",", ";", "\t", key=first.count), "skipinitialspace": True}
    expect((n := 1 + first.count(how["sep"])) <= WIDEST, "its first line", f"{n:,} columns", f"at most {WIDEST:,}")
    refuse_crowd(text, "its cells", marks=how["sep"] + "\n")
    # Its first line is read as cells too: pandas takes an index from lines that are longer than their header.
    cells = pd.read_csv(io.BytesIO(text.encode()), header=None, dtype="str", keep_default_na=False, **how)
    cells = cells.apply(lambda column: column.str.strip())
    # A column without a name is the index that pandas writes, or what a spreadsheet leaves at the end of each line.
    named: pd.DataFrame = cells.loc[:, cells.iloc[0] != ""]
    return named[1:].set_axis([*named.iloc[0]], axis="columns").reset_index(drop=True)


def numbers(column: "pd.Series[Any]", where: str) -> np.ndarray:
    """The numbers of a column, float64 (n,), NaN for an empty cell; a PhaselabError names the row of one that is none.

    What could be read in two ways is none: 1,000 (the comma of thousands, or of decimals), 45.2%, 1M, step1000.
    """
    if not pd.api.types.is_numeric_dtype(column):
        column = column.astype("str").str.strip()
        column = column.mask(column.str.lower().isin(["", "na", "n/a", "nan", "none", "null"]))
    values = pd.to_numeric(column, errors="coerce")
    right = "a number written out, as 1000 for 1,000 or step1000, 1000000 for 1M, 0.452 for 45.2% or 0,452; or nothing"
    for row in np.flatnonzero(values.isna() & column.notna()):
        expect(False, where, f"{column.iloc[row]!r} in row {row + 1}", right)
    return values.to_numpy(dtype=float, na_value=np.nan)
