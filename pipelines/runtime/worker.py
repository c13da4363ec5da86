"""`python -m pipelines worker`: Prefect's process worker on the pool `assay`, together with the reaper.

A worker that gets SIGTERM lets its flows save and end first. One that is killed leaves them running: each has its own
process and log, and the next worker's reaper finds them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.workers.process import ProcessWorker

from assay.log import Log
from assay.services.prefect import POOL
from assay.signals import STOPPING
from pipelines.runtime.flow_processes import registered_processes
from pipelines.runtime.reaper import Reaper
from pipelines.runtime.server import require_server
from pipelines.runtime.zombies import ensure_automation

if TYPE_CHECKING:
    from assay.settings import Settings

REAP_SECONDS = 2.0
END_SECONDS = 35.0
"""How long running flows may take to save and end when the worker ends: a little more than their stages may take."""


def work(settings: Settings, log: Log) -> None:
    """Serve the pool until one of `STOPPING`.

    Raises:
        Unavailable: there is no server.
    """
    require_server()
    asyncio.run(_serve(settings, log))


async def _serve(settings: Settings, log: Log) -> None:
    await ensure_pool()
    await ensure_automation()
    worker = ProcessWorker(work_pool_name=POOL, name=f"{POOL}-{socket.gethostname()}", create_pool_if_not_found=False)
    serve = asyncio.ensure_future(_gated(worker, log))
    reaping = threading.Event()
    reaper = threading.Thread(target=_reap, args=(settings, reaping, log), name="reaper", daemon=True)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unless_cancelled)
    asked = asyncio.Event()
    for number in STOPPING:
        loop.add_signal_handler(number, asked.set)
    reaper.start()
    ending = asyncio.ensure_future(asked.wait())
    await asyncio.wait({serve, ending}, return_when=asyncio.FIRST_COMPLETED)
    if not serve.done():
        await _end_flows(settings, worker, log)
        serve.cancel()
    ending.cancel()
    reaping.set()
    try:
        await serve
    except asyncio.CancelledError:
        log("the worker has ended")


def _unless_cancelled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Prefect's watchers are cancelled when their flow ends, and one of them takes that for an error."""
    if not isinstance(context.get("exception"), asyncio.CancelledError):
        loop.default_exception_handler(context)


async def _gated(worker: ProcessWorker, log: Log) -> None:
    """The worker's own loop, which takes no new run once `worker.ending` is set."""
    worker.ending = False  # type: ignore[attr-defined]
    take = worker.get_and_submit_flow_runs

    async def gated() -> list[Any]:
        return [] if worker.ending else await take()  # type: ignore[attr-defined]

    worker.get_and_submit_flow_runs = gated  # type: ignore[method-assign]
    await worker.start(printer=log)


async def _end_flows(settings: Settings, worker: ProcessWorker, log: Log) -> None:
    """Ask the flows that this worker started to save and end, and wait for them."""
    import psutil

    worker.ending = True  # type: ignore[attr-defined]
    here = os.getpid()
    mine = [one for one in registered_processes(settings.root) if one.alive and psutil.Process(one.pid).ppid() == here]
    if mine:
        log(f"stopping {len(mine)} running flow{'s' if len(mine) > 1 else ''}: they save, and continue when run again")
    for one in mine:
        os.kill(one.pid, signal.SIGTERM)
    limit = asyncio.get_running_loop().time() + END_SECONDS
    while any(one.alive for one in mine) and asyncio.get_running_loop().time() < limit:
        await asyncio.sleep(0.2)
    await asyncio.sleep(0.5 if mine else 0)  # the worker reports how they ended


def _reap(settings: Settings, over: threading.Event, log: Log) -> None:
    """Reap again and again; a server that does not answer is logged once, and waited for."""
    logged = False
    impatient = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})  # the next cycle is the next try
    with impatient, get_client(sync_client=True) as client:
        reaper = Reaper(settings, client, log)
        while not over.is_set():
            try:
                reaper.cycle()
                logged = False
            except Exception as error:  # whatever the client raises while the server is away
                if not logged:
                    log(f"the Prefect server does not answer ({type(error).__name__}); trying again")
                logged = True
            over.wait(REAP_SECONDS)


async def ensure_pool() -> None:
    """Create the pool, with room for one run at a time, unless it exists; then it keeps its users' settings."""
    async with get_client() as client:
        try:
            await client.read_work_pool(POOL)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            pool = WorkPoolCreate(name=POOL, type="process", base_job_template=template, concurrency_limit=1)
            try:
                await client.create_work_pool(pool)
            except ObjectAlreadyExists:  # another worker was first
                return
