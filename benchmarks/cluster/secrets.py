"""Twenty secrets planted in a local training and in jobs that succeed and fail: in how many places are they found?

They are in the environment of the submitter and of every node, in passwords of addresses, in arguments, in params.yaml,
in files that git knows and in new ones, in files for keys, and in what an exception says.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import environment, figure, fresh_clone, run, set_value
from tests.support.cluster_site import ClusterSite, cluster_site
from tests.support.nodes import output

VARIABLES = (
    "GITHUB_TOKEN", "HF_TOKEN", "OPENAI_API_KEY", "SLACK_BOT_TOKEN", "DB_PASSWORD", "AZURE_CLIENT_SECRET",
    "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_AUTH_STRING", "ASSAY_WEBHOOK", "MIRROR_ADDRESS",
)  # fmt: skip
RAISING = """
import os as _os
_build = Task.build.__func__
def _raising(cls, config, dataset, context):
    if config.task.dropout == 0.125:
        raise RuntimeError("no entry for " + _os.environ["DB_PASSWORD"] + "; password=" + _os.environ["PLANTED"][::-1])
    return _build(cls, config, dataset, context)
Task.build = classmethod(_raising)
"""
"""Appended to a task: an exception that tells one secret that is known as such, and one that only looks like one."""


def main() -> None:
    planted = {name: f"s3cr3t{secrets.token_hex(10)}" for name in VARIABLES}
    planted |= {name: f"pl4nt{secrets.token_hex(10)}" for name in ("told", "setting", "file", "key file", "remote")}
    values = {**planted, "PREFECT_API_AUTH_STRING": f"assay:{planted['PREFECT_API_AUTH_STRING']}"}
    values |= {"ASSAY_WEBHOOK": f"http://127.0.0.1:9/{planted['ASSAY_WEBHOOK']}"}
    values |= {"MIRROR_ADDRESS": f"https://me:{planted['MIRROR_ADDRESS']}@mirror.example/x"}
    told = {name: values[name] for name in VARIABLES} | {"PLANTED": planted["told"][::-1]}
    os.environ.update(told)
    with fresh_clone() as clone:
        run(clone, "dvc", "repro", "-q", "data@digits")
        with (clone / "platform/assay/tasks/classification/task.py").open("a") as file:
            file.write(RAISING)
        with cluster_site(clone, environment(clone), ["digits"], workers=2) as site:
            planted |= {"S3": site.s3.secret, "Postgres": site.postgres.secret, "Ray": site.cluster.token}
            planted |= {"argument": f"4rgument{secrets.token_hex(10)}", "diff": f"d1ff{secrets.token_hex(10)}"}
            _plant(clone, planted)
            _local(site, planted)
            set_value(clone, "presets.digits", {})
            _submitted(site, planted)
            found = [
                f"{name} in {place}" for place, content in _places(site) for name, value in planted.items()
                if value.encode() in content
            ]  # fmt: skip
    figure("secrets planted", count=len(planted))
    figure("places that hold one of them", count=len(found), found=found[:20])


def _plant(clone: Path, planted: dict[str, str]) -> None:
    """In files: keys that git does not ignore, DVC's local settings, a tracked file, a new one, and params.yaml."""
    (clone / ".env").write_text(f"TOKEN={planted['key file']}\n")
    lines = ("['remote \"other\"']", "    url = s3://x/y", f"    secret_access_key = {planted['remote']}", "")
    (clone / ".dvc/config.local").write_text("\n".join(lines))
    with (clone / "Makefile").open("a") as file:
        file.write(f"# password: {planted['diff']}\n")
    (clone / "notes.toml").write_text(f'api_key = "{planted["file"]}"\n')
    set_value(clone, "presets.digits", {"odd": {"task.api_token": planted["setting"]}})


def _local(site: ClusterSite, planted: dict[str, str]) -> None:
    """A training here, whose record carries the difference; and one with a secret as an argument."""
    words = ("train", "digits", "--workers", "0", "--set", "train.epochs=2")
    site.assay(*words, "--json")
    site.assay(*words, "--set", f"task.api_token={planted['argument']}", code=2)
    site.assay("train", "digits", "--workers", "0", "--set", "task.dropout=0.125", code=1)


def _submitted(site: ClusterSite, planted: dict[str, str]) -> None:
    """Jobs that succeed and fail, after the files with secrets in them were refused."""
    words = ("train", "digits", "--set", "train.workers=2", "--set", "train.epochs=2")
    (site.root / "notes.toml").unlink()
    subprocess.run(["git", "checkout", "-q", "Makefile"], cwd=site.root, check=True)
    site.submit(*words, "--set", f"task.token={planted['argument']}", code=2)
    site.submit(*words)
    site.submit(*words, "--set", "task.dropout=0.125", code=1)
    jobs, _ = site.assay("jobs", "list", "--address", site.cluster.dashboard, "--json")
    assert len(jobs["jobs"]) == 2


def _places(site: ClusterSite) -> Iterator[tuple[str, bytes]]:
    """All that was written: the database, the objects, the project's state and results, each node's own files."""
    yield "Postgres", site.postgres.text("postgres").encode()
    for key, content in site.s3.objects().items():
        yield f"s3 {key}", content
    folders = [site.root / name for name in (".assay", "results", "data", "dvc.lock")]
    folders.append(site.cluster.folder)
    for name in site.cluster.nodes:
        pid = output("ip", "netns", "pids", name).split()[0]
        folders.append(Path(f"/proc/{pid}/root{site.cluster.folder}"))
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            if path.is_file() and not path.is_symlink():
                yield str(path), path.read_bytes()
