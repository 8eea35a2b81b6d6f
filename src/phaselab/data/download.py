"""Files of a data set, brought here whole or not at all: from their addresses, or from a folder that has them.

Pooch gives a file its name when its digest is right. What is added: a cut transfer goes on where it was, in this call
or the next one; free disk is asked for first; what was checked is not read again; two processes do each other no harm.
"""

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pooch
from filelock import FileLock, Timeout

from phaselab.data.sets import DataSet, File, data_missing
from phaselab.errors import PhaselabError, expect
from phaselab.results import DataMissing, amount, stamped_digest, write_file

#: Files at once; bytes that are read at once; seconds until a connection is there, and without a byte.
AT_ONCE, CHUNK, TIMEOUT = 4, 1 << 18, (10, 30)
#: Requests in a row that bring nothing before a file is given up; seconds before the second, then twice as many.
TRIES, WAIT = 5, 1.0
#: Receives how many more bytes are here; negative when some had to be dropped.
Moved = Callable[[int], None]


class Refused(PhaselabError):
    """A file that its server does not give, or gives with another digest; others may come all the same."""


def digest_of(path: Path, kind: str) -> str:
    """The digest of a file as registries write it; `kind`: ``git``, or one that hashlib knows."""
    sha = hashlib.sha1(b"blob %d\0" % path.stat().st_size) if kind == "git" else hashlib.new(kind)
    with path.open("rb") as stream:
        return f"{kind}:{hashlib.file_digest(stream, lambda: sha).hexdigest()}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@dataclass(frozen=True)
class Place:
    """Where the files of a set lie: ``<data>/<set>/<path>``, and until they are whole in ``<data>/.partial/<set>``."""

    data: Path
    of: DataSet

    def path(self, file: File) -> Path:
        """The file's own place."""
        return self.data / self.of.name / file.path

    @property
    def parts(self) -> Path:
        """The folder of what is not whole yet; the set's own may be digested as it is."""
        return self.data / ".partial" / self.of.name

    def part(self, file: File) -> Path:
        """What has come of it, from wherever."""
        return self.parts / f"{hashlib.sha256(f'{file.path} {file.digest}'.encode()).hexdigest()}.part"

    def fits(self, file: File) -> bool:
        """Whether a file of its size is here."""
        return self.path(file).is_file() and file.bytes in (None, _size(self.path(file)))

    def state(self, file: File, again: bool = False) -> Literal["here", "missing", "wrong"]:
        """Whether a file is here with its digest; what was read once is read anew when it changes, or `again`."""
        path, digest = self.path(file), partial(digest_of, kind=file.digest.partition(":")[0])
        if not self.fits(file):
            return "wrong" if path.exists() else "missing"
        found = digest(path) if again else stamped_digest(path, self.data / ".stamps", digest)
        return "here" if found == file.digest else "wrong"

    def room(self, files: Sequence[File], must: bool = False) -> str:
        """What is still to come of files that are not here, and the free disk; if it `must` fit a PhaselabError."""
        folder = (self.data / self.of.name).absolute()
        free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.is_dir())).free
        need = sum(max(0, file.bytes - _size(self.part(file))) for file in files if file.bytes)
        told = [f"{amount(size, 'kMGT')}B" for size in (need, free)]
        expect(not must or free >= need, str(folder), f"{told[1]} free", f"{told[0]}: free some, or choose less")
        least = "at least " * any(file.bytes is None for file in files)  # what is not stated is not nothing
        return f"{least}{told[0]} still to come, {told[1]} free in {folder}"


def fetch(files: Sequence[File], place: Place, source: Path | None, moved: Moved, say: Callable[[str], None]) -> None:
    """Bring `files` that are not here, four at once, from their addresses or from the folder `source`.

    Another process that does this for the set is waited for. Refused, for files that were, when all others came.
    """
    addresses = {file: _address(file, place, source) for file in files}
    place.parts.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("WARNING")  # a line for each file would cross the progress
    lock, stop, refused = FileLock(place.parts / "lock"), threading.Event(), []

    def count(more: int) -> None:
        if stop.is_set():
            raise InterruptedError  # which nobody hears: the error that ended the others is told
        moved(more)

    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        say(f"{lock.lock_file}: waiting for another process that brings files of {place.of.name}")
        held = lock.acquire()
    with held:
        for left in place.parts.glob("tmp*"):  # by pooch, when its process was killed
            left.unlink()
        place.room([file for file in files if place.state(file) != "here"], must=True)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            works = [pool.submit(_bring, *of, place, count) for of in addresses.items()]
            try:
                for work in as_completed(works):
                    if isinstance(error := work.exception(), Refused):
                        refused.append(str(error))
                    elif error:
                        raise error
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)
    if refused:
        raise Refused(refused[0] + f" (and {len(refused) - 1} more of {len(files)} files)" * (len(refused) > 1))


def _address(file: File, place: Place, source: Path | None) -> str | Path:
    """Where a file comes from."""
    if source is None:
        if not file.url:
            raise data_missing(f"{place.path(file)}: not there", place.of.name, place.data)
        return file.url
    for path in (source / file.path, source / place.of.name / file.path):
        if path.is_file() and path.resolve() != place.path(file).resolve():
            return path
    raise DataMissing(f"{source}: found no {file.path}, expected it there or in {source / place.of.name}")


def _bring(file: File, address: str | Path, place: Place, moved: Moved) -> None:
    """Bring one file, check its digest and give it its name."""
    part, path, by_git = place.part(file), place.path(file), file.digest.startswith("git:")
    if place.state(file) == "here":
        moved(file.bytes or 0)  # another process was faster
        return

    def receive(_: str, whole: str, __: object) -> None:
        moved(_size(part))
        if isinstance(address, str):
            _download(file, address, part, moved)
        else:
            with address.open("rb") as origin:
                origin.seek(_size(part))
                _write(part, iter(lambda: origin.read(CHUNK), b""), moved)
        # Pooch does not know git's digests.
        if by_git and (found := digest_of(part, "git")) != file.digest:
            part.unlink()
            raise ValueError(f"expected {file.digest} but got {found}")
        shutil.move(part, whole)

    try:
        known = None if by_git else file.digest
        whole = pooch.retrieve(str(address), known, fname=f"{part.stem}.whole", path=part.parent, downloader=receive)
    except PhaselabError:
        raise
    except ValueError as error:
        why = f"its digest is not the published one, what came was deleted ({str(error).partition('. ')[0]})"
        raise Refused(f"{address}: {why}; expected {file.path}: the same command tries again") from error
    with write_file(path) as aside:
        shutil.move(whole, aside)
    stamped_digest(path, place.data / ".stamps", lambda _: file.digest)  # it was read just now


def _download(file: File, url: str, part: Path, moved: Moved) -> None:
    """Request what is lacking of a file until it is here; a PhaselabError when several requests bring nothing."""
    import requests  # which takes as long as pandas, and few commands need it

    tries = 0
    while (have := _size(part)) != file.bytes:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        try:
            with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
                answer.raise_for_status()
                if not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    _drop(part, moved)  # what comes is not what was asked for, but the whole file
                _write(part, answer.iter_content(CHUNK), moved)
            return
        except requests.RequestException as error:
            why, status = str(error), getattr(error.response, "status_code", 0)
            if status == requests.codes.requested_range_not_satisfiable:
                _drop(part, moved)
            elif 400 <= status < 500 and status != requests.codes.too_many_requests:
                raise Refused(f"{url}: {why}") from error
        tries = 0 if have < _size(part) else tries + 1
        kept = f"{file.path}; what has come of it is kept, and the same command goes on from there"
        expect(tries < TRIES, url, why, kept)
        time.sleep(WAIT * 2**tries / 2 if tries else 0)


def _write(part: Path, chunks: Iterable[bytes], moved: Moved) -> None:
    with part.open("ab") as stream:
        for chunk in chunks:
            stream.write(chunk)
            moved(len(chunk))


def _drop(part: Path, moved: Moved) -> None:
    moved(-_size(part))
    part.unlink(missing_ok=True)
