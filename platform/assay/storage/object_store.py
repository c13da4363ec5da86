"""Files in object storage, `s3://bucket/prefix`: whole or absent, by name. AWS_* variables set user and server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from assay.errors import InputError, Unavailable

REFUSED = (
    "403",
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "RequestExpired",
    "InvalidToken",
)
MISSING = ("404", "NoSuchKey", "NotFound")
CHANGED = ("412", "PreconditionFailed", "ConditionalRequestConflict")


@dataclass(frozen=True)
class Entry:
    """`mark` changes with the content; `size` in bytes."""

    mark: str
    size: int


class ObjectStore:
    """The files below one address. May be used by many threads.

    Credentials are read again after they were refused, so renewed ones are found.

    Every call raises `InputError` if the bucket or the credentials are wrong, `Unavailable` if no server answers.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme != "s3" or not parts.netloc:
            raise InputError(f"ASSAY_STORAGE {address}: must be a folder or s3://bucket/prefix")
        self.address, self.bucket, self.prefix = address, parts.netloc, parts.path.strip("/")

    def below(self, name: str) -> ObjectStore:
        return ObjectStore(f"{self.address.rstrip('/')}/{name}")

    @cached_property
    def client(self) -> Any:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise InputError("ASSAY_STORAGE: s3:// needs boto3: install assay[cluster]") from None
        retries: Any = {"mode": "standard", "max_attempts": 4}
        config = Config(retries=retries, connect_timeout=5, read_timeout=60)
        return boto3.session.Session().client("s3", config=config)

    def list(self, folder: str = "", after: str = "") -> dict[str, Entry]:
        """The files below a folder, by name; only those that sort behind `after`."""
        return {
            self._name(entry["Key"]): Entry(entry["ETag"], entry["Size"])
            for page in self._pages(folder, after)
            for entry in page.get("Contents", ())
        }

    def files(self) -> dict[str, Entry]:
        """The files that are in no folder, by name. What is in folders is not looked at."""
        return {
            self._name(entry["Key"]): Entry(entry["ETag"], entry["Size"])
            for page in self._pages("", "", Delimiter="/")
            for entry in page.get("Contents", ())
        }

    def folders(self, folder: str, after: str = "") -> Sequence[str]:
        """The names of the folders in a folder, sorted; only those behind the folder `after`."""
        behind = f"{after}0" if after else ""  # "0" follows "/"
        return [
            entry["Prefix"].rstrip("/").rpartition("/")[2]
            for page in self._pages(folder, f"{folder}/{behind}" if behind else "", Delimiter="/")
            for entry in page.get("CommonPrefixes", ())
        ]

    def _pages(self, folder: str, after: str, **more: str) -> Iterator[Any]:
        begin = {"StartAfter": self._key(after)} if after else {}
        with self._plain_errors():
            pages = self.client.get_paginator("list_objects_v2")
            prefix = self._key(folder)
            yield from pages.paginate(Bucket=self.bucket, Prefix=f"{prefix}/" if prefix else "", **begin, **more)

    def _name(self, key: str) -> str:
        return key.removeprefix(f"{self.prefix}/" if self.prefix else "")

    def put(self, name: str, content: bytes) -> None:
        with self._plain_errors():
            self.client.put_object(Bucket=self.bucket, Key=self._key(name), Body=content)

    def upload(self, name: str, path: Path) -> None:
        with self._plain_errors():
            self.client.upload_file(str(path), self.bucket, self._key(name))

    def exchange(self, name: str, content: bytes, mark: str | None) -> str | None:
        """Replace a file if it has this mark (None: if it is missing). Returns the new mark, None if not replaced."""
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": "*"} if mark is None else {"IfMatch": mark}
        with self._plain_errors():
            try:
                done = self.client.put_object(Bucket=self.bucket, Key=self._key(name), Body=content, **condition)
            except ClientError as error:
                if _code(error) in CHANGED + MISSING:
                    return None
                raise
        return str(done["ETag"])

    def get_marked(self, name: str) -> tuple[bytes, str, float] | None:
        """Content, mark and age in seconds by the server's clock; None if the file is missing."""
        from email.utils import parsedate_to_datetime

        answer = self._get(name)
        if answer is None:
            return None
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        with self._plain_errors():
            content = answer["Body"].read()
        return content, answer["ETag"], (now - answer["LastModified"]).total_seconds()

    def get(self, name: str, first: int = 0) -> bytes | None:
        """The content from byte `first` on, which it must have; None if the file is missing."""
        answer = self._get(name, **({"Range": f"bytes={first}-"} if first else {}))
        with self._plain_errors():
            return None if answer is None else answer["Body"].read()

    def _get(self, name: str, **more: str) -> Any:
        from botocore.exceptions import ClientError

        with self._plain_errors():
            try:
                return self.client.get_object(Bucket=self.bucket, Key=self._key(name), **more)
            except ClientError as error:
                if _code(error) in MISSING:
                    return None
                raise

    def download(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._plain_errors():
            self.client.download_file(self.bucket, self._key(name), str(path))

    def remove(self, *names: str) -> None:
        with self._plain_errors():
            for name in names:
                self.client.delete_object(Bucket=self.bucket, Key=self._key(name))

    def remove_marked(self, name: str, mark: str) -> None:
        """Remove a file if it has this mark. Servers that know no such condition remove it in any case."""
        from botocore.exceptions import ClientError

        with self._plain_errors():
            try:
                self.client.delete_object(Bucket=self.bucket, Key=self._key(name), IfMatch=mark)
            except ClientError as error:
                if _code(error) not in CHANGED + MISSING:
                    raise

    def clear(self, folder: str = "") -> None:
        """Remove all files below a folder."""
        self.remove(*self.list(folder))

    def _key(self, name: str) -> str:
        return "/".join(filter(None, (self.prefix, name)))

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except NoCredentialsError:
            self.__dict__.pop("client", None)
            raise InputError(
                f"{self.address}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        except (ClientError, BotoCoreError, Boto3Error) as error:
            code, line = _code(error), " ".join(str(error).split())[:200]
            if code == "NoSuchBucket" or (code in MISSING and "HeadBucket" in line):
                raise InputError(
                    f"{self.address}: bucket {self.bucket!r} does not exist: create it or fix the name"
                ) from None
            if code in REFUSED or any(f"({code})" in line for code in REFUSED):
                self.__dict__.pop("client", None)  # the next call reads the credentials anew
                raise InputError(f"{self.address}: refused ({line}): fix AWS_ACCESS_KEY_ID or its rights") from None
            raise Unavailable(f"{self.address} does not answer ({line})") from None


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
