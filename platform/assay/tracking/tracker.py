"""All use of MLflow's tracking API, with explicit run ids only: no active run, no autologging."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from assay.errors import InputError, Unavailable, WorkError, known
from assay.files import parse_json
from assay.redaction import hide_login, redact, redact_known
from assay.scratch import scratch_folder
from assay.services.stores import sqlite_file
from assay.settings import Settings
from assay.system_errors import refusal, require_room
from assay.tracking import artifacts
from assay.tracking.curves import curves_table, draw_curves, read_curves
from assay.tracking.paging import pages
from assay.tracking.provenance import PREFIX, Provenance
from assay.tracking.reach import connect, deleted, one_line
from assay.tracking.run import Run, plain_run
from assay.tracking.tickets import Tickets

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000  # metrics that MLflow takes in one call
Point = tuple[str, float, int, int]
"""A metric's name, value, time (milliseconds since 1970) and step."""


class Tracker(Tickets):
    """The runs of a project."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def _client(self) -> MlflowClient:
        """The client; the first use of a new database creates its schema, one process at a time."""
        client = connect(self.settings)
        _share(self.settings.tracking)
        return client

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for this process's turn to write much to a SQLite store; other stores arrange turns themselves.

        SQLite lets writers retry for some seconds in no order, so that one of many may starve.
        """
        database = sqlite_file(self.settings.tracking)
        if database is None:
            yield
            return
        with FileLock(f"{database}.turn", poll_interval=0.01, is_singleton=True):  # reentrant
            yield

    def create(self, experiment: str, provenance: Provenance) -> str:
        """A new run with its parameters, tags, inputs and texts; returns its id.

        If a store fails in the middle, the run is FAILED; `complete` repairs it.
        """
        run_id = self.begin(experiment, provenance)
        try:
            self._log_texts(run_id, provenance)
        except Exception as error:
            with suppress(Exception):  # this store may be the one that failed
                self.set_status(run_id, "FAILED", str(error))
            raise
        return run_id

    def complete(self, run_id: str, provenance: Provenance) -> None:
        """Add what is missing of a run's provenance, if the process that created it died before that."""
        from mlflow.entities import RunTag

        if Path(artifacts.CONFIG).name in self.names(run_id, artifacts.PROVENANCE):
            return
        tags = [RunTag(PREFIX + name, value) for name, value in provenance.tags.items()]
        self._client.log_batch(run_id, tags=tags)
        self._log_inputs(run_id, provenance)
        self._log_texts(run_id, provenance)

    def _log_texts(self, run_id: str, provenance: Provenance) -> None:
        self.log_text(run_id, artifacts.PACKAGES, json.dumps(dict(provenance.packages), indent=2))
        if provenance.diff:
            self.log_text(run_id, artifacts.DIFF, provenance.diff)
        if provenance.card:
            self.log_text(run_id, artifacts.CARD, provenance.card)
        config = json.dumps(redact_known(provenance.config), indent=2)
        self.log_text(run_id, artifacts.CONFIG, config)  # last: it marks the provenance as complete

    def begin(self, experiment: str, provenance: Provenance, parent: str | None = None, name: str = "") -> str:
        """A new run with its parameters, tags and inputs; `parent` is the search that a trial belongs to."""
        tags = {PREFIX + tag: value for tag, value in provenance.tags.items()}
        tags |= {"mlflow.source.git.commit": provenance.tags["commit"], f"{PREFIX}kind": provenance.kind}
        tags |= {"mlflow.parentRunId": parent} if parent else {}
        run = self._client.create_run(
            self._experiment_id(experiment),
            run_name=name or f"{experiment}-{provenance.tags['fingerprint'][:8]}",
            tags=tags,
        )
        run_id: str = run.info.run_id
        self._log_inputs(run_id, provenance)
        return run_id

    def children(self, experiment: str, parent: str) -> list[Run]:
        """The trials of a search."""
        chosen = f"tags.`mlflow.parentRunId` = '{parent}'"
        return list(map(plain_run, pages(self._client.search_runs, [self._experiment_id(experiment)], chosen)))

    def newest(self, kind: str, experiment: str | None, limit: int) -> list[Run]:
        """The runs of a kind (run, search, trial) of one experiment or of all, newest first."""
        names = [found.name for found in pages(self._client.search_experiments)]
        if experiment is not None and experiment not in names:
            raise InputError(f"--experiment: {known('experiment', experiment, [n for n in names if n != 'Default'])}")
        chosen = names if experiment is None else [experiment]
        found = [self._experiment_id(name) for name in chosen]
        order = ["attributes.start_time DESC"]
        runs = pages(self._client.search_runs, found, f"tags.`{PREFIX}kind` = '{kind}'", order_by=order)
        return [plain_run(run) for run in islice(runs, limit)]

    def find(self, experiment: str, fingerprint: str, kind: str = "run") -> Run | None:
        """The run or search of exactly these inputs: a finished one, else the newest unfinished one."""
        return next(iter(self.find_all(experiment, fingerprint, kind)), None)

    def find_all(self, experiment: str, fingerprint: str, kind: str = "run") -> list[Run]:
        """All runs or searches of exactly these inputs, finished ones first, each newest first."""
        found = self._client.get_experiment_by_name(experiment)
        runs = [] if found is None else self._of_kind(found.experiment_id, "fingerprint", fingerprint, kind)
        return sorted(runs, key=lambda run: run.info.status != "FINISHED")

    def find_inputs(self, experiment: str, inputs: str) -> Run | None:
        """The newest finished run of these inputs, with any versions of the libraries."""
        found = self._client.get_experiment_by_name(experiment)
        runs = [] if found is None else self._of_kind(found.experiment_id, "inputs_sha256", inputs, "run")
        return next((run for run in runs if run.info.status == "FINISHED"), None)

    def _of_kind(self, experiment_id: str, tag: str, value: str, kind: str) -> list[Run]:
        """The runs of a kind that have a tag, newest first."""
        chosen = f"tags.`{PREFIX}{tag}` = '{value}' and tags.`{PREFIX}kind` = '{kind}'"
        order = ["attributes.start_time DESC"]
        return list(map(plain_run, pages(self._client.search_runs, [experiment_id], chosen, order_by=order)))

    def get(self, run_id: str) -> Run:
        """A run. Raises `InputError` if there is none, or if it was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise InputError(f"no run {run_id!r} in {hide_login(self.settings.tracking)}") from None
        if run.info.lifecycle_stage == "deleted":
            raise InputError(deleted(run_id))
        return plain_run(run)

    def unfinished(self) -> list[Run]:
        """The runs whose status is RUNNING."""
        experiments = [found.experiment_id for found in pages(self._client.search_experiments)]
        running = pages(self._client.search_runs, experiments, "attributes.status = 'RUNNING'")
        return list(map(plain_run, running))

    def has_runs(self) -> bool:
        """Whether the store has any run at all, deleted ones among them."""
        from mlflow.entities import ViewType

        every = pages(self._client.search_experiments, view_type=ViewType.ALL)
        experiments = [found.experiment_id for found in every]
        return bool(self._client.search_runs(experiments, run_view_type=ViewType.ALL, max_results=1))

    def set_status(self, run_id: str, status: str, reason: str = "") -> None:
        """RUNNING, FINISHED, FAILED or KILLED, with the reason as a tag that the UI shows."""
        self._client.set_tag(run_id, PREFIX + "reason", redact(reason)[:5000])  # first: a status without it is false
        if status == "RUNNING":
            self._client.update_run(run_id, status)
        else:
            self._client.set_terminated(run_id, status)

    def end(self, run_id: str, status: str, metrics: Mapping[str, float], tags: Mapping[str, str], at: int) -> None:
        """Set the last metrics and tags of a run, and its status, in as few calls as possible.

        Args:
            at: the time of the metrics: of a call that is made again they are the same points.
        """
        from mlflow.entities import Metric, RunTag

        points = [Metric(name, value, at, 0) for name, value in metrics.items()]
        self._client.log_batch(
            run_id, metrics=points, tags=[RunTag(PREFIX + name, redact(text)[:5000]) for name, text in tags.items()]
        )
        self._client.set_terminated(run_id, status)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run, by their full names."""
        from mlflow.entities import RunTag

        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Metrics with times and steps of their own, in as many calls as they need."""
        from mlflow.entities import Metric

        metrics = [Metric(*point) for point in points]
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + BATCH])

    def history(self, run_id: str) -> list[Point]:
        """Every point of every metric of a run."""
        return [
            (point.key, point.value, point.timestamp, point.step)
            for name in self._client.get_run(run_id).data.metrics
            for point in self._client.get_metric_history(run_id, name)
        ]

    def series(self, run_id: str, name: str) -> dict[int, float]:
        """The recorded values of one metric by step."""
        return {point.step: point.value for point in self._client.get_metric_history(run_id, name)}

    def copy_provenance(self, source: str, target: str) -> None:
        """Give a trial the texts that its search has for all of its trials."""
        for name in (f"{artifacts.PROVENANCE}/{name}" for name in self.names(source, artifacts.PROVENANCE)):
            if name != artifacts.CONFIG:
                self.log_bytes(target, name, self.read_bytes(source, name))

    def log_text(self, run_id: str, name: str, text: str) -> None:
        self.log_bytes(run_id, name, text.encode())

    def log_bytes(self, run_id: str, name: str, content: bytes) -> None:
        """Record an artifact; one that explains the run, with its hash."""
        if artifacts.is_read_again(name):
            self.set_tags(run_id, {hash_tag(name): hashlib.sha256(content).hexdigest()})
        with scratch_folder(self.settings.root) as folder:
            path = folder / Path(name).name
            path.write_bytes(content)
            self.log_file(run_id, str(Path(name).parent), path)

    def log_curves(self, run_id: str, folder: Path) -> None:
        """Draw the curves of the run in `folder`, and log them as a picture and as a table."""
        curves = read_curves(folder, lambda: self.history(run_id))
        self.log_bytes(run_id, artifacts.CURVES_PICTURE, draw_curves(curves))
        self.log_bytes(run_id, artifacts.CURVES, curves_table(curves))

    def log_file(self, run_id: str, folder: str, path: Path) -> None:
        self._client.log_artifact(run_id, str(path), None if folder == "." else folder)

    def read_bytes(self, run_id: str, name: str) -> bytes:
        """An artifact of a run.

        Raises:
            InputError: the run has none of that name.
            WorkError: it is not what was recorded.
        """
        with scratch_folder(self.settings.root) as folder:
            content = self.fetch(run_id, name, folder).read_bytes()
        if artifacts.is_read_again(name):
            recorded = self.get(run_id).data.tags.get(hash_tag(name))
            found = hashlib.sha256(content).hexdigest()
            if recorded not in (None, found):
                raise WorkError(
                    f"run {run_id}: its {name} is not what was recorded (sha256 {found[:12]}…, was {recorded[:12]}…): "
                    "restore that file in the artifact store, or train again with --new"
                )
        return content

    def read_object(self, run_id: str, name: str) -> dict[str, Any]:
        """The object in an artifact of JSON. Raises `InputError` if the run has none, or a damaged one."""
        fix = "restore it from a copy of the artifact store, or train again with --new"
        return parse_json(self.read_bytes(run_id, name), f"run {run_id}: its {name}", fix)

    def fetch(self, run_id: str, name: str, folder: Path) -> Path:
        from mlflow.exceptions import MlflowException

        try:
            return Path(self._client.download_artifacts(run_id, name, str(folder)))
        except (MlflowException, OSError) as error:
            if (failure := refusal(error)) is not None:
                raise failure from error
            require_room(folder)  # MLflow does not say so
            if self._has(run_id, name):  # checked, because MLflow reports a missing file and a silent store alike
                raise Unavailable(f"run {run_id}: its {name} cannot be read: {one_line(error)}") from error
            raise InputError(f"run {run_id} has no {name}: it did not finish; train it to the end") from None

    def _has(self, run_id: str, name: str) -> bool:
        from mlflow.exceptions import MlflowException

        parent = str(Path(name).parent)
        with suppress(MlflowException):
            return name in {entry.path for entry in self._client.list_artifacts(run_id, parent.removeprefix("."))}
        return False

    def names(self, run_id: str, folder: str) -> list[str]:
        """The names of the artifacts in a folder of a run."""
        return [Path(entry.path).name for entry in self._client.list_artifacts(run_id, folder) if not entry.is_dir]

    def record(self, run_id: str) -> dict[str, Any]:
        """What `assay train` printed when the run finished."""
        return self.read_object(run_id, artifacts.RECORD)

    def _experiment_id(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                raise InputError(f"the MLflow experiment {name!r} was deleted: restore it, or rename the experiment")
            experiment_id: str = found.experiment_id
            return experiment_id
        server = self.settings.tracking.startswith(("http://", "https://"))  # it may have a better place
        location = (
            None if server and not self.settings.artifact_uri else f"{self.settings.artifacts.rstrip('/')}/{name}"
        )
        try:
            return str(self._client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return self._experiment_id(name)  # another process was faster

    def _log_inputs(self, run_id: str, provenance: Provenance) -> None:
        """The parameters, and the data where MLflow's UI shows them."""
        from mlflow.entities import Dataset, DatasetInput, Param

        params = [Param(key, str(value)[:6000]) for key, value in flatten(redact_known(provenance.config)).items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(run_id, params=params[start : start + 100])
        name, version = provenance.tags["dataset"], provenance.tags["dataset_hash"]
        source = json.dumps({"dvc": f"data/{name}", "hash": version})
        entry = Dataset(name=name, digest=version[:36], source_type="dvc", source=source)
        self._client.log_inputs(run_id, datasets=[DatasetInput(entry, tags=[])])


def hash_tag(name: str) -> str:
    """The tag that holds the sha256 of an artifact."""
    return f"{PREFIX}sha256.{name}"


def _share(uri: str) -> None:
    """Let many processes write to a SQLite store: readers and a writer then never wait for each other.

    SQLite keeps this setting in the file. A file system without it, such as a network's, is left alone.
    """
    database = sqlite_file(uri)
    if database is None:
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=60)) as connection:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain data as dotted names: those that `--set` takes and MLflow shows."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
