"""A server of files on this machine that can be told to behave badly; what was asked of it is in ``requests``."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Server:
    """What it has (path -> bytes), how it misbehaves, and what it was asked: path with query, and its Range or ""."""

    files: dict[str, bytes] = field(default_factory=dict)
    #: Path -> bytes after which the connection is lost, one for each of the next requests.
    cut: dict[str, list[int]] = field(default_factory=dict)
    #: Answers that go before the file: path -> statuses.
    statuses: dict[str, list[int]] = field(default_factory=dict)
    ranges: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    #: Set: answers wait for it.
    gate: threading.Event | None = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        of, path, asked = self.server_of, self.path.partition("?")[0], self.headers.get("Range", "")
        of.requests.append((self.path, asked))
        if of.gate:
            of.gate.wait(20)
        content = of.files.get(path)
        start = int(found[1]) if of.ranges and (found := re.fullmatch(r"bytes=(\d+)-", asked)) else 0
        status = 404 if content is None else 206 if start else 200
        if of.statuses.get(path):
            status, content = of.statuses[path].pop(0), b""
        elif content is not None and start >= len(content):
            status = 416
        body = (content or b"")[start:] if status < 300 else b""
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content or b'') - 1}/{len(content or b'')}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if of.cut.get(path) and status < 300:
            self.wfile.write(body[: of.cut[path].pop(0)])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port, for the time of a ``with`` block."""
    of = Server()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (_Handler,), {"server_of": of}))
    server.daemon_threads = True
    of.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield of
    finally:
        server.shutdown()
        server.server_close()
