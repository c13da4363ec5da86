"""What is known of a search before it starts: its block, space, data and machine; and how a trial is set up."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from assay.config.experiment import ExperimentConfig, located, parse_experiment
from assay.config.params import load_params
from assay.config.plugin import load_serving, load_task
from assay.config.schema import digest, resolved
from assay.config.search import SearchConfig
from assay.data.dataset import Dataset
from assay.errors import InputError
from assay.inputs import Inputs, file_hashes
from assay.log import Log
from assay.scratch import scratch_folder
from assay.settings import Settings
from assay.tracking.provenance import PREFIX, Provenance, collect, fingerprint, inputs_sha256
from assay.tracking.run import Run
from assay.tracking.runs import Claim
from assay.tracking.tracker import Tracker, flatten
from assay.tracking.trials import Entry
from assay.tune import objectives
from assay.tune.journal import read_journal
from assay.tune.plan import TrialPlan, trial_plan
from assay.tune.search import Trial
from assay.tune.space import Space, bound
from assay.tune.trial import TrialAssignment, trial_folder
from assay.usecases.helpers.places import (
    open_or_fetch_dataset,
    require_cluster,
    require_repository,
)
from assay.workers.assignment import Assignment
from assay.workers.plan import check_fit
from assay.workers.ray_session import available_slots, cluster_joined

CHANGEABLE = ("budget", "parallel")  # of a search: may change from one session to the next


@dataclass(frozen=True)
class SearchContext:
    """What is known of a search before it starts."""

    name: str
    settings: Settings
    config: SearchConfig
    space: Space
    experiment: ExperimentConfig
    dataset: Dataset
    plan: TrialPlan

    @classmethod
    def of(cls, name: str, settings: Settings, parallel: int | None = None, log: Log = lambda _: None) -> SearchContext:
        params = load_params(settings.params_file)
        config = params.search(name)
        space, experiment = bound(name, config, params.experiment(config.experiment))
        objectives.check(name, config, space, experiment)
        require_repository(settings.root)
        dataset = open_or_fetch_dataset(experiment.data, settings, log)
        check_fit(experiment, dataset.card.samples)
        load_task(experiment.task.name)[0].check(located(experiment, settings.root), dataset)
        with cluster_joined(settings, log):
            require_cluster(settings, searching=True)
            chosen = trial_plan(
                experiment.train, parallel or config.parallel, available_slots(settings, experiment.train, log)
            )
        return cls(name, settings, config, space, experiment, dataset, chosen)

    @cached_property
    def base(self) -> Provenance:
        """The provenance of the experiment that is searched."""
        machine = self.plan.machine()
        return collect(self.settings.root, self.config.experiment, self.experiment, self.dataset, machine)

    @cached_property
    def files(self) -> dict[str, str]:
        """sha256 of each file that the experiment names, or that it would name with a value of the space, by its name.

        Raises:
            InputError: one cannot be read.
        """
        configs = [self.experiment]
        for parameter in self.space.parameters:
            for value in parameter.choices or ():
                if isinstance(value, str):
                    with suppress(InputError):  # it goes only with another value: hashed when a trial has both
                        configs.append(self.space.apply(self.experiment, {parameter.key: value}))
        return file_hashes(self.settings.root, list(dict.fromkeys(name for c in configs for name in c.task.files)))

    def inputs_of(self, config: ExperimentConfig) -> Inputs:
        """What a trial takes from this machine: the code and the libraries of all trials, and the files that it names.

        A file is hashed once, so that a trial which finds another content is refused.
        """
        new = [name for name in config.task.files if name not in self.files]
        self.files.update(file_hashes(self.settings.root, new))
        tags = self.base.tags
        files = {name: self.files[name] for name in config.task.files}
        return Inputs(tags["code_sha256"], files, json.loads(tags["libraries"]))

    @property
    def plain(self) -> dict[str, Any]:
        """The search's block without what may change from one session to the next."""
        return {name: value for name, value in resolved(self.config).items() if name not in CHANGEABLE}

    @property
    def costs(self) -> bool:
        """Whether it matters what a network costs."""
        names = [*self.config.objectives, *self.config.limits]
        return self.config.networks or any(name.startswith("cost/") for name in names)

    def inputs(self) -> dict[str, str]:
        """What all trials have in common, of which nothing may change from one session to the next."""
        names = ("config_sha256", "dataset_hash", "code_sha256", "libraries")
        return {**{name: self.base.tags[name] for name in names}, "files_sha256": digest(self.files)}

    def provenance(self) -> Provenance:
        """The provenance of the search, which is a run of kind `search` and the parent of its trials."""
        same = digest({"name": self.name, "search": self.plain, **self.inputs()})
        tags = {**self.base.tags, "fingerprint": same, "search": self.name}
        return replace(self.base, tags=tags, config={"search": resolved(self.config)}, kind="search")

    def trial_provenance(self, entry: Entry) -> Provenance:
        """The provenance of a trial: that of the experiment, with the trial's settings and files."""
        config = parse_experiment(entry.config, f"trial {entry.number}")
        here = self.inputs_of(config)
        same = inputs_sha256(config, self.dataset.hash, here)
        own = {
            "config_sha256": digest(entry.config),
            "files_sha256": digest(dict(here.files)),
            "inputs_sha256": same,
            "fingerprint": fingerprint(same, here.libraries),
        }
        tags = {**self.base.tags, **own, **entry.tags}
        return replace(self.base, tags=tags, config=entry.config, kind="trial", inputs=here.plain())

    def find(self, tracker: Tracker, resume: str | None) -> str | None:
        """The search to continue, if there is one. Raises `InputError` if `resume` is not a run of this search."""
        if resume is None:
            same = self.provenance().tags["fingerprint"]
            found = tracker.find(self.config.experiment, same, "search")
            return None if found is None else str(found.info.run_id)
        tags = tracker.get(resume).data.tags
        if tags.get(f"{PREFIX}search") != self.name or tags.get(f"{PREFIX}kind") != "search":
            raise InputError(f"--resume {resume}: not a search {self.name!r}; to list them: assay runs --kind search")
        return resume

    def finished_record(self, tracker: Tracker, search_id: str) -> dict[str, Any] | None:
        """The record of a search that is finished under today's budget."""
        if tracker.get(search_id).info.status != "FINISHED":
            return None
        record = tracker.record(search_id)
        return record if record["budget"] == resolved(self.config.budget) else None

    def is_finished(self, tracker: Tracker) -> Callable[[Run], bool]:
        """Whether a search is finished under today's budget, for `claim`."""
        return lambda run: self.finished_record(tracker, run.info.run_id) is not None

    def assign(self, held: Claim, trial: Trial, milestones: tuple[float, ...]) -> TrialAssignment:
        """The assignment of a trial. Raises `InputError` if its values do not go together."""
        plain = self.space.apply(self.experiment, trial.values)
        config, inputs = located(plain, self.settings.root), self.inputs_of(plain).plain()
        load_task(config.task.name)[0].check(config, self.dataset)
        at = trial_folder(held.folder, trial.number)
        training = Assignment(
            f"{held.run_id}-{trial.number:04d}", resolved(config), str(self.settings.root), self.dataset.hash, str(at),
            self.plan.threads, bool(self.plan.gpus), inputs, self.plan.compiled,
            cluster=bool(self.settings.ray_address), session=held.session,
        )  # fmt: skip
        return TrialAssignment(
            training=training.plain(),
            number=trial.number,
            until=trial.epochs,
            milestones=milestones,
            parent=None if trial.parent is None else str(trial_folder(held.folder, trial.parent)),
            costs=self.costs,
            workers=self.plan.workers,
            device=self.plan.device,
            keep=self.config.inherits,
        )

    def entry(self, folder: Path, trial: Trial) -> Entry:
        """A trial as the tracking store records it."""
        config = resolved(self.space.apply(self.experiment, trial.values))
        tags = {"search": self.name, "seed": str(self.experiment.seed)}
        if trial.parent is not None:
            tags["parent_trial"] = str(trial.parent)
        if "weights_sha256" in trial.outcome:
            tags["weights_sha256"] = trial.outcome["weights_sha256"]
        at = trial_folder(folder, trial.number)
        return Entry(trial.number, at, config, tags, trial.status, trial.reason, trial.metrics)

    def header(self) -> dict[str, Any]:
        """The first line of the journal."""
        return {"name": self.name, "search": self.plain, "inputs": self.inputs()}

    def require_same(self, search_id: str, journal: Path) -> None:
        """Refuse to continue a search that has changed. Raises `InputError`, which names what has changed."""
        events, _ = read_journal(journal)
        if not events:
            return
        header = events[0]
        before, now = flatten(header["search"]), flatten(self.plain)
        changed = [
            f"{name} was {before.get(name, 'not set')}, is {now.get(name, 'not set')}"
            for name in sorted(before | now)
            if before.get(name) != now.get(name)
        ]
        changed += [
            f"{name} has changed" for name, value in self.inputs().items() if header["inputs"].get(name) != value
        ]
        if changed:
            raise InputError(
                f"search {search_id} cannot be continued; changed since it began: {'; '.join(changed)}: "
                "undo the change, or leave out --resume to start a new search"
            )


def network_costs(config: ExperimentConfig, context: SearchContext) -> dict[str, float]:
    """The costs of an experiment's network, as metrics `cost/…`, with new weights, on a CPU."""
    from assay.networks.costs import task_costs
    from assay.train.prepare import rebuild

    with scratch_folder(context.settings.root) as folder:
        task = rebuild(located(config, context.settings.root), context.dataset, folder)
        return task_costs(task, load_serving(config.task.name)).metrics
