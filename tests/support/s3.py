"""An S3 server for tests: moto's, on a random port, with one bucket; gone at the end."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.servers import free_port, start, stop

BUCKET = "assay"


@dataclass
class ObjectStorage:
    """A server that can be stopped; its objects are in its memory.

    Attributes:
        secret: the key that must appear nowhere.
    """

    folder: Path
    host: str
    port: int
    secret: str = field(default_factory=lambda: secrets.token_hex(20))

    @property
    def environment(self) -> dict[str, str]:
        """What boto3, MLflow, DVC and Ray read."""
        address = f"http://{self.host}:{self.port}"
        return {
            "AWS_ACCESS_KEY_ID": "assay-tests",
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
            "MLFLOW_S3_ENDPOINT_URL": address,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def client(self) -> Any:
        import boto3

        values = self.environment
        return boto3.client(
            "s3", endpoint_url=values["AWS_ENDPOINT_URL"], region_name=values["AWS_DEFAULT_REGION"],
            aws_access_key_id=values["AWS_ACCESS_KEY_ID"], aws_secret_access_key=self.secret,
        )  # fmt: skip

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Every object by its key."""
        client, found = self.client, {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
            for entry in page.get("Contents", []):
                found[entry["Key"]] = client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
        return found

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", self.host, "-p", str(self.port)]
        self._server = start(command, self.folder / "s3.log", self._answers, os.environ)
        self.client.create_bucket(Bucket=BUCKET)

    def stop(self) -> None:
        stop(self._server)

    def _answers(self) -> bool:
        from assay.http import status_of

        return status_of(f"http://{self.host}:{self.port}/moto-api/") == 200


@contextmanager
def running_s3(host: str = "127.0.0.1") -> Iterator[ObjectStorage]:
    """A new server with an empty bucket."""
    with tempfile.TemporaryDirectory(prefix="assay-s3-") as folder:
        storage = ObjectStorage(Path(folder), host, free_port(host))
        storage.start()
        try:
            yield storage
        finally:
            storage.stop()
