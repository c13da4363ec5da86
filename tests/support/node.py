"""A node of a cluster in small: a job's package, a cache, and a DVC remote as a folder or behind a web server."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from assay.data.version import folder_hash
from assay.settings import Settings
from assay.state import PACKAGE
from assay.storage import dataset_cache as node_cache
from assay.storage.dataset_versions import version_folder

FILES = {"dataset.json": b"{}", "train-00000.arrow": b"t" * 900, "sub/test-00000.arrow": b"e" * 98}
CHILD = """
import sys
from pathlib import Path
from assay.settings import Settings
from assay.storage.dataset_versions import version_folder
root, version, cache, limit = sys.argv[1:]
say = lambda line: print(line, flush=True)
settings = Settings(project=Path(root), data_cache=Path(cache), data_cache_gb=int(limit) / 1e9)
print("folder", version_folder(settings, "pets", version, say), flush=True)
sys.stdin.read()
"""


@dataclass
class Node:
    """A job's package and a cache, with a DVC remote of test data."""

    base: Path
    lines: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.base / "package"

    @property
    def remote(self) -> Path:
        return self.base / "remote"

    @property
    def cache(self) -> Path:
        return self.base / "cache"

    @property
    def kept(self) -> set[str]:
        """The versions in the cache."""
        return {path.name for path in self.cache.iterdir() if not path.name.startswith(".")}

    @property
    def parts(self) -> list[Path]:
        return list(self.cache.glob(".*.part"))

    def configure(self, url: str, more: str = "") -> None:
        (self.root / ".dvc").mkdir(parents=True, exist_ok=True)
        (self.root / PACKAGE).write_text("{}")
        (self.root / ".dvc" / "config").write_text(f"[core]\nremote = team\n['remote \"team\"']\nurl = {url}\n{more}")

    def publish(self, files: dict[str, bytes]) -> str:
        """Put a version into the remote, and record it."""
        folder = self.base / "published"
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        version, md5s = folder_hash(folder, None)
        listing = [{"md5": md5s[path], "relpath": path} for path in sorted(md5s)]
        for md5, content in [(md5s[path], files[path]) for path in files] + [(version, json.dumps(listing).encode())]:
            self.object(md5).parent.mkdir(parents=True, exist_ok=True)
            self.object(md5).write_bytes(content)
        lock = {"stages": {"data@pets": {"outs": [{"path": "data/pets", "md5": version}]}}}
        (self.root / "dvc.lock").write_text(json.dumps(lock))
        return version

    def object(self, md5: str) -> Path:
        return self.remote / "files" / "md5" / md5[:2] / md5[2:]

    def fetch(self, version: str, limit: int = 10**9) -> Path:
        """A version in this process, in the cache of the node."""
        return version_folder(self.settings(limit), "pets", version, self.lines.append)

    def settings(self, limit: int = 10**9) -> Settings:
        return Settings(project=self.root, data_cache=self.cache, data_cache_gb=limit / 1e9)

    def child(self, version: str, limit: int = 10**9) -> subprocess.Popen[str]:
        """A process that asks for a version and uses it until its input is closed."""
        command = [sys.executable, "-c", CHILD, str(self.root), version, str(self.cache), str(limit)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ended() -> None:
    """As if this process had ended: it uses no version any more."""
    node_cache._used_here.clear()


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


class Web:
    """A web server over a folder, without ranges unless it is given `ranges`.

    It answers with `status` and counts the bytes that it `sent`. `cut` answers to a path break off; the rest of `held`
    comes when the `gate` is open. `meet` is called before each answer.
    """

    def __init__(self, folder: Path) -> None:
        self.asked: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.ranges = False
        self.meet: Callable[[str], object] = lambda _: None
        self.cut: Counter[str] = Counter()
        self.held: str | None = None
        self.status = 200
        self.reached, self.gate = threading.Event(), threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                web.asked[self.path] += 1
                web.meet(self.path)
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                path = folder / self.path.lstrip("/")
                data = path.read_bytes() if path.is_file() else b""
                first = int(self.headers.get("Range", "bytes=0-")[6:-1]) if web.ranges and body else 0
                data = data[first:]
                self.send_response(206 if first else web.status if path.is_file() else 404)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if not body:
                    return
                half = len(data) // 2
                self.wfile.write(data[:half])
                self.wfile.flush()
                web.sent[self.path] += half
                if web.cut[self.path] > 0:
                    web.cut[self.path] -= 1
                    self.close_connection = True
                    return
                if self.path == web.held:
                    web.reached.set()
                    web.gate.wait(60)
                self.wfile.write(data[half:])
                web.sent[self.path] += len(data) - half

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
