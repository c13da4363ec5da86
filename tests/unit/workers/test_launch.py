"""Ray on this machine: it starts whatever the process did before."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import ray
from ray._raylet import get_authentication_mode

from assay.settings import Settings
from assay.workers.ray_session import ray_running

with ray_running(Settings(project={project!r}), lambda _: None):
    print(ray.get(ray.remote(lambda: 42).remote()), get_authentication_mode())
"""


def test_ray_starts_with_a_token_where_it_was_imported_without(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM.format(project=str(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "42 1"
