"""Which Prefect server this process talks to: a named one that answers, or its own for as long as it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from assay.errors import InputError, Unavailable
from assay.http import NoAnswer, ask, basic_login
from assay.log import Log
from assay.redaction import hide_login
from assay.state import PREFECT

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from assay.settings import Settings

SECONDS = 10.0
NO_SERVER = "no Prefect server: run `assay up`"


def prepare(settings: Settings) -> None:
    """Let Prefect keep its state in the project, and serve itself if no server is named.

    Call this before Prefect is imported, which reads the environment then.
    """
    from assay.program import start_program

    start_program()
    home = settings.state / PREFECT
    home.mkdir(parents=True, exist_ok=True)  # Prefect creates one level only
    defaults = {
        "ASSAY_PROJECT": str(settings.root),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextmanager
def serving(settings: Settings, who: str, log: Log) -> Iterator[None]:
    """A server for flows of this process: the named one, which must answer, else a private one for the block.

    Flows with a private server take turns from before its start: two such servers would share one SQLite file.
    """
    from pipelines.runtime.workspace import workspace

    prepare(settings)
    if named():
        require_server()
        yield
        return
    from pipelines.runtime.own_server import own_server

    with workspace(settings.root, who, log), own_server():
        yield


def named() -> bool:
    """Whether a server is named, in the environment or in Prefect's profile."""
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def require_server() -> None:
    """The named server must answer, know the password and be of this version of Prefect.

    Raises:
        Unavailable: nothing is named, or nothing answers.
        InputError: the password is wrong, or the server is of another version.
    """
    import prefect
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    address = PREFECT_API_URL.value()
    if not address:
        raise Unavailable(NO_SERVER)
    user, _, password = (PREFECT_API_AUTH_STRING.value() or "").partition(":")
    shown = hide_login(address)
    try:
        found = ask("GET", f"{address.rstrip('/')}/admin/version", basic_login(user, password), seconds=SECONDS)
    except NoAnswer as error:
        raise Unavailable(f"no Prefect server answers at {shown} ({error}): run `assay up`") from None
    if found.status == 401:
        raise InputError(
            f"PREFECT_API_AUTH_STRING: the Prefect server at {shown} refuses it; write it as user:password"
        )
    try:
        version = str(found.json())
    except ValueError:
        raise InputError(
            f"PREFECT_API_URL: what answers at {shown} is not a Prefect server; its address ends in /api"
        ) from None
    if found.status != 200:
        raise InputError(f"PREFECT_API_URL: {shown} answers {found.status}; its address ends in /api")
    if version.split(".")[:2] != prefect.__version__.split(".")[:2]:
        here = prefect.__version__
        raise InputError(f"the Prefect server at {shown} is version {version}, here is {here}: install the same")


@contextmanager
def connected() -> Iterator[SyncPrefectClient]:
    """A client of the named server."""
    from prefect.client.orchestration import get_client

    require_server()
    with get_client(sync_client=True) as client:
        yield client
