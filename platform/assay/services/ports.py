"""Where the services of a project listen: the usual ports, or four in a row that were chosen and are remembered."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from assay.errors import InputError
from assay.files import read_json, write_json
from assay.services.net import HOST, port_owner
from assay.state import PORTS

LABELS = {"mlflow": "MLflow", "prefect": "Prefect", "dashboard": "Ray's dashboard", "ray": "Ray"}


@dataclass(frozen=True)
class Ports:
    mlflow: int = 5000
    prefect: int = 4200
    dashboard: int = 8265
    ray: int = 6379


def addresses(ports: Ports) -> dict[str, str]:
    """The addresses that `Running` holds."""
    return {
        "mlflow": f"http://{HOST}:{ports.mlflow}",
        "prefect": f"http://{HOST}:{ports.prefect}/api",
        "ray": f"{HOST}:{ports.ray}",
        "dashboard": f"http://{HOST}:{ports.dashboard}",
    }


def block(first: int) -> Ports:
    """Four ports in a row."""
    return Ports(first, first + 1, first + 2, first + 3)


def chosen_ports(state: Path, first: int | None) -> Ports:
    """The ports from `first` on; the usual ones for 0, the last ones for None."""
    if first is None:
        return kept_ports(state)
    return block(first) if first else Ports()


def kept_ports(state: Path) -> Ports:
    """The last ones, else the usual ones."""
    file = state / PORTS
    if not file.exists():
        return Ports()
    try:
        return Ports(**{name: int(port) for name, port in read_json(file, "remove it").items()})
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{file}: must hold the ports mlflow, prefect, dashboard and ray; remove it") from None


def keep_ports(state: Path, ports: Ports) -> None:
    write_json(state / PORTS, asdict(ports))


def require_all_free(ports: Ports) -> None:
    """Raise `InputError` if any port is taken, naming which, who has it, and where four are free."""
    wanted = asdict(ports)
    taken = [
        f"port {port} ({LABELS[name]}) is taken by {who}" for name, port in wanted.items() if (who := port_owner(port))
    ]
    if taken:
        raise InputError(f"{'; '.join(taken)}. End that, or use `assay up --ports {_room()}`")


def _room() -> int:
    """The first of four free ports in a row."""
    return next(first for first in range(5100, 65500, 10) if not any(map(port_owner, asdict(block(first)).values())))
