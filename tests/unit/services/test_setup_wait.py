"""What `assay up` takes for healthy: what the supervisor says, and what each service answers."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from assay.errors import Unavailable
from assay.services import setup
from assay.services.server import Stop
from assay.services.supervisor import write_status


@dataclass
class Answering:
    """A service that answers as told; the last answer stays."""

    answers: list[bool]
    name: str = "mlflow"
    log: Path = Path("mlflow.log")
    asked: list[float] = field(default_factory=list)

    def healthy(self, since: float) -> bool:
        self.asked.append(since)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def supervisor() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def waited(state: Path, supervisor: subprocess.Popen[bytes], service: Any) -> bool:
    return setup._wait(state, supervisor, [service], Stop(), lambda _: None)


def test_a_service_that_has_just_died_is_waited_for(tmp_path: Path, supervisor: subprocess.Popen[bytes]) -> None:
    write_status(tmp_path, {"ready": True, "services": {"mlflow": "healthy"}})
    service = Answering([False, False, True])
    assert waited(tmp_path, supervisor, service)
    assert len(service.asked) == 3


def test_a_service_that_runs_and_is_silent_is_named(
    tmp_path: Path, supervisor: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "_SILENT_SECONDS", 0.5)
    write_status(tmp_path, {"ready": True, "services": {"mlflow": "healthy"}})
    with pytest.raises(Unavailable, match=r"^mlflow: runs, and does not answer; `assay down`, then `assay up`; see"):
        waited(tmp_path, supervisor, Answering([False]))
