"""`python -m assay.services.supervisor PROJECT`: starts the services, restarts what dies, ends all of it on SIGTERM.

As long as it lives it holds `services.lock`. It reports in `services.json`: addresses and states.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from assay.errors import AssayError, WorkError
from assay.files import write_json
from assay.program import start_program
from assay.services.parts import services
from assay.services.ports import Ports, addresses, kept_ports
from assay.services.processes import end_workloads
from assay.services.running import read_status
from assay.services.server import START_SECONDS, Server, Service, limit_log, stop_signals
from assay.settings import Settings
from assay.state import SERVICES_LOCK, SERVICES_STATUS, SUPERVISOR_LOG

LONGEST_WAIT = 30.0
STEADY_SECONDS = 60.0  # after which an earlier death no longer counts
_TICK = 0.25


class Part:
    """One service: started when it may be, restarted when it dies, after a longer wait each time."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.server: Server | None = None
        self.state = "waiting"
        self.deaths = 0
        self.due = self.since = time.monotonic()
        self.reason = ""

    def step(self, healthy: set[str]) -> None:
        now = time.monotonic()
        if self.server is None:
            if now >= self.due and (not self.service.after or self.service.after in healthy):
                self.server, self.state, self.since = Server(self.service), "starting", now
        elif (code := self.server.process.poll()) is not None:
            self._lost(f"ended by itself (exit code {code})")
        elif self.state == "starting":
            self._check_health(now)
        elif now - self.since > STEADY_SECONDS:
            self.deaths = 0
        limit_log(self.service.log)

    def _check_health(self, now: float) -> None:
        assert self.server is not None
        if self.service.healthy(self.server.started):
            self.state = "healthy"
            self._log(f"healthy after {now - self.since:.1f} s")
        elif now - self.since > START_SECONDS:
            self._lost(f"did not answer within {START_SECONDS:.0f} s")

    def _lost(self, what: str) -> None:
        assert self.server is not None
        self.reason = f"{self.service.name} {what}{self.server.last_lines()}"
        self.server.end()
        wait = min(2.0**self.deaths, LONGEST_WAIT)
        self.server, self.state, self.due = None, "dead", time.monotonic() + wait
        self.deaths += 1
        self._log(f"{what}; restarting in {wait:.0f} s")

    def _log(self, what: str) -> None:
        sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {self.service.name}: {what}\n")
        sys.stdout.flush()


class Supervisor:
    """All services of a project."""

    def __init__(self, settings: Settings, ports: Ports) -> None:
        self.settings = settings
        self.addresses = addresses(ports)
        self.parts = [Part(service) for service in services(settings, ports)]
        self.ready = False
        self.written = ""

    def run(self) -> None:
        """Run until a signal. The first start is all or nothing; later, what dies is restarted.

        Raises:
            WorkError: a service could not be started; nothing is left running.
        """
        with stop_signals() as stop:
            try:
                while not stop.asked:
                    self.step()
                    failed = next((part.reason for part in self.parts if part.deaths), "")
                    if failed and not self.ready:
                        raise WorkError(failed)
                    time.sleep(_TICK)
            finally:
                self.end()

    def step(self) -> None:
        healthy = {part.service.name for part in self.parts if part.state == "healthy"}
        for part in self.parts:
            part.step(healthy)
        self.ready = self.ready or all(part.state == "healthy" for part in self.parts)
        self.write()
        limit_log(self.settings.state / SUPERVISOR_LOG)

    def write(self, **more: Any) -> None:
        status = {
            "ready": self.ready,
            "addresses": self.addresses,
            "services": {part.service.name: part.state for part in self.parts},
            **more,
        }
        write_status(self.settings.state, status)

    def end(self) -> None:
        """End flow runs and jobs first, while they can still report; then the services."""
        for part in self.parts:
            if part.service.after and part.server:  # the worker: it must not begin anything new
                part.server.send(signal.SIGSTOP)
        end_workloads(self.settings.root, lambda line: self.write(ending=line))
        self.write(ending="ending the services")
        for after in (True, False):  # the worker first: it reports to Prefect's server
            ending = [part.server for part in self.parts if part.server and bool(part.service.after) == after]
            for server in ending:
                server.send(signal.SIGTERM)
                server.send(signal.SIGCONT)
            for server in ending:
                server.end()


def write_status(state: Path, status: dict[str, Any]) -> None:
    """Replace the status file if its content changes."""
    if not (state / SERVICES_STATUS).exists() or read_status(state) != status:
        write_json(state / SERVICES_STATUS, status)


def _lock(state: Path) -> int | None:
    """Hold the lock until this process ends; None if another supervisor does. Checks hold it for a moment."""
    handle = os.open(state / SERVICES_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(20):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        else:
            return handle
    return None


def main() -> None:
    os.umask(0o077)
    start_program()
    settings = Settings(project=Path(sys.argv[1]))
    if _lock(settings.state) is None:
        sys.exit("another supervisor lives")
    write_status(settings.state, {})
    try:
        Supervisor(settings, kept_ports(settings.state)).run()
    except AssayError as error:
        write_status(settings.state, {"failed": str(error)})
        sys.exit(error.exit_code)
    (settings.state / SERVICES_STATUS).unlink()


if __name__ == "__main__":
    main()
