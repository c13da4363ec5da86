"""Connects to a tracking store: creates its schema once, and reports in one line what does not answer.

MLflow creates the schema on first use, and two processes that do so at once break each other. If the store is a
file, a lock next to it keeps them apart; if it is Postgres, a lock in the server does, on any number of machines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock

from assay.errors import AssayError, InputError, Unavailable, WorkError, causes
from assay.http import NoAnswer, ask
from assay.redaction import hide_login, hide_logins
from assay.services.moved import follow_move
from assay.services.stores import sqlite_file, store_error
from assay.settings import Settings
from assay.state import TRACKING_LOCK
from assay.system_errors import refusal, sqlite_failure

if TYPE_CHECKING:
    from mlflow import MlflowClient

SCHEMA_LOCK = 0x61737361  # any number that no other advisory lock uses
SECONDS = 10  # that a server may take to answer the first time
REFUSALS = ("password authentication failed", "does not exist", "no pg_hba.conf entry", "could not translate host")
"""What Postgres answers when waiting does not help."""
NOISE = (" [SQL: ", " (Background on this error", " Is the server running on that host")


def connect(settings: Settings) -> MlflowClient:
    """A client of the tracking store, which answers and has its schema.

    Raises:
        InputError: the address or the credentials are wrong.
        Unavailable: the store does not answer.
    """
    import logging

    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # an outage is reported once, in our words
    logging.getLogger("alembic").setLevel(logging.ERROR)
    settings.state.mkdir(exist_ok=True)
    with FileLock(settings.state / TRACKING_LOCK), _first_use(settings):
        try:
            follow_move(settings)
            client = mlflow.MlflowClient(settings.tracking)
            client.search_experiments(max_results=1)
            _require_same_version(settings)
        except AssayError:
            raise
        except Exception as error:
            line = f"the tracking store {hide_login(settings.tracking)} cannot be used: {one_line(error)}"
            raise translated(error, settings) or WorkError(line) from error
    return cast("MlflowClient", Client(client, settings))


def _require_same_version(settings: Settings) -> None:
    """Raise `InputError` if a server is of another version: its answers and its database would differ."""
    if not settings.tracking.startswith(("http://", "https://")):
        return
    import mlflow

    try:
        answer = ask("GET", f"{settings.tracking.rstrip('/')}/version")  # open to all, as /health is
    except NoAnswer:
        return
    there, here = answer.text.strip() if answer.status == 200 else "", mlflow.__version__
    if re.fullmatch(r"\d+\.\d+\S*", there) and there.split(".")[:2] != here.split(".")[:2]:
        raise InputError(
            f"the MLflow server {hide_login(settings.tracking)} is version {there}, here is {here}: install the same"
        )


class Client:
    """MLflow's client, whose failures to reach the tracking or the artifact store are `Unavailable`."""

    def __init__(self, client: MlflowClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        @wraps(found)
        def call(*arguments: Any, **named: Any) -> Any:
            try:
                return found(*arguments, **named)
            except Exception as error:
                failure = translated(error, self._settings)
                if failure is None:
                    raise
                raise failure from error

        return call


def translated(error: Exception, settings: Settings) -> AssayError | None:
    """What an error of MLflow's client means to the user; None if it is not about reaching a store."""
    from mlflow.exceptions import MlflowException

    if (database := sqlite_file(settings.tracking)) is not None:
        for link in causes(error, implied=True):
            if (failure := sqlite_failure(link, database)) is not None:
                return failure
    if (refused := refusal(error)) is not None:
        return refused
    store, line = f"the tracking store {hide_login(settings.tracking)}", one_line(error)
    chain = list(causes(error, implied=True))
    if any(_is(link, "botocore", "boto3", "s3transfer") for link in chain):
        if "(404)" in line or "NoSuchKey" in line:
            return None
        return Unavailable(f"the artifact store {hide_login(settings.artifacts)} does not answer: {line}")
    if any(_is(link, "sqlalchemy") and type(link).__name__ == "OperationalError" for link in chain):
        return Unavailable(f"{store} does not answer: {line}")
    if not isinstance(error, MlflowException):
        return None
    if found := re.search(r"[Rr]un '?(\w+)'? must be in the 'active' state", line):
        return InputError(deleted(found[1]))
    if "error code 401" in line or "error code 403" in line or error.error_code == "UNAUTHENTICATED":
        return InputError(f"{store} refuses: {line}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if any(_is(link, "requests", "urllib3") for link in chain) or line.startswith("API request to"):
        return Unavailable(f"{store} does not answer: {line}")
    if "out-of-date database schema" in line:
        return InputError(
            f"{store} was created by another version of MLflow: {line.partition('. ')[0]}; use one version everywhere"
        )
    return None


def deleted(run_id: str) -> str:
    """What to say of a run that somebody deleted in MLflow."""
    return f"run {run_id} was deleted in MLflow: restore it there, or train again"


def one_line(error: BaseException) -> str:
    """What went wrong, without the class of the error, the statement and its values, and without logins."""
    line = " ".join(str(error).split()) or type(error).__name__
    for noise in NOISE:
        line = line.partition(noise)[0]
    if line.startswith("(") and ") " in line:  # SQLAlchemy puts the driver's class first
        line = line.partition(") ")[2]
    return hide_logins(line)[:300]


@contextmanager
def _first_use(settings: Settings) -> Iterator[None]:
    """Find out quickly whether the store answers, and hold off others while its schema may be created."""
    uri = settings.tracking
    if uri.startswith(("http://", "https://")):
        _require_server(uri)
    if not uri.startswith("postgres"):
        yield
        return
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(
            uri, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": SECONDS}
        )
        connection = engine.connect()
    except ModuleNotFoundError as error:
        raise InputError(
            f"ASSAY_TRACKING_URI needs the package {error.name}: pip install -c constraints.txt 'assay[cluster]'"
        ) from None
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ValueError) as error:
        raise InputError(
            f"ASSAY_TRACKING_URI: {one_line(error)}; write postgresql+psycopg2://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        kind = InputError if any(words in str(error) for words in REFUSALS) else Unavailable
        raise kind(f"the tracking store {hide_login(uri)} does not answer: {one_line(error)}") from None
    with connection:  # closing it releases the lock, and so does the death of this process
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": SCHEMA_LOCK})
        yield


def _require_server(uri: str) -> None:
    """Raise `Unavailable` within seconds; MLflow's own client would try for minutes."""
    error = store_error(uri, SECONDS)
    if error is not None:
        raise Unavailable(f"the tracking store {hide_login(uri)} {error}")


def _is(error: BaseException, *packages: str) -> bool:
    return any(base.__module__.split(".")[0] in packages for base in type(error).__mro__)
