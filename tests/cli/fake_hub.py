"""A hub of models on this machine: as much of the Hugging Face hub's HTTP as a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Models by name (OWNER/NAME → folder), what was asked for, and what goes wrong.

    cut   files whose connection is lost after so many bytes, and which are refused the next time
    lies  files whose bytes are others than their SHA-256 says
    """

    repos: dict[str, Path]
    asked: list[str] = field(default_factory=list)  # paths of files sent, and from which byte on
    cut: dict[str, int] = field(default_factory=dict)
    lies: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    url: str = ""

    def files(self, repo: str) -> dict[str, bytes]:
        folder = self.repos[repo]
        return {
            p.relative_to(folder).as_posix(): p.read_bytes()
            for p in sorted(folder.rglob("*")) if p.is_file()
        }  # fmt: skip


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if api else parts[:2])
        if repo not in self.hub.repos:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        elif api and parts[4] == "revision" and parts[5] not in ("main", COMMIT):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        elif api:
            self._json(self._described(repo, tree=parts[4] == "tree"), body)
        else:
            self._file(repo, "/".join(parts[4:]), body)

    def _described(self, repo: str, *, tree: bool):
        rows = []
        for path, data in self.hub.files(repo).items():
            row = {"size": len(data), "oid" if tree else "blobId": hashlib.sha1(data).hexdigest()}
            if path.endswith(".safetensors"):
                key = "oid" if tree else "sha256"
                row["lfs"] = {key: _digest(data), "size": len(data), "pointerSize": 130}
            rows.append(row | ({"path": path, "type": "file"} if tree else {"rfilename": path}))
        return rows if tree else {"id": repo, "sha": COMMIT, "siblings": rows}

    def _file(self, repo: str, path: str, body: bool) -> None:
        data = self.hub.files(repo).get(path)
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        tag = _digest(data) if path.endswith(".safetensors") else hashlib.sha1(data).hexdigest()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if body and path in self.hub.refused:
            self.hub.refused.remove(path)
            return self._send(403, b"", {}, body)
        if body:
            self.hub.asked.append(f"{path}:{start}")
        if path in self.hub.lies:
            data = data[:-1] + bytes([data[-1] ^ 1])
        code, size = (206, len(data)) if start else (200, len(data))
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        cut = self.hub.cut.pop(path, None) if body else None
        if cut is not None:
            self.hub.refused.add(path)
        return self._send(code, data[start:], headers, body, cut)

    def _json(self, value, body: bool) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body)

    def _send(self, code: int, data: bytes, headers: dict, body: bool, cut: int | None = None):
        self.send_response(code)
        for key, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
