"""The services of a setup."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from assay.installed import flows_found
from assay.services.credentials import load_credentials
from assay.services.mlflow import mlflow_service
from assay.services.ports import Ports, addresses
from assay.services.prefect import prefect_service, worker_service
from assay.services.ray import OF_COMMANDS, ray_service
from assay.services.running import Running, variables
from assay.services.server import Service
from assay.state import CREDENTIALS

if TYPE_CHECKING:
    from assay.settings import Settings


def services(settings: Settings, ports: Ports) -> list[Service]:
    """MLflow, Prefect, its worker if the flows are installed, and Ray, each with the addresses of the others."""
    state = settings.state
    credentials = load_credentials(state / CREDENTIALS)
    found = Running(**addresses(ports))
    parts = [mlflow_service(settings, ports.mlflow, credentials), prefect_service(state, ports.prefect, credentials)]
    if flows_found(settings.root):
        own = variables(found, state, os.environ)
        parts.append(worker_service(state, found.prefect, credentials, own))
    environment = {name: value for name, value in os.environ.items() if name not in OF_COMMANDS}
    own = {"ASSAY_STORAGE": settings.storage or str(settings.runs), **variables(found, state, environment)}
    parts.append(ray_service(state, ports.ray, ports.dashboard, own))
    return parts
