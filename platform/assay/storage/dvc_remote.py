"""The project's default DVC remote, read by hash: on a cluster's node, which has neither git nor `data/`.

DVC opens the remote, so any kind that DVC supports will do. Objects are stored by md5, including a folder's listing.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from assay.errors import AssayError, InputError, Unavailable, WorkError, causes
from assay.files import load_json
from assay.log import Log
from assay.redaction import hide_login, hide_logins

PAUSES = (1.0, 4.0)
"""Seconds before the second and the third try."""
LONG_PAUSES = (1.0, 4.0, 15.0, 30.0, *(60.0,) * 10)
"""The same where nobody waits: nodes of a cluster sit out an outage of ten minutes."""
TELL_SECONDS = 15.0
"""A pause of which people are told."""
BLOCK = 16 * 2**20
"""Bytes of an S3 object that are requested at a time."""
CONNECT_SECONDS = 10
"""How long an S3 or HTTP server may take to answer a connection, unless DVC's configuration says otherwise."""

Result = TypeVar("Result")
_VERSION = re.compile(r"[0-9a-f]{32}\.dir")
_MD5 = re.compile(r"[0-9a-f]{32}")


class DamagedListing(WorkError):
    """A listing in the remote is not what was pushed."""


@dataclass(frozen=True)
class Remote:
    """An open remote.

    Attributes:
        address: for people, without user and password.
        patient: whether an outage is waited out for many minutes; `tell` hears of it.
    """

    name: str
    address: str
    files: Any
    path: str
    patient: bool = False
    tell: Log = lambda _: None

    @property
    def local(self) -> bool:
        """Whether it is a folder."""
        return str(self.files.protocol) == "local"

    def where(self, md5: str) -> str:
        """The path of an object."""
        return str(self.files.join(self.path, "files", "md5", md5[:2], md5[2:]))

    def shown(self, md5: str) -> str:
        """The address of an object, for people."""
        return f"{self.address}/files/md5/{md5[:2]}/{md5[2:]}"

    def size(self, md5: str) -> int | None:
        """The bytes of an object; None if it is missing."""

        def ask() -> int | None:
            try:
                return int(self.files.info(self.where(md5))["size"])
            except FileNotFoundError as error:
                if _absent(error):
                    return None
                raise

        return self.retry(ask)

    @contextmanager
    def open_object(self, md5: str, start: int = 0) -> Iterator[IO[bytes]]:
        """Open an object, to be read from byte `start` to the end."""
        if self.files.protocol in ("http", "https"):
            # without block_size=0, objects of a web server without ranges would be read in one piece
            headers = {"Range": f"bytes={start}-"} if start else {}
            options = {"block_size": 0, "size": 1, **({"headers": headers} if start else {})}
            with self.files.open(self.where(md5), "rb", **options) as file:
                skip = start if file.r.status != HTTPStatus.PARTIAL_CONTENT else 0
                while skip and (block := file.read(min(skip, BLOCK))):
                    skip -= len(block)
                yield file
            return
        with self.files.open(self.where(md5), "rb", **({"block_size": BLOCK} if not self.local else {})) as file:
            file.seek(start)
            yield file

    def listing(self, version: str) -> dict[str, str] | None:
        """The files of a version with their md5; None if it was never pushed.

        Raises:
            DamagedListing: the listing does not match its hash.
        """
        if self.size(version) is None:
            return None

        def read() -> bytes:
            with self.open_object(version) as file:
                return file.read()

        content = self.retry(read)
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != version.removesuffix(".dir"):
            raise DamagedListing(f"the DVC remote {self.name!r} has a damaged listing")
        return parse_listing(content, version)

    def retry(
        self,
        work: Callable[[], Result],
        done: Callable[[], int] = lambda: 0,
        wait: Callable[[float], object] = time.sleep,
    ) -> Result:
        """Call `work`; retry it after a pause if the remote failed for a reason that may pass.

        Args:
            done: how far it is; if this has grown, the tries are counted anew.
            wait: waits for these seconds; what it returns is true if there is no need to go on.
        """
        pauses = LONG_PAUSES if self.patient else PAUSES
        left, most = iter(pauses), done()
        while True:
            try:
                return work()
            except AssayError:
                raise
            except Exception as error:  # each kind of remote has exceptions of its own
                if done() > most:
                    left, most = iter(pauses), done()
                failure, pause = self._failure(error), next(left, None)
                if pause is None or not isinstance(failure, Unavailable):
                    raise failure from None  # what a library says may hold a password
                if pause >= TELL_SECONDS:
                    self.tell(f"{failure}; trying again in {pause:.0f} s")
                if wait(pause):
                    raise failure from None

    def _failure(self, error: Exception) -> AssayError:
        """The failure of the remote as an error for users."""
        what = f"the DVC remote {self.name!r} ({self.address})"
        if _code(error) == "NoSuchBucket":
            return InputError(f"{what} names a bucket that does not exist: run `dvc remote modify {self.name} url …`")
        if _refused(error):
            if self.local:
                return WorkError(f"{what} cannot be read ({_line(error)}): give this user read access")
            fix = "set the credentials in this machine's environment (for S3 the AWS_* variables)"
            return WorkError(f"{what} refuses the credentials ({_line(error)}): {fix}")
        if isinstance(error, FileNotFoundError) and _absent(error):
            return WorkError(f"{what} lost an object while it was read ({_line(error)})")
        return Unavailable(f"{what} does not answer ({_line(error)}): check its address and the network, and try again")


def open_remote(root: Path, shipped: bool = False) -> Remote:
    """Open the default remote of a project, without git.

    Args:
        shipped: use only `.dvc/config` itself, the part that reaches a cluster; credentials are still those of this
            machine.

    Raises:
        InputError: it is missing, or a node cannot use it.
    """
    from dvc.config import Config, ConfigError
    from dvc.config_schema import RelPath
    from dvc.fs import get_cloud_fs

    try:
        config = Config(str(root / ".dvc"))
        name, url = _default(config.read("repo" if shipped else None))
        if not url:
            raise InputError(_no_remote(name, _default(config)[1]))
        if isinstance(url, RelPath):
            raise InputError(
                f".dvc/config: the DVC remote {name!r} is a relative path, a different folder on each machine: "
                f"run `dvc remote modify {name} url s3://…`, or use the absolute path of a folder that all nodes share"
            )
        config["remote"][name]["url"] = url
        kind, options, path = get_cloud_fs(config, name=name)
        if options.get("version_aware") or options.get("worktree"):
            raise InputError(f".dvc/config: the DVC remote {name!r} is cloud-versioned, which Assay does not support")
        if kind.protocol in ("s3", "http", "https"):
            options.setdefault("connect_timeout", CONNECT_SECONDS)
        files = kind(**options)
    except ConfigError as error:
        raise InputError(f".dvc/config: {_plain(str(error)).removeprefix('config file error: ')}") from None
    except OSError as error:
        raise InputError(f".dvc/config: not readable: {_line(error)}") from None
    except ImportError as error:
        raise InputError(f"the DVC remote {name!r}: {_plain(str(error))}") from None
    return Remote(name, hide_login(str(url)).rstrip("/"), files, path)


def _default(config: Mapping[str, Any]) -> tuple[str, str | None]:
    """The name and the url of the default remote."""
    name = str(config["core"].get("remote", "")).lower()
    return name, config["remote"].get(name, {}).get("url")


def _no_remote(name: str, url_here: str | None) -> str:
    """The message for a missing remote; `url_here`: what this machine knows besides the project."""
    if url_here:
        fix = "`dvc remote add` and `dvc remote default` without --local or --global"
        return f"the default DVC remote is not set in .dvc/config, the only file that reaches a cluster: use {fix}"
    if name:
        return f".dvc/config: the default DVC remote {name!r} has no url: run `dvc remote add {name} s3://…`"
    return ".dvc/config has no default DVC remote for nodes to fetch data from: run `dvc remote add -d NAME s3://…`"


def parse_listing(content: bytes, version: str) -> dict[str, str]:
    """DVC's listing of a folder: md5 by relative path. Raises `DamagedListing` if it is not one, or leads elsewhere."""
    try:
        files = {str(entry["relpath"]): str(entry["md5"]) for entry in load_json(content)}
    except (ValueError, TypeError, KeyError):
        raise DamagedListing(f"{version} is not a listing of DVC") from None
    for path, md5 in files.items():
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path or not _MD5.fullmatch(md5):
            raise DamagedListing(f"the listing {version} names {path!r} ({md5}), which is not a file of a dataset")
    return files


def check_version(version: str) -> None:
    """Raise `InputError` unless this is DVC's hash of a folder."""
    if not _VERSION.fullmatch(version):
        raise InputError(f"{version!r} is not a dataset version: dvc.lock should name 32 hexadecimal digits and `.dir`")


def _code(error: Exception) -> str | int | None:
    """The answer of a server: S3's error code, or HTTP's status."""
    for link in causes(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            code: str = response.get("Error", {}).get("Code", "")
            return code
        if isinstance(status := getattr(link, "status", None), int):
            return status
    return None


def _absent(error: FileNotFoundError) -> bool:
    """Whether the remote reports a missing object; some report the same if no server answers."""
    _, *others = causes(error)
    return not others or _code(error) in (404, "404", "NoSuchKey")


def _refused(error: Exception) -> bool:
    return (
        isinstance(error, PermissionError)
        or "Credential" in type(error).__name__
        or type(error).__name__ == "AuthError"
        or _code(error) in (401, 403)
    )


def _line(error: BaseException) -> str:
    """One line that says what a library met, without what an address may hold of users and passwords."""
    told = next((link for link in reversed(list(causes(error))) if str(link)), error)
    return _plain(f"{type(told).__name__}: {told}")


def _plain(text: str) -> str:
    return hide_logins(" ".join(text.split()))[:300]
