"""A Ray cluster on one machine: a head and worker nodes, each with its own address and its own temporary files.

Each worker node is a network namespace on a bridge, and a mount namespace in which its temporary folders are its own.
It needs root, and `ip` of iproute2. Token authentication is on.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.servers import free_port

BIN = Path(sys.executable).parent
START_SECONDS = 60.0


def can_make_nodes() -> bool:
    """Whether this machine lets us make network namespaces."""
    if os.geteuid() or shutil.which("ip") is None:
        return False
    name = f"probe{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return made


@dataclass(frozen=True)
class Network:
    """A bridge on this machine. `prefix`: the first three numbers; the head, and the servers beside it, have .1."""

    prefix: str

    @property
    def host(self) -> str:
        return f"{self.prefix}.1"

    @property
    def bridge(self) -> str:
        return f"br{self.prefix.split('.')[2]}"


@contextmanager
def network() -> Iterator[Network]:
    """A new bridge, with addresses that nobody here uses."""
    used = output("ip", "-o", "addr")
    made = next(Network(name) for n in range(40, 250) if (name := f"10.213.{n}") not in used)
    run("ip", "link", "add", made.bridge, "type", "bridge")
    try:
        run("ip", "addr", "add", f"{made.host}/24", "dev", made.bridge)
        run("ip", "link", "set", made.bridge, "up")
        yield made
    finally:
        run("ip", "link", "del", made.bridge)


@dataclass
class Cluster:
    """The head and its workers. `environment` is what every node has: addresses, keys.

    Attributes:
        token: without which nobody may enter.
    """

    folder: Path
    environment: Mapping[str, str]
    network: Network
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    port: int = field(default_factory=lambda: free_port("0.0.0.0"))  # where Ray listens, whatever it is told
    dashboard_port: int = field(default_factory=lambda: free_port("0.0.0.0"))
    nodes: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def host(self) -> str:
        return self.network.host

    @property
    def bridge(self) -> str:
        return self.network.bridge

    @property
    def address(self) -> str:
        """Of the head, for drivers."""
        return f"{self.host}:{self.port}"

    @property
    def dashboard(self) -> str:
        """Of the job server, for submitters."""
        return f"http://{self.host}:{self.dashboard_port}"

    @property
    def access(self) -> dict[str, str]:
        """What somebody needs who may use the cluster."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def start_head(self, cpus: int = 0) -> None:
        command = ["--head", f"--port={self.port}", f"--dashboard-host={self.host}"]
        more = ("ray-client-server-port", "dashboard-agent-listen-port")  # else fixed, and another Ray may have them
        command += [f"--dashboard-port={self.dashboard_port}", *(f"--{name}={free_port(self.host)}" for name in more)]
        command += ["--include-dashboard=true", f"--temp-dir={self.folder / 'r'}"]
        self._start("head", [], [*command, f"--node-ip-address={self.host}"], cpus, self.bridge)
        self.wait(lambda: self._answers(), "head")

    def add(self, cpus: int = 1) -> str:
        """Start another worker node; returns its name."""
        number = len(self.nodes) + 2
        name, address = f"{self.bridge}n{number}", f"{self.network.prefix}.{number}"
        self.nodes[name] = address
        run("ip", "netns", "add", name)
        run("ip", "link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", f"v{name}", "master", self.bridge, "up")
        inside = ["ip", "netns", "exec", name]
        run(*inside, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
        run(*inside, "ip", "link", "set", "eth0", "up")
        run(*inside, "ip", "link", "set", "lo", "up")
        own = " && ".join(f"mount -t tmpfs none {self.folder / kind}" for kind in ("r", "t"))
        enter = [*inside, "sh", "-c", f'{own} && exec "$@"', "sh"]
        self._start(name, enter, [f"--address={self.address}", f"--node-ip-address={address}"], cpus, "eth0")
        self.wait(lambda: address in self.alive(), name)
        return name

    def kill(self, name: str) -> None:
        """A power cut of a node."""
        for pid in output("ip", "netns", "pids", name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def trains(self, name: str) -> bool:
        """Whether a worker of a training runs on a node."""
        import psutil

        pids = [int(pid) for pid in output("ip", "netns", "pids", name).split()]
        return any("RayTrainWo" in psutil.Process(pid).name() for pid in pids if psutil.pid_exists(pid))

    def cut(self, name: str, off: bool = True) -> None:
        """Take a node off the network, or bring it back."""
        run("ip", "link", "set", f"v{name}", "down" if off else "up")

    def alive(self) -> list[str]:
        """The addresses of the nodes that the head believes alive."""
        script = "import ray; ray.init('auto', log_to_driver=False, logging_level='ERROR'); "
        script += "print(*[n['NodeManagerAddress'] for n in ray.nodes() if n['Alive']])"
        done = subprocess.run(
            [sys.executable, "-c", script], env={**self._env("head"), "RAY_ADDRESS": self.address},
            capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.split()

    def stop(self) -> None:
        for name in self.nodes:
            self.kill(name)
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in self.nodes:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def wait(self, condition: Any, what: str, seconds: float = START_SECONDS) -> None:
        limit = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < limit, f"{what}: {(self.folder / f'{what}.log').read_text()[-2000:]}"
            time.sleep(0.3)

    def _answers(self) -> bool:
        from assay.http import status_of

        return status_of(f"{self.dashboard}/api/version") is not None

    def _start(self, name: str, enter: list[str], options: list[str], cpus: int, interface: str) -> None:
        for kind in ("r", "t"):
            (self.folder / kind).mkdir(exist_ok=True)
        memory = "--object-store-memory=100000000"
        command = [*enter, str(BIN / "ray"), "start", "--block", "--disable-usage-stats", f"--num-cpus={cpus}"]
        environment = {**self._env(name), "GLOO_SOCKET_IFNAME": interface}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.started.append(
                subprocess.Popen(
                    [*command, memory, *options], env=environment, stdout=log, stderr=log, start_new_session=True
                )
            )

    def _env(self, name: str) -> dict[str, str]:
        from assay.workers.ray_environment import RAY_ENVIRONMENT

        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ASSAY_", "MLFLOW_", "RAY_", "AWS_"))}
        own = {"TMPDIR": str(self.folder / "t"), "ASSAY_DATA_CACHE": str(self.folder / "t" / f"data-{name}")}
        path = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONSAFEPATH": "1"}
        return {**inherited, **RAY_ENVIRONMENT, **self.environment, **self.access, **own, **path}


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def running_cluster(environment: Mapping[str, str], network: Network, workers: int, cpus: int = 1) -> Iterator[Cluster]:
    """A head without slots and so many nodes with `cpus` each."""
    with tempfile.TemporaryDirectory(prefix="ac-") as name:  # short, for the names of Ray's sockets
        cluster = Cluster(Path(name), environment, network)
        try:
            cluster.start_head()
            for _ in range(workers):
                cluster.add(cpus)
            yield cluster
        finally:
            cluster.stop()
