"""MLflow's server: the project's runs and models, behind a password."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import InputError
from assay.files import write_atomic
from assay.http import basic_login, status_of
from assay.services.credentials import USER, Credentials
from assay.services.moved import follow_move
from assay.services.net import HOST
from assay.services.server import Service, child_environment
from assay.services.stores import sqlite_file
from assay.state import LOGS, MLFLOW_LOGIN_SETTINGS, MLFLOW_LOGINS

if TYPE_CHECKING:
    from assay.settings import Settings


def mlflow_service(settings: Settings, port: int, credentials: Credentials) -> Service:
    """MLflow's server on the project's own tracking store: loopback only, with authentication."""
    follow_move(settings)
    state = settings.state
    database = sqlite_file(settings.tracking)
    options = settings.tracking.partition("?")[1:]
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", HOST]
    command += ["--port", str(port), "--workers", "1", "--no-serve-artifacts"]
    own = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{database}{''.join(options)}" if database else settings.tracking,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": settings.artifacts,
        "MLFLOW_AUTH_CONFIG_PATH": str(_auth_config(state)),
        "MLFLOW_AUTH_ADMIN_USERNAME": credentials.user,
        "MLFLOW_AUTH_ADMIN_PASSWORD": credentials.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": credentials.secret_key,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # background jobs of language-model features: not used here
    }
    url = f"http://{HOST}:{port}"

    def healthy(_started: float) -> bool:
        return status_of(f"{url}/health") == 200

    log = state / LOGS / "mlflow.log"
    return Service("MLflow", command, child_environment(own), state, log, url, healthy)


def _auth_config(state: Path) -> Path:
    """Write MLflow's authentication settings: its database below `.assay/`; users added later may read, not write."""
    import configparser
    import io

    config = configparser.ConfigParser(interpolation=None)
    config["mlflow"] = {
        "default_permission": "READ",
        "database_uri": f"sqlite:///{state / MLFLOW_LOGINS}".replace("%", "%%"),
        "admin_username": USER,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "grant_default_workspace_access": "false",
    }
    text = io.StringIO()
    config.write(text)
    write_atomic(state / MLFLOW_LOGIN_SETTINGS, text.getvalue().encode())
    return state / MLFLOW_LOGIN_SETTINGS


def require_login(url: str, credentials: Credentials) -> None:
    """Raise `InputError` unless the password of the file works: MLflow keeps the one it was first started with."""
    route = f"{url}/api/2.0/mlflow/experiments/search?max_results=1"
    if status_of(route, basic_login(credentials.user, credentials.password), seconds=20) == 401:
        database = credentials.file.with_name(MLFLOW_LOGINS)
        raise InputError(
            f"{credentials.file}: its password is not the one that {database} was created with; restore the old file, "
            f"or remove {MLFLOW_LOGINS} (and with it the users you added) and start again"
        )
