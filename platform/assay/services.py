"""Servers of a project on this machine: their port, their credentials, and how they start, answer and end.

A server runs in a session of its own, so that all of it ends together. It is asked to end when this process
dies, whatever kills it (Linux), and its secrets travel in the environment, never on a command line.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from assay.errors import InputError, WorkError

if TYPE_CHECKING:
    import psutil

    from assay.settings import Settings

HOST = "127.0.0.1"
USER = "assay"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
_POLL = 0.2


@dataclass(frozen=True)
class Credentials:
    """Who may enter, and where that is kept. The secrets never show in a representation."""

    file: Path
    user: str
    password: str = field(repr=False)
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class Service:
    """A server that can be started: how, where it answers, and where it writes what it says."""

    name: str
    command: list[str]
    env: Mapping[str, str] = field(repr=False)
    folder: Path
    log: Path
    url: str
    health: str


def port_owner(port: int) -> str | None:
    """Who listens on a port of this machine, as far as it may be known; None if it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return "the system (ports below 1024 are reserved)"
        except OSError:
            return _listener(port)
    return None


def _listener(port: int) -> str:
    try:
        import psutil

        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except Exception:  # noqa: S110 - a missing psutil, a vanished process or no permission: the name stays unknown
        pass
    return "another process"


def require_free(port: int) -> None:
    """Raise `InputError` if a port is taken: by whom, and which one is free."""
    owner = port_owner(port)
    if owner is not None:
        free = next((p for p in range(max(port, 1023) + 1, 65536) if port_owner(p) is None), None)
        mend = f"use --port {free}" if free else "use a lower --port"
        raise InputError(f"port {port} is taken by {owner}; {mend}, or end that process")


def load_credentials(file: Path) -> Credentials:
    """The credentials kept in `file`, generated on first use; the file is readable by its owner alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = {"user": USER, "password": secrets.token_urlsafe(24), "secret_key": secrets.token_urlsafe(32)}
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_credentials(file)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(new, stream, indent=2)
    return Credentials(file, **new)


def _read_credentials(file: Path) -> Credentials:
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{file}: must be a plain file; remove it, and new credentials are made")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise InputError(f"{file}: others may read it (mode {stat.S_IMODE(status.st_mode):o}); run `chmod 600 {file}`")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        values = {name: data[name] for name in ("user", "password", "secret_key")}
    except (ValueError, KeyError, TypeError):
        values = {}
    if not values or not all(isinstance(value, str) and value for value in values.values()):
        raise InputError(
            f"{file}: must hold user, password and secret_key; repair it, or remove it and auth.db beside it"
        )
    return Credentials(file, **values)


def without_password(url: str) -> str:
    """An address that may be shown: no user, no password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def sqlite_file(uri: str) -> Path | None:
    """The database file of an `sqlite:///` address, absolute; None for every other store."""
    found = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", uri)
    return Path(found[1]).absolute() if found else None


def mlflow_service(settings: Settings, port: int, credentials: Credentials) -> Service:
    """MLflow's server on the project's own tracking store: loopback only, with authentication."""
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
    log = state / "logs" / "mlflow-ui.log"
    return Service("MLflow", command, child_environment(own), state, log, url, f"{url}/health")


def child_environment(own: Mapping[str, str]) -> dict[str, str]:
    """This environment for a server: silent, unbuffered, and with the interpreter's programs found first."""
    from assay.settings import SILENCE

    bin_folder = str(Path(sys.executable).parent)
    path = os.pathsep.join(filter(None, (bin_folder, os.environ.get("PATH"))))
    return {**os.environ, **SILENCE, "PATH": path, "PYTHONUNBUFFERED": "1", **own}


def _auth_config(state: Path) -> Path:
    """Write MLflow's authentication settings: its database below `.assay/`; users added later may read, not write."""
    import configparser

    config = configparser.ConfigParser(interpolation=None)
    config["mlflow"] = {
        "default_permission": "READ",
        "database_uri": f"sqlite:///{state / 'auth.db'}".replace("%", "%%"),
        "admin_username": USER,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "grant_default_workspace_access": "false",
    }
    file = state / "mlflow-auth.ini"
    partial = file.with_suffix(f".{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        config.write(stream)
    partial.replace(file)
    return file


class Stop:
    """Whether the user asked to stop. Signals only set it, so that no code is torn apart in the middle."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, *_: object) -> None:
        self.asked = True


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Ctrl-C, SIGTERM and a closed terminal set the `Stop` while this lasts; `nohup` keeps its meaning."""
    stop = Stop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Server:
    """A started service. Use it as a context manager: at the end nothing of it is left."""

    def __init__(self, service: Service) -> None:
        self.service = service
        service.log.parent.mkdir(parents=True, exist_ok=True)
        if service.log.exists():
            service.log.replace(service.log.with_suffix(".previous.log"))
        handle = os.open(service.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.process = subprocess.Popen(
                service.command,
                cwd=service.folder,
                env=dict(service.env),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                start_new_session=True,
                umask=0o077,
                preexec_fn=_end_with_parent(),
            )
        finally:
            os.close(handle)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def wait_healthy(self, stop: Stop, say: Callable[[str], None], seconds: float = START_SECONDS) -> bool:
        """Wait until the server answers; False if the user asked to stop first.

        Raises:
            WorkError: it ended, or stayed silent for too long; with the last lines of its log.
        """
        name, started, told = self.service.name, time.monotonic(), 0
        say(f"starting {name} (up to {seconds:.0f} s) ...")
        while not stop.asked:
            waited = time.monotonic() - started
            self.require_alive()
            if http_status(self.service.health) == 200:
                return True
            if waited > seconds:
                raise WorkError(f"{name} did not answer within {seconds:.0f} s{self._last_lines()}")
            if waited // 10 > told:
                told = int(waited // 10)
                say(f"starting {name}: {waited:.0f} s")
            time.sleep(_POLL)
        return False

    def wait_stop(self, stop: Stop) -> None:
        """Stay until the user asks to stop. Raises `WorkError` if the server ends by itself."""
        while not stop.asked:
            self.require_alive()
            time.sleep(_POLL)

    def require_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise WorkError(f"{self.service.name} ended by itself (exit code {code}){self._last_lines()}")

    def end(self, seconds: float = STOP_SECONDS) -> None:
        """Ask all of the server to end, and end by force what has not after a while."""
        family = self._family()
        self._signal(signal.SIGTERM)
        limit = time.monotonic() + seconds
        while (self.process.poll() is None or any(map(_alive, family))) and time.monotonic() < limit:
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        for member in filter(_alive, family):
            with suppress(Exception):
                member.kill()
        self.process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def _family(self) -> list[psutil.Process]:
        """The children and theirs, also those that left the server's session."""
        import psutil

        with suppress(psutil.Error):
            return list(psutil.Process(self.process.pid).children(recursive=True))
        return []

    def _last_lines(self, count: int = 15) -> str:
        lines = self.service.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
        return "; the end of its log, {}:\n{}".format(self.service.log, "\n".join(lines) or "(empty)")


def _alive(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _end_with_parent() -> Callable[[], None] | None:
    """What a child runs first: on Linux it asks the kernel for SIGTERM when this process dies, even by SIGKILL."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl  # found before the fork; after it nothing may be loaded

    def ask() -> None:
        prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG

    return ask


def http_status(url: str, user: str = "", password: str = "", seconds: float = 3.0) -> int | None:  # noqa: S107
    """The status of a GET, None if nothing answers. Asks directly, past any proxy."""
    import base64
    import http.client
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url)  # noqa: S310 - addresses come from the settings
    if user:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException, ValueError):
        return None


def store_error(uri: str, seconds: float) -> str | None:
    """What keeps a tracking store from being used, None if nothing; a database that is not there yet is fine."""
    database = sqlite_file(uri)
    if database is not None:
        return _database_error(database, seconds)
    if not uri.startswith(("http://", "https://")):
        return None if _listens(uri, seconds) else "does not answer"
    status = http_status(uri.rstrip("/") + "/health", seconds=seconds)
    if status is None:
        return "does not answer"
    return f"answers with HTTP {status}" if status >= 500 else None


def _database_error(file: Path, seconds: float) -> str | None:
    import sqlite3
    from contextlib import closing

    folder = next((path for path in file.parents if path.exists()), file.parent)
    if not os.access(folder, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
        return "not writable"
    if not file.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=seconds)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return f"not readable as a database: {error}"
    return None


def _listens(uri: str, seconds: float) -> bool:
    """Whether the server of a database address takes connections."""
    ports = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
    with suppress(OSError, ValueError):
        parts = urlsplit(uri)
        port = parts.port or ports.get(parts.scheme.split("+")[0])
        if parts.hostname and port:
            with socket.create_connection((parts.hostname, port), timeout=seconds):
                return True
    return False
