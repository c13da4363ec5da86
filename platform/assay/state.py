"""The files and folders below `.assay/`, a project's local state, named once. Git ignores all of it."""

from __future__ import annotations

import os
from pathlib import Path

from assay.errors import InputError

STATE = ".assay"

PACKAGE = "assay-package.json"
"""The file in a job's package that identifies its code, in place of git."""

HASHES = "hashes.json"
"""Hashes of data files, with the size and time for which they hold."""
DATASETS = "datasets"
"""The dataset versions that are in use, one folder each, by their hash."""
ADD_LOCK = "add.lock"
"""Held while raw data are added."""

SCRATCH = "tmp"
"""Files of commands that are at work, which `scratch.py` clears; one folder each."""

TRACKING_DATABASE = "mlflow.db"
"""Runs and models, unless a tracking store is named."""
TRACKING_LOCK = "mlflow.lock"
"""Held while the schema of the tracking store may be created."""
KNOWN_STORES = "stores.json"
"""The tracking stores that have runs of this project, with one of each."""
ARTIFACTS = "artifacts"
"""The files of runs and models, unless another place is named."""
RUNS = "runs"
"""One folder a run; `train/folder.py` names what is in it."""

RAY = "ray"
"""Of the Ray that a command starts for itself."""

CREDENTIALS = "credentials.json"
"""User and passwords of the services. Mode 0600."""
RAY_TOKEN = "ray-token"  # noqa: S105 - the name of a file
"""The token of the services' Ray. Mode 0600."""
SERVICES_RAY = "up/ray"
"""Of the Ray that `assay up` starts."""
MLFLOW_LOGINS = "auth.db"
"""MLflow's users."""
MLFLOW_LOGIN_SETTINGS = "mlflow-auth.ini"
PORTS = "ports.json"
"""Where the services listened last."""
UP_LOCK = "up.lock"
"""Held by the one `assay up` or `assay down` that is at work."""
SERVICES_LOCK = "services.lock"
"""Held by the supervisor for as long as it lives."""
SERVICES_STATUS = "services.json"
"""What the supervisor reports: addresses and states, no secret."""
LOGS = "logs"
"""One log for each service; the supervisor's own is `SUPERVISOR_LOG`."""
SUPERVISOR_LOG = f"{LOGS}/services.log"

PREFECT = "prefect"
"""Prefect's own state."""
FLOW_PROCESSES = "flows"
"""One file for each process that runs a flow."""
FLOW_LOGS = f"{LOGS}/flows"
"""One log for each flow run that the worker starts."""
WORKSPACE_LOCK = "workspace.lock"
"""Held by the one flow that works in the checkout."""


def find_project() -> Path:
    """The project's root: ASSAY_PROJECT, else the folder with `params.yaml`, here or above.

    Raises:
        InputError: there is no such folder.
    """
    if named := os.environ.get("ASSAY_PROJECT"):
        return Path(named).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise InputError(f"{here}: no params.yaml here or above; run this inside an Assay project")


def state_folder(root: Path) -> Path:
    """The local state of the project at `root`."""
    return root / STATE
