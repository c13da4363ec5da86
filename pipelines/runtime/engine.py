"""The process of one flow run of the worker's. It imports little, so that it is registered at once."""

from __future__ import annotations

import os
import runpy
import sys
from typing import TYPE_CHECKING

from assay.program import start_program
from assay.state import FLOW_LOGS
from pipelines.runtime.flow_processes import register_process

if TYPE_CHECKING:
    from assay.settings import Settings


def run_engine(settings: Settings) -> None:
    """Become the process of the flow run that the worker names, with its own session and log.

    So it does not depend on the worker that started it.
    """
    flow_run = os.environ["PREFECT__FLOW_RUN_ID"]
    log = settings.state / FLOW_LOGS / f"{flow_run}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    os.setsid()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    register_process(settings.root, flow_run)
    os.chdir(settings.root)
    start_program()
    sys.argv = ["prefect.engine"]  # it takes the flow run from the environment
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
