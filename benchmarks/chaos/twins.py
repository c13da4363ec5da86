"""Two clones, two users, two machines (namespaces) on one MLflow and one bucket: the same experiment at one moment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.chaos.tools.project import copied, say, template
from benchmarks.chaos.tools.servers import object_storage, tracking_server
from benchmarks.common import environment, figure, run

NAME = "digits-0"
USERS = (12001, 12002)
"""Ids that nobody has here."""
MACHINE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc")


def main(times: str = "20") -> None:
    if os.geteuid() or shutil.which("unshare") is None:
        figure("chaos twins", skipped="only root can make namespaces")
        return
    outcomes: Counter[str] = Counter()
    faults: list[Any] = []
    with template(["digits"]) as project, tracking_server(project) as mlflow, object_storage(project) as s3:
        variables = {**s3.variables, "ASSAY_TRACKING_URI": mlflow.variables["ASSAY_TRACKING_URI"]}
        with copied(project, "one") as one, copied(project, "two") as two:
            for copy, user in zip((one, two), USERS, strict=True):
                _give(copy, user)
            for number in range(int(times)):
                said = _at_once((one, two), number, variables)
                statuses = _statuses(project, number)
                outcomes.update(str(code) for code, _ in said)
                if statuses != {"FINISHED": 1} or "Traceback" in "".join(text for _, text in said):
                    faults.append({"at": number, "runs": dict(statuses), "said": [text[-300:] for _, text in said]})
                say("twins", number + 1, int(times), faults)
    figure("chaos twins", times=int(times), exit_codes=dict(outcomes), faults=len(faults), first=faults[:5])


def _give(copy: Path, user: int) -> None:
    """A clone of its own for a user, who has no store of his own."""
    shutil.rmtree(copy / ".assay")
    run(copy, "chown", "-R", str(user), str(copy))
    for parent in copy.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)


def _at_once(copies: tuple[Path, ...], number: int, variables: dict[str, str]) -> list[tuple[int, str]]:
    """Train the same on both machines; exit codes, and what they said."""
    words = [sys.executable, "-m", "assay", "train", NAME, "--set", f"seed={number}", "--set", "train.epochs=2"]
    children, python = [], _python_for_all()
    for copy, user in zip(copies, USERS, strict=True):
        machine = [*MACHINE, "sh", "-c", python, "-"]
        own = {**environment(copy), **variables, "HOME": str(copy), "TMPDIR": str(copy / ".assay")}
        command = [*machine, "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words]
        (copy / ".assay").mkdir(exist_ok=True)
        os.chown(copy / ".assay", user, user)
        children.append(
            subprocess.Popen(command, cwd=copy, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    said = [child.communicate(timeout=300)[0] for child in children]
    return [(child.returncode, text) for child, text in zip(children, said, strict=True)]


def _python_for_all() -> str:
    """A script that runs its arguments where everybody reaches this Python, even if a home of root's holds it."""
    base = Path(sys.base_prefix)
    closed = next((folder for folder in reversed(base.parents) if not folder.stat().st_mode & 0o001), None)
    if closed is None:
        return 'exec "$@"'
    return (
        f"set -e; aside=$(mktemp -d); mount --bind {base} $aside; mount -t tmpfs -o mode=755 none {closed}; "
        f'mkdir -p {base}; mount --bind $aside {base}; umount $aside; rmdir $aside; exec "$@"'
    )


def _statuses(project: Path, number: int) -> Counter[str]:
    """Of the runs with this seed."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(project / ".assay/mlflow.db", timeout=60)) as store:
        rows = store.execute(
            "SELECT r.status FROM runs r JOIN params p ON p.run_uuid = r.run_uuid "
            "WHERE p.key = 'seed' AND p.value = ? AND r.lifecycle_stage = 'active'", (str(number),),
        )  # fmt: skip
        return Counter(status for (status,) in rows)
