"""A hub on this machine: the part of the protocol that huggingface_hub uses to list and download models.

It can be told to behave badly: to drop a connection in the middle of a file, to send other bytes than it
promises, to have no such repository or to ask for permission. What was asked of it is in ``requests``.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LARGE = (".safetensors", ".bin")


@dataclass
class Repository:
    """Revisions (name -> commit), commits (commit -> folder), and whether it is gated."""

    revisions: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Path] = field(default_factory=dict)
    gated: bool = False


@dataclass
class Hub:
    """What the server has, how it misbehaves, and what it was asked."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    #: File name -> (bytes after which the connection is lost, once; whether it is reset and not just closed).
    cut: dict[str, tuple[int, bool]] = field(default_factory=dict)
    #: Names of files whose bytes are not those that were promised.
    corrupt: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def add(self, repository: str, revision: str, folder: Path) -> str:
        """Serve a folder as a revision; its commit."""
        commit = hashlib.sha1(f"{repository} {revision} {folder}".encode()).hexdigest()
        entry = self.repositories.setdefault(repository, Repository())
        entry.revisions[revision] = commit
        entry.commits[commit] = folder
        return commit

    def asked(self, method: str, ending: str) -> list[dict[str, str]]:
        """Headers of the requests of a method for a path that ends so."""
        return [h for m, path, h in self.requests if m == method and path.endswith(ending)]


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def tree(folder: Path) -> list[dict[str, Any]]:
    files = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        entry = {
            "type": "file",
            "oid": git_digest(content),
            "size": len(content),
            "path": path.relative_to(folder).as_posix(),
        }
        if path.name.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        files.append(entry)
    return files


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve("GET")

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def _serve(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((method, path, dict(self.headers)))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(refs|tree|revision)(?:/(.+))?)?", path):
            self._api(found[1], found[2], found[3] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(method, found[1], found[2], found[3])
        else:
            self._error(404, "EntryNotFound")

    def _repository(self, name: str) -> Repository | None:
        entry = self.hub.repositories.get(name)
        if entry is None:
            self._error(401, "RepoNotFound")
        elif entry.gated:
            self._error(403, "GatedRepo")
        else:
            return entry
        return None

    def _api(self, name: str, what: str | None, revision: str) -> None:
        entry = self._repository(name)
        if entry is None:
            return
        if what == "refs":
            branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in entry.revisions.items()]
            self._json({"branches": branches, "tags": [], "converts": []})
            return
        commit = entry.revisions.get(revision, revision)
        if commit not in entry.commits:
            self._error(404, "RevisionNotFound")
        elif what == "tree":
            self._json(tree(entry.commits[commit]))
        else:
            self._json({"id": name, "sha": commit, "siblings": []})

    def _file(self, method: str, name: str, revision: str, file: str) -> None:
        entry = self._repository(name)
        if entry is None:
            return
        commit = entry.revisions.get(revision, revision)
        if commit not in entry.commits:
            self._error(404, "RevisionNotFound")
            return
        path = entry.commits[commit] / file
        if not path.is_file():
            self._error(404, "EntryNotFound")
            return
        content = path.read_bytes()
        large = file.endswith(LARGE)
        digest = hashlib.sha256(content).hexdigest() if large else git_digest(content)
        if file in self.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked[1])
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{digest}"')
        if large:
            self.send_header("X-Linked-Etag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(content)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if method == "HEAD":
            return
        if file in self.hub.cut:
            after, reset = self.hub.cut.pop(file)
            self.wfile.write(body[:after])
            self.wfile.flush()
            if reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
            self.connection.close()
            self.close_connection = True
            return
        self.wfile.write(body)

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def use(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Have huggingface_hub of this process and of those that it starts use another hub and cache.

    It reads its variables when it is imported, so they are set and what was read is set as well.
    """
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "PHASELAB_MANIFESTS"):
        monkeypatch.delenv(name, raising=False)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {"HF_ENDPOINT": url, "HF_HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    for name, value in {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on a free port of this machine, for the time of a ``with`` block."""
    hub = Hub()
    handler = type("OwnHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
