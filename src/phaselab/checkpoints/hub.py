"""Checkpoints on a hub: which revisions there are, downloading one, and removing it again.

huggingface_hub does the work. This adds what a sweep over tens of revisions of 29 GB needs: an exact commit, no file
that is not asked for, free disk checked before, digests checked after, removal that takes nothing from another process.
"""

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

from phaselab.checkpoints.names import Checkpoint, needed
from phaselab.errors import PhaselabError, expect
from phaselab.results import amount, read_json, write_json

Say = Callable[[str], None]
_ABANDONED = 3600  # seconds after which what a killed download has left in the cache is taken for abandoned


@contextmanager
def _in_one_sentence(what: object) -> Iterator[None]:
    """Tell what a hub, the network or the disk does wrong as a PhaselabError about `what`, and log nothing of it."""
    log.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    # RuntimeError: what hf_xet raises.
    except (OSError, RuntimeError, HTTPError, sqlite3.Error, errors.HFValidationError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise PhaselabError(f"{what} ({constants.ENDPOINT}, {constants.HF_HUB_CACHE}): {said}") from error


def revisions(repository: str) -> dict[str, str]:
    """Name -> commit of all branches and tags of a repository."""
    with _in_one_sentence(repository):
        refs = hf.HfApi().list_repo_refs(repository)
    return {ref.name: ref.target_commit for ref in [*refs.tags, *refs.branches]}


def fetch(checkpoint: Checkpoint, code: bool = False, say: Say | None = None) -> Path:
    """Download what is missing of a checkpoint, check its digests, and give its folder in the cache.

    `code`: also the repository's own modules. `say` is told when a download begins. A PhaselabError when it is not
    there or not accessible, the network or the disk fails, or a digest is not the hub's: the file is deleted.
    """
    of, commit = checkpoint.repository, checkpoint.commit
    snapshot = _folder(of) / "snapshots" / commit
    bars: Any = partial(tqdm, disable=True)  # they would cross the progress of a sweep
    with _in_one_sentence(checkpoint), _locked(of) as lock:
        files = _files(checkpoint)
        names = needed(files, checkpoint, code)
        missing = sum(files[name][0] for name in names if not (snapshot / name).exists())
        if missing and not constants.is_offline_mode():
            _require_room(checkpoint, missing)
            if say:
                say(f"{checkpoint}: downloading {amount(missing, 'kMGT')}B")
        for last in (False, False, True):
            try:
                hf.snapshot_download(of, revision=commit, allow_patterns=names, tqdm_class=bars)
                break
            except HTTPError as error:
                # A connection that was reset is not taken up by huggingface_hub itself.
                if isinstance(error, errors.HfHubHTTPError) or last:
                    raise
        _verify(checkpoint, snapshot, {name: files[name][1] for name in names}, noted=lock is not None)
    return snapshot


def _files(checkpoint: Checkpoint) -> dict[str, tuple[int, str]]:
    """Name -> bytes and digest of the files of a commit, from the cache where it has the listing, else from the hub."""
    of, commit = checkpoint.repository, checkpoint.commit
    try:
        tree: Any = hf.get_cached_repo_tree(of, revision=commit)
    except errors.CachedRepoTreeNotFoundError:
        tree = hf.HfApi().list_repo_tree(of, recursive=True, revision=commit)
    return {f.path: (f.size, f.lfs.sha256 if f.lfs else f.blob_id) for f in tree if isinstance(f, hf.RepoFile)}


def _require_room(checkpoint: Checkpoint, size: int) -> None:
    cache = Path(constants.HF_HUB_CACHE).absolute()
    for left in _folder(checkpoint.repository).glob("blobs/*.incomplete"):
        # Each download has a file of its own there, which a killed process leaves behind for ever.
        if time.time() - left.stat().st_mtime > _ABANDONED:
            left.unlink(missing_ok=True)
    free = shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.is_dir())).free
    found, ways = f"{amount(free, 'kMGT')}B free in {cache}", "name another disk with HF_HOME, or --keep-downloads no"
    expected = f"{amount(size, 'kMGT')}B for the download; free some, {ways} to remove each checkpoint after use"
    expect(free >= size, str(checkpoint), found, expected)


def _verify(checkpoint: Checkpoint, snapshot: Path, digests: dict[str, str], noted: bool) -> None:
    """Delete what has not the digest that the hub states; what has is (if `noted`) not read again until it changes."""
    marker = _notes(checkpoint.repository, f"{checkpoint.commit}.checked.json")
    before, status = read_json(marker), {name: (snapshot / name).stat() for name in digests}
    now = {name: [s.st_size, s.st_mtime_ns] for name, s in status.items()}
    for name, digest in digests.items():
        path = snapshot / name
        if before.get(name) == now[name]:
            continue
        with path.open("rb") as stream:  # SHA-256 of large files, git's own of others
            found = sha_fileobj(stream).hex() if len(digest) == 64 else git_hash(stream.read())
        if found != digest:
            path.resolve().unlink()  # the blob that a link leads to
            path.unlink(missing_ok=True)
            why = "its digest is not the one that the hub states; the file was deleted, run again to download it again"
            raise PhaselabError(f"{checkpoint}: {name}: {why}")
    if noted and now != before:
        write_json(now, marker)


@contextmanager
def present(
    checkpoint: Checkpoint, keep: Callable[[], bool] = lambda: True, code: bool = False, say: Say | None = None
) -> Iterator[Checkpoint]:
    """The checkpoint with its folder, downloaded when it is not there; for the time of a ``with`` block.

    When `keep`, asked at the end of the block, says no, the revision is removed from the cache, unless another process
    is still in such a block: then that one decides. One in a local folder is given as it is. The rest as for `fetch`.
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
                    _notes(of, f"{checkpoint.commit}.checked.json").unlink(missing_ok=True)


def _folder(repository: str) -> Path:
    return Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")


def begun(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is in the cache, or a part of it."""
    return (_folder(checkpoint.repository) / "snapshots" / (checkpoint.commit or "-")).is_dir()


def _notes(repository: str, name: str) -> Path:
    """A file of ours beside the cache."""
    return Path(constants.HF_HUB_CACHE, ".locks", _folder(repository).name, "phaselab", name)


@contextmanager
def _locked(repository: str, commit: str = "") -> Iterator[ReadWriteLock | None]:
    """Lock between processes: of a repository for one at a time, of a commit for all who use it; None if read-only."""
    path = _notes(repository, f"{commit or 'repository'}.lock")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        yield None  # a cache that a whole cluster reads: nothing in it changes
        return
    with _in_one_sentence(path):
        lock = ReadWriteLock(path, is_singleton=False)
        (lock.acquire_read if commit else lock.acquire_write)()
    try:
        yield lock
    finally:
        lock.close()
