"""Checkpoints on a hub: which revisions there are, downloading one, and removing it again.

huggingface_hub does the work, and its variables (``HF_ENDPOINT``, ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_TOKEN``,
``HF_HUB_OFFLINE``) mean what they mean there. This module adds what a sweep over tens of revisions of 29 GB needs: an
exact commit, no file that is not asked for, free disk checked before, digests checked after, removal that takes
nothing from another process, and errors in one sentence.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub as hf  # what is taken from it is imported when it is first used
from filelock import ReadWriteLock, Timeout
from huggingface_hub import constants, errors
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]
from huggingface_hub.utils import logging as log
from huggingface_hub.utils.sha import git_hash, sha_fileobj
from huggingface_hub.utils.tqdm import tqdm

from phaselab.checkpoints.names import Checkpoint, CheckpointError, NotPublicError, needed
from phaselab.errors import expect
from phaselab.results import amount, read_json, write_json

_ABANDONED = 3600  # seconds after which what a killed download has left in the cache is taken for abandoned
_ATTEMPTS = 3  # at a download, where the network fails; whole files are not fetched again


@contextmanager
def _in_one_sentence(what: object) -> Iterator[None]:
    """Tell what a hub, the network or the disk does wrong as a CheckpointError about `what`, and log nothing of it."""
    said = log.get_verbosity()
    log.set_verbosity(logging.ERROR)
    try:
        yield
    except (OSError, RuntimeError, HTTPError, errors.XetDownloadError) as error:  # RuntimeError: what hf_xet raises
        kind = NotPublicError if isinstance(error, errors.RepositoryNotFoundError) else CheckpointError
        raise kind(f"{what}: {_why(error)}") from error
    finally:
        log.set_verbosity(said)


def _why(error: Exception) -> str:
    hub, cache, line = constants.ENDPOINT, constants.HF_HUB_CACHE, (str(error) or type(error).__name__).splitlines()[0]
    reached = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{hub} cannot be reached"
    absent = f"not in the cache {cache}, whole, and {reached}"
    if getattr(error, "errno", None) == errno.ENOSPC:
        return f"the disk of {cache} is full; whole files are kept, free some space and run again"
    sentences = {
        errors.GatedRepoError: f"the repository is gated; ask for access on its page at {hub} and set HF_TOKEN",
        errors.RepositoryNotFoundError: f"there is no such repository at {hub}, or it is not public",
        errors.RevisionNotFoundError: f"no such revision at {hub}; 'phaselab models refresh' lists those there are",
        errors.HfHubHTTPError: f"{hub} answered: {line}",
        errors.LocalEntryNotFoundError: absent,
        errors.OfflineModeIsEnabled: absent,
        HTTPError: f"{hub} cannot be reached: {line}",
        OSError: line,
    }
    return next((text for kind, text in sentences.items() if isinstance(error, kind)), f"the download failed: {line}")


def revisions(repository: str) -> dict[str, str]:
    """Name -> commit of all branches and tags of a repository; a NotPublicError when it is not there, or gated."""
    if constants.is_offline_mode():
        raise CheckpointError(f"{repository}: its revisions cannot be listed while HF_HUB_OFFLINE is set")
    with _in_one_sentence(repository):
        refs = hf.HfApi().list_repo_refs(repository)
    return {ref.name: ref.target_commit for ref in [*refs.tags, *refs.branches]}


def known_commit(repository: str, revision: str) -> str:
    """The commit that the cache has for a revision, without a network; empty when it has none."""
    with suppress(errors.RevisionResolutionError):
        return hf.HfApi().resolve_revision(repository, revision=revision, local_files_only=True).resolved
    return ""


def fetch(checkpoint: Checkpoint, code: bool = False, say: Callable[[str], None] | None = None) -> Path:
    """Download what is missing of a checkpoint, check its digests, and give its folder in the cache.

    A dropped connection is taken up where it broke; a process that was killed goes on with the files that it has not
    finished. Nothing that has been checked before is downloaded or checked again. `code`: also the repository's own
    modules. `say` receives a line when a download begins. A CheckpointError when it is not there or not accessible, the
    network or the disk fails, or a file's digest is not the hub's: such a file is deleted.
    """
    snapshot = _folder(checkpoint.repository) / "snapshots" / checkpoint.commit
    with _in_one_sentence(checkpoint), _locked(checkpoint.repository) as lock:
        sizes = _sizes(checkpoint, snapshot)
        names = needed(sizes, checkpoint, code)
        missing = sum(sizes[name] for name in names if not (snapshot / name).exists())
        if missing and not constants.is_offline_mode():
            _require_room(checkpoint, missing)
            if say:
                say(f"{checkpoint}: downloading {amount(missing, 'kMGT')}B")
        _download(checkpoint, names)
        _verify(checkpoint, snapshot, names, noted=lock is not None)
    return snapshot


def _sizes(checkpoint: Checkpoint, snapshot: Path) -> dict[str, int]:
    """Name -> bytes of the files of a commit, from the cache where it has the listing, else from the hub."""
    of, commit = checkpoint.repository, checkpoint.commit
    with suppress(errors.CachedRepoTreeNotFoundError):
        return {file.path: file.size for file in hf.get_cached_repo_tree(of, revision=commit)}
    if not constants.is_offline_mode():
        tree = hf.HfApi().list_repo_tree(of, recursive=True, revision=commit)
        return {file.path: file.size for file in tree if isinstance(file, hf.RepoFile)}
    # Downloaded by another program, which has left no listing: what is there is all there is.
    if not snapshot.is_dir():
        raise errors.LocalEntryNotFoundError(f"{snapshot}: no such folder")
    return {p.relative_to(snapshot).as_posix(): p.stat().st_size for p in snapshot.rglob("*") if p.is_file()}


def _require_room(checkpoint: Checkpoint, size: int) -> None:
    cache = Path(constants.HF_HUB_CACHE).absolute()
    for left in _folder(checkpoint.repository).glob("blobs/*.incomplete"):
        # Each download has a file of its own there, which a killed process leaves behind for ever.
        if time.time() - left.stat().st_mtime > _ABANDONED:
            left.unlink(missing_ok=True)
    free = shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.is_dir())).free
    found, ways = f"{amount(free, 'kMGT')}B free in {cache}", "name another disk with HF_HOME, or --keep-downloads no"
    expected = f"{amount(size, 'kMGT')}B for the download; free some, {ways} to remove each checkpoint after use"
    expect(free >= size, str(checkpoint), found, expected, CheckpointError)


def _download(checkpoint: Checkpoint, names: list[str]) -> None:
    bars: Any = partial(tqdm, disable=True)  # they would cross the progress of a sweep
    of, commit = checkpoint.repository, checkpoint.commit
    for left in reversed(range(_ATTEMPTS)):
        try:
            hf.snapshot_download(of, revision=commit, allow_patterns=names, tqdm_class=bars)
            return
        except HTTPError as error:
            # A connection that was reset is not taken up by huggingface_hub itself.
            if isinstance(error, errors.HfHubHTTPError) or not left:
                raise


def _verify(checkpoint: Checkpoint, snapshot: Path, names: list[str], noted: bool) -> None:
    """Delete what has not the digest that the hub states; what has is (if `noted`) not read again until it changes."""
    marker = _marker(checkpoint)
    before = read_json(marker)
    status = {name: (snapshot / name).stat() for name in names}
    now = {name: [s.st_size, s.st_mtime_ns] for name, s in status.items()}
    for name in _damaged(checkpoint, snapshot, [name for name in names if before.get(name) != now[name]]):
        path = snapshot / name
        # A link leads to a blob, which may itself be a link, into the store that repositories share.
        for bad in (path.resolve(), path.parent / os.readlink(path) if path.is_symlink() else path, path):
            bad.unlink(missing_ok=True)
        why = "its digest is not the one that the hub states; the file was deleted, run again to download it again"
        raise CheckpointError(f"{checkpoint}: {name}: {why}")
    if noted and now != before:
        write_json(now, marker)


def _damaged(checkpoint: Checkpoint, snapshot: Path, names: list[str]) -> list[str]:
    """Which of these files have another digest than the hub states: SHA-256 of large ones, git's own of others."""
    if not all((snapshot / name).is_symlink() for name in names):
        # A cache of copies, as on Windows: the hub is asked for its digests.
        found = hf.HfApi().verify_repo_checksums(checkpoint.repository, revision=checkpoint.commit)
        return [wrong["path"] for wrong in found.mismatches if wrong["path"] in names]
    # A link leads to a blob whose name is its digest: no network is needed.
    stated = {name: Path(os.readlink(snapshot / name)).name for name in names}
    return [name for name, digest in stated.items() if _digest(snapshot / name, len(digest)) != digest]


def _digest(path: Path, length: int) -> str:
    with path.open("rb") as stream:
        return sha_fileobj(stream).hex() if length == 64 else git_hash(stream.read())


@contextmanager
def present(
    checkpoint: Checkpoint,
    keep: Callable[[], bool] = lambda: True,
    code: bool = False,
    say: Callable[[str], None] | None = None,
) -> Iterator[Checkpoint]:
    """The checkpoint with its folder, downloaded when it is not there; for the time of a ``with`` block.

    When `keep`, asked at the end of the block, says no, the revision is removed from the cache, unless another
    process is still in such a block of its own: then that one decides. A checkpoint in a local folder is given as it
    is and never removed.
    """
    if checkpoint.path is not None:
        yield checkpoint
        return
    of = checkpoint.repository
    with _locked(of, checkpoint.commit) as lock:
        path = fetch(checkpoint, code, say)
        try:
            yield replace(checkpoint, path=path)
        finally:
            if lock and not keep():
                lock.release()
                with suppress(Timeout), lock.write_lock(timeout=1), _in_one_sentence(checkpoint), _locked(of):
                    # Files that other revisions share with it stay.
                    hf.scan_cache_dir(constants.HF_HUB_CACHE).delete_revisions(checkpoint.commit).execute()
                    _marker(checkpoint).unlink(missing_ok=True)


def _folder(repository: str, below: str = "") -> Path:
    return Path(constants.HF_HUB_CACHE, below, f"models--{repository.replace('/', '--')}")


def _marker(checkpoint: Checkpoint) -> Path:
    return _folder(checkpoint.repository, ".locks") / "phaselab" / f"{checkpoint.commit}.checked.json"


@contextmanager
def _locked(repository: str, commit: str = "") -> Iterator[ReadWriteLock | None]:
    """Lock between processes: of a repository for one at a time, of a commit for all who use it; None if read-only."""
    path = _folder(repository, ".locks") / "phaselab" / f"{commit or 'repository'}.lock"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        yield None  # a cache that a whole cluster reads: nothing in it changes
        return
    try:
        lock = ReadWriteLock(path, is_singleton=False)
        (lock.acquire_read if commit else lock.acquire_write)()
    except (OSError, sqlite3.Error) as error:
        raise CheckpointError(f"{path}: cannot be locked: {error}") from error
    try:
        yield lock
    finally:
        lock.close()
