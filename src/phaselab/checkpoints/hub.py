"""Checkpoints on a hub: which revisions there are, downloading one, and removing it again.

huggingface_hub does the work. This module adds what a sweep over tens of revisions of 29 GB needs: an
exact commit, no file that is not asked for, free disk checked before, digests checked after, removal that
takes nothing from another process, and errors in one sentence. ``HF_ENDPOINT``, ``HF_HOME``,
``HF_HUB_CACHE``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` mean what they mean there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaselab.checkpoints.revisions import Checkpoint, CheckpointError, NotPublicError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: Files of a tokenizer and of the configuration, by name. Anything else beside the weights stays there.
_SMALL = re.compile(
    r"config\.json|generation_config\.json|tokenizer.*|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(json|txt)|merges\.txt|spiece\.model|chat_template\.jinja"
)
#: Seconds after which what a killed download has left in the cache is taken for abandoned.
_ABANDONED = 3600
#: What the system answers where nothing may be written.
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
#: Times that a download is begun again after the network failed; whole files are not fetched again.
_ATTEMPTS = 3


def home() -> Path:
    """The folder of everything that comes from hubs: ``$HF_HOME``, by default ``~/.cache/huggingface``."""
    named = os.environ.get("HF_HOME")
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(named or f"{caches}/huggingface").expanduser()


def cache() -> Path:
    """The folder of downloaded snapshots: ``$HF_HUB_CACHE``, by default ``hub`` in `home`."""
    named = os.environ.get("HF_HUB_CACHE")
    return Path(named).expanduser() if named else home() / "hub"


def endpoint() -> str:
    """Address of the hub: ``$HF_ENDPOINT``, by default Hugging Face."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether the network must not be used: ``$HF_HUB_OFFLINE``, or ``$TRANSFORMERS_OFFLINE``."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in {"1", "ON", "YES", "TRUE"}


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint())


@contextmanager
def _in_one_sentence(what: str) -> Iterator[None]:
    """Tell what a hub, the network or the disk does wrong as a CheckpointError about `what`.

    What huggingface_hub logs of its attempts meanwhile is left out.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import logging

    said = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except errors.GatedRepoError as error:
        raise NotPublicError(
            f"{what}: the repository is gated; ask for access on its page at {endpoint()} and set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise NotPublicError(f"{what}: there is no such repository at {endpoint()}, or it is not public") from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{what}: there is no such revision at {endpoint()}; 'phaselab models refresh' lists those there are"
        ) from error
    except errors.HfHubHTTPError as error:
        raise CheckpointError(f"{what}: {endpoint()} answered {error.response.status_code}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        why = "HF_HUB_OFFLINE is set" if offline() else f"{endpoint()} cannot be reached"
        raise CheckpointError(f"{what}: not (or not whole) in the cache {cache()}, and {why}") from error
    except errors.HTTPError as error:
        raise CheckpointError(f"{what}: {endpoint()} cannot be reached: {_first_line(error)}") from error
    except (RuntimeError, errors.XetDownloadError) as error:
        # What hf_xet raises has no type of its own.
        raise CheckpointError(f"{what}: the download failed: {_first_line(error)}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CheckpointError(
                f"{what}: the disk of {cache()} is full; whole files are kept, free some space and run again"
            ) from error
        raise CheckpointError(f"{what}: {_first_line(error)}") from error
    finally:
        logging.set_verbosity(said)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


# -------------------------------------------------------------------------------------------- revisions


def revisions(repository: str) -> dict[str, str]:
    """Name -> commit of all branches and tags of a repository.

    Raises
    ------
    NotPublicError
        When there is no such repository, or it is gated.
    CheckpointError
        When the hub cannot be reached.
    """
    if offline():
        raise CheckpointError(f"{repository}: its revisions cannot be listed while HF_HUB_OFFLINE is set")
    with _in_one_sentence(repository):
        refs = _api().list_repo_refs(repository)
    return {ref.name: ref.target_commit for ref in [*refs.tags, *refs.branches]}


def known_commit(repository: str, revision: str) -> str:
    """The commit that the cache has for a revision, without a network; empty when it has none."""
    from huggingface_hub.errors import RevisionResolutionError

    try:
        found = _api().resolve_revision(repository, revision=revision, cache_dir=cache(), local_files_only=True)
    except RevisionResolutionError:
        return ""
    return found.resolved


# -------------------------------------------------------------------------------------------- downloads


def wanted(names: Iterable[str], code: bool = False) -> list[str]:
    """Which files of a snapshot a model is loaded from: configuration, tokenizer and one set of weights.

    Safetensors where there are some, else ``pytorch_model*.bin``. `code`: also the repository's own
    modules, for a study that trusts them.

    Raises
    ------
    CheckpointError
        When there is no configuration or no weights.
    """
    files = sorted(names)
    small = [f for f in files if _SMALL.fullmatch(f) or (code and f.endswith(".py"))]
    for stem, ending in (("model", "safetensors"), ("pytorch_model", "bin")):
        whole, index = f"{stem}.{ending}", f"{stem}.{ending}.index.json"
        parts = [f for f in files if re.fullmatch(rf"{stem}-\d+-of-\d+\.{ending}", f)]
        weights = [whole] if whole in files else [index, *parts] if parts and index in files else []
        if weights:
            break
    if not weights or "config.json" not in files:
        raise CheckpointError(
            f"found {', '.join(files) or 'no files'}; expected config.json and model*.safetensors or pytorch_model*.bin"
        )
    return [*small, *weights]


def fetch(checkpoint: Checkpoint, code: bool = False, say: Callable[[str], None] | None = None) -> Path:
    """Download what is missing of a checkpoint, check its digests, and give its folder in the cache.

    A dropped connection is taken up where it broke; a process that was killed goes on with the files
    that it has not finished. Nothing that has been checked before is downloaded or checked again.

    Parameters
    ----------
    checkpoint : one with ``repository`` and ``commit``.
    code : also the repository's own modules.
    say : receives a line when a download begins.

    Raises
    ------
    CheckpointError
        When it is not there or not accessible, the network or the disk fails, or a file's digest is not
        the hub's: such a file is deleted.
    """
    from huggingface_hub import errors, snapshot_download

    what = _title(checkpoint)
    with _in_one_sentence(what), _lock(_locks(checkpoint.repository) / "repository.lock"):
        folder = _folder(checkpoint.repository)
        snapshot = folder / "snapshots" / checkpoint.commit
        sizes = _sizes(checkpoint, snapshot)
        try:
            names = wanted(sizes, code)
        except CheckpointError as error:
            raise CheckpointError(f"{what}: {error}") from error
        missing = sum(sizes[name] for name in names if not (snapshot / name).exists())
        if missing and not offline():
            _remove_abandoned(folder)
            _require_room(what, missing)
            if say:
                say(f"{what}: downloading {_amount(missing)}")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                snapshot_download(
                    checkpoint.repository,
                    revision=checkpoint.commit,
                    cache_dir=cache(),
                    endpoint=endpoint(),
                    allow_patterns=names,
                    local_files_only=offline(),
                    tqdm_class=_no_bar(),
                )
                break
            except errors.HTTPError as error:
                # A connection that was reset is not taken up by huggingface_hub itself.
                if isinstance(error, errors.HfHubHTTPError) or attempt == _ATTEMPTS:
                    raise
        _verify(checkpoint, snapshot, names)
    return snapshot


@contextmanager
def present(
    checkpoint: Checkpoint,
    keep: Callable[[], bool] = lambda: True,
    code: bool = False,
    say: Callable[[str], None] | None = None,
) -> Iterator[Checkpoint]:
    """The checkpoint with its folder, downloaded when it is not there; for the time of a ``with`` block.

    When `keep`, asked at the end of the block, says no, the revision is removed from the cache, unless
    another process is still in such a block of its own: then that one decides. A checkpoint in a local
    folder is given as it is and never removed.
    """
    if checkpoint.path is not None:
        yield checkpoint
        return
    lock = _locks(checkpoint.repository) / f"{checkpoint.commit}.lock"
    with _lock(lock, fcntl.LOCK_SH) as held:
        path = fetch(checkpoint, code, say)
        try:
            yield replace(checkpoint, path=path)
        finally:
            if not keep() and _alone(held):
                remove(checkpoint)


def remove(checkpoint: Checkpoint) -> None:
    """Remove a revision from the cache; files that other revisions share with it stay."""
    from huggingface_hub import scan_cache_dir

    with _in_one_sentence(_title(checkpoint)), _lock(_locks(checkpoint.repository) / "repository.lock"):
        if _folder(checkpoint.repository).is_dir():
            scan_cache_dir(cache()).delete_revisions(checkpoint.commit).execute()
            _checked(checkpoint.repository, checkpoint.commit).unlink(missing_ok=True)


def _title(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.repository} {checkpoint.revision}"


def _folder(repository: str) -> Path:
    return cache() / f"models--{repository.replace('/', '--')}"


def _locks(repository: str) -> Path:
    return cache() / ".locks" / f"models--{repository.replace('/', '--')}" / "phaselab"


def _checked(repository: str, commit: str) -> Path:
    """File that says which files of a snapshot have been checked: name -> size and time of change."""
    return _locks(repository) / f"{commit}.checked.json"


@contextmanager
def _lock(path: Path, mode: int = fcntl.LOCK_EX) -> Iterator[Any]:
    """A lock between processes, which the system releases when one dies; None in a read-only cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        # A cache that a whole cluster reads: nothing in it changes, so there is nothing to lock.
        yield None
        return
    with handle:
        fcntl.flock(handle, mode)
        yield handle


def _alone(held: Any) -> bool:
    """Whether no other process holds the shared lock that this one holds; it is then this one's alone."""
    if held is None:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sizes(checkpoint: Checkpoint, snapshot: Path) -> dict[str, int]:
    """Name -> bytes of the files of a commit, from the cache where it has the listing, else from the hub."""
    repository, commit = checkpoint.repository, checkpoint.commit
    from huggingface_hub import RepoFile, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    files: Iterable[Any]
    try:
        files = get_cached_repo_tree(repository, revision=commit, cache_dir=cache())
    except CachedRepoTreeNotFoundError:
        if offline():
            # Downloaded by another program, which has left no listing: what is there is all there is.
            found = [p for p in snapshot.rglob("*") if p.is_file()]
            if not found:
                raise CheckpointError(
                    f"{_title(checkpoint)}: not in the cache {cache()}, and HF_HUB_OFFLINE is set"
                ) from None
            return {p.relative_to(snapshot).as_posix(): p.stat().st_size for p in found}
        files = _api().list_repo_tree(repository, recursive=True, revision=commit)
    return {file.path: file.size for file in files if isinstance(file, RepoFile)}


def _remove_abandoned(folder: Path) -> None:
    # huggingface_hub gives each download a file of its own, which a killed process leaves behind for ever.
    for left in folder.glob("blobs/*.incomplete"):
        if time.time() - left.stat().st_mtime > _ABANDONED:
            left.unlink(missing_ok=True)


def _require_room(what: str, needed: int) -> None:
    folder = next(p for p in (cache(), *cache().absolute().parents) if p.is_dir())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(
            f"{what}: found {_amount(free)} free in {cache()}, expected {_amount(needed)} for the "
            "download; free some, name another disk with HF_HOME, or remove each checkpoint after use "
            "(--keep-downloads no)"
        )


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size:,} bytes"


def _no_bar() -> Any:
    from huggingface_hub.utils import tqdm

    class NoBar(tqdm):  # type: ignore[misc]
        """Keeps bars of downloads from being drawn across the progress of a sweep."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

    return NoBar


def _verify(checkpoint: Checkpoint, snapshot: Path, names: Iterable[str]) -> None:
    """Compare files with their digests, which are the names of the blobs in the cache.

    The hub states SHA-256 for large files and git's own digest for others.
    """
    what, marker = _title(checkpoint), _checked(checkpoint.repository, checkpoint.commit)
    try:
        before = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    now = {}
    for name in names:
        path = snapshot / name
        status = path.stat()
        now[name] = [status.st_size, status.st_mtime_ns]
        if before.get(name) == now[name]:
            continue
        if not path.is_symlink():
            raise CheckpointError(
                f"{what}: {path}: found a copy, expected a link to a blob whose name is its digest "
                "(is HF_HUB_DISABLE_SYMLINKS set?)"
            )
        blob = path.parent / os.readlink(path)
        if _digest(blob, len(blob.name)) != blob.name:
            # The blob may itself be a link, into the store that repositories share.
            for bad in (blob.resolve(), blob, path):
                bad.unlink(missing_ok=True)
            raise CheckpointError(
                f"{what}: {name}: its digest is not the one that the hub states; the file was deleted, "
                "run again to download it again"
            )
    if now != before:
        aside = marker.with_name(f".{marker.name}.{os.getpid()}")
        try:
            marker.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(now), encoding="utf-8")
            os.replace(aside, marker)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise


def _digest(path: Path, length: int) -> str:
    with path.open("rb") as stream:
        if length == 64:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        content = stream.read()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
