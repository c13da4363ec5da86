"""Real packed digits: pushed by DVC from a project, fetched from S3 by a node that has nothing but a job's package."""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import boto3
import pytest
import requests
from moto.server import ThreadedMotoServer

from assay.data.dataset import Dataset, read_card
from assay.data.version import folder_hash, recorded_hash
from assay.errors import InputError, Unavailable, WorkError
from assay.settings import Settings
from assay.state import PACKAGE
from assay.storage import dataset_fetch, dvc_remote
from assay.storage.dataset_fetch import missing_in_remote
from assay.storage.dataset_versions import open_version
from assay.storage.dvc_remote import Remote
from tests.conftest import Project
from tests.support.node import ended

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAPLANTED0000000", "AWS_SECRET_ACCESS_KEY": "planted-secret-000000000"}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """An S3 server with the bucket `team`, known to this process and its children by the environment alone."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    around = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_DISABLED": "true"}
    quick = {"AWS_MAX_ATTEMPTS": "1", "AWS_CONFIG_FILE": str(tmp_path / "none")}
    for name, value in (CREDENTIALS | around | quick).items():
        monkeypatch.setenv(name, value)
    for name in ("PAUSES", "LONG_PAUSES"):
        monkeypatch.setattr(dvc_remote, name, (0.01, 0.01))
    boto3.client("s3").create_bucket(Bucket="team")
    yield url
    requests.post(f"{url}/moto-api/reset", timeout=10).raise_for_status()
    server.stop()
    ended()


def package(project: Project, root: Path) -> Path:
    """What a job carries to a node: no history, no data, no state."""
    (root / ".dvc").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", "dvc.lock", ".dvc/config"):
        shutil.copy(project.root / name, root / name)
    (root / PACKAGE).write_text("{}")
    return root


def failure(kind: type[Exception], look: Callable[[], Any]) -> str:
    """The one line of a refusal, which tells no secret, nor does its traceback."""
    with pytest.raises(kind) as caught:
        look()
    told = "".join(traceback.format_exception(caught.value))
    assert not [value for value in CREDENTIALS.values() if value in told]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits_travel_by_s3(project: Project, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.run("dvc", "remote", "add", "--default", "team", "s3://team/dvc")
    version = recorded_hash(project.root, "digits")
    assert version is not None
    listing = f"s3://team/dvc/files/md5/{version[:2]}/{version[2:]}"
    assert missing_in_remote(project.root, "digits") == [listing]
    project.run("dvc", "push", "data@digits")
    assert missing_in_remote(project.root, "digits") == []

    lines: list[str] = []
    root = package(project, tmp_path / "package")

    def fetch(cache: str = "cache") -> Path:
        settings = Settings(project=root, data_cache=tmp_path / cache, data_cache_gb=1)
        return open_version(settings, "digits", version, lines.append).folder

    folder = fetch()
    opened = Dataset(folder, read_card(folder, "digits"), version)
    assert len(opened.split("train")) == opened.card.samples["train"] > 1000
    for path in (project.root / "data" / "digits").iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert lines[-1].startswith("dataset digits: ")
    assert sorted(path.name for path in root.iterdir()) == [".dvc", PACKAGE, "dvc.lock", "dvc.yaml", "params.yaml"]
    assert [path.name for path in (root / ".dvc").iterdir()] == ["config"]

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    line = failure(Unavailable, lambda: fetch("second"))
    assert line.startswith("the DVC remote 'team' (s3://team/dvc) does not answer (EndpointConnectionError: ")
    config = (root / ".dvc" / "config").read_text()
    (root / ".dvc" / "config").write_text(f"{config}    endpointurl = {s3}\n")
    assert fetch("second").is_dir()  # DVC's own setting goes before the environment


def test_a_fetch_that_is_cut_off_goes_on_where_it_was(
    project: Project, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run("dvc", "remote", "add", "--default", "team", "s3://team/dvc")
    project.run("dvc", "push", "data@digits")
    version = recorded_hash(project.root, "digits")
    assert version is not None
    settings = Settings(project=package(project, tmp_path / "package"), data_cache=tmp_path / "cache")
    monkeypatch.setattr(dataset_fetch, "BLOCK", 10_000)
    opened: list[tuple[str, int]] = []
    cut = 1
    real = Remote.open_object

    class Cut:
        """Breaks off after some blocks."""

        def __init__(self, file: IO[bytes]) -> None:
            self.file, self.blocks = file, 0

        def read(self, size: int) -> bytes:
            self.blocks += 1
            if self.blocks > 2:
                raise ConnectionResetError("cut")
            return self.file.read(size)

    @contextmanager
    def open_object(remote: Remote, md5: str, start: int = 0) -> Iterator[Any]:
        opened.append((md5, start))
        with real(remote, md5, start) as file:
            yield Cut(file) if cut and not md5.endswith(".dir") else file

    monkeypatch.setattr(Remote, "open_object", open_object)
    large = max((project.root / "data" / "digits").iterdir(), key=lambda path: path.stat().st_size)
    size = large.stat().st_size
    monkeypatch.setattr(dvc_remote, "LONG_PAUSES", (0.01,))
    folder = open_version(settings, "digits", version, lambda _: None).folder  # each try brings it further
    starts = [start for md5, start in opened if md5 == folder_hash(folder, None)[1][large.name]]
    assert starts == list(range(0, size, 20_000))
    for path in (project.root / "data" / "digits").iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()

    # Where it gives up, what is whole stays, and of the file that broke off the next command fetches only the rest.
    ended()
    shutil.rmtree(folder)
    monkeypatch.setattr(dvc_remote, "LONG_PAUSES", ())
    monkeypatch.setattr(dataset_fetch, "STREAMS", 1)
    opened.clear()
    failure(Unavailable, lambda: open_version(settings, "digits", version, lambda _: None))
    assert not folder.exists()
    *whole, (broken, _) = [(md5, start) for md5, start in opened if not md5.endswith(".dir")]
    opened.clear()
    cut = 0
    assert open_version(settings, "digits", version, lambda _: None).folder == folder
    assert (broken, 20_000) in opened
    assert not {md5 for md5, _ in whole} & {md5 for md5, _ in opened}


def test_what_s3_refuses(project: Project, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project.run("dvc", "remote", "add", "--default", "team", "s3://team/dvc")

    def look() -> str:
        return failure(WorkError, lambda: missing_in_remote(project.root, "digits"))

    requests.post(f"{s3}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()
    try:
        assert look().startswith("the DVC remote 'team' (s3://team/dvc) refuses the credentials (")
    finally:
        requests.post(f"{s3}/moto-api/reset-auth", data=b"inf", timeout=10).raise_for_status()
    project.run("dvc", "remote", "modify", "team", "url", "s3://nowhere/dvc")
    line = failure(InputError, lambda: missing_in_remote(project.root, "digits"))
    assert "(s3://nowhere/dvc) names a bucket that does not exist: run `dvc remote modify team url " in line
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    assert "NoCredentialsError" in look()
    assert look().endswith("set the credentials in this machine's environment (for S3 the AWS_* variables)")


def test_the_mend_of_a_damaged_remote_is_true(project: Project, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    project.run("dvc", "remote", "add", "--default", "team", str(remote))
    project.run("dvc", "push", "data@digits")
    version = recorded_hash(project.root, "digits")
    assert version is not None
    largest = max((path for path in remote.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    largest.write_bytes(largest.read_bytes()[:-1])
    root = package(project, tmp_path / "package")

    def fetch() -> Path:
        try:
            settings = Settings(project=root, data_cache=tmp_path / "cache", data_cache_gb=1)
            return open_version(settings, "digits", version, lambda _: None).folder
        finally:
            ended()

    line = failure(WorkError, fetch)
    listing = remote / "files" / "md5" / version[:2] / version[2:]
    mend = f"delete {largest} and {listing}, and run `dvc push data@digits` on a machine that has the dataset"
    assert line.endswith(mend)
    largest.unlink()
    project.run("dvc", "push", "data@digits")
    assert not largest.exists()  # DVC believes the listing, which is why that must go as well
    assert "lacks 1 of" in failure(WorkError, lambda: missing_in_remote(project.root, "digits"))
    listing.unlink()
    project.run("dvc", "push", "data@digits")
    assert missing_in_remote(project.root, "digits") == []
    assert fetch().is_dir()
