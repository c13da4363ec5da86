"""What a task and a source bring to the config, and how both are found by name. Imports no torch by itself.

A name is a folder or module and an import path, so there is no list to add it to: `gan` is `assay/tasks/gan/`, `coco`
is `assay/data/importers/coco.py`. A task's name with a dot (`acme.vision.segmentation`) is the import path of a task
that lives outside Assay.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from assay.config.card import Card
from assay.config.schema import Frozen
from assay.errors import InputError, known
from assay.inputs import note_import

if TYPE_CHECKING:
    from assay.task import Serving, Task

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Headline:
    """The one metric by which checkpoints are chosen, trials compared and gates held, on `val/` and on `test/`.

    Attributes:
        share: it is a share of the samples, of which more is better; the task reports its `loss` too.
    """

    metric: str
    maximize: bool = True
    share: bool = False

    def better(self, value: float, than: float | None) -> bool:
        """True if `value` is at least as good: of equals, the later wins."""
        if than is None:
            return True
        return value >= than if self.maximize else value <= than


class TaskConfig(Frozen):
    """What a task lets the user choose. Each task's `config.py` extends it as `Config`."""

    name: str

    @property
    def headline(self) -> Headline:
        """Which of the task's metrics decides. It may depend on the settings."""
        raise NotImplementedError

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that an evaluation reports and a search may use; the headline is one of them."""
        return (self.headline.metric,)

    @classmethod
    def networks(cls) -> dict[str, dict[str, Any]]:
        """The space of this task's networks that `networks: true` searches: keys below `task`, as `space:` has them.

        Empty if this task has none. Every point of it must be a network that can be built.
        """
        return {}

    @property
    def files(self) -> tuple[str, ...]:
        """Files besides the dataset that the weights follow from, such as pretrained weights: hashed for the record."""
        return ()

    @classmethod
    def starter(cls, card: Card) -> dict[str, Any] | None:  # noqa: ARG003
        """A first experiment for a dataset that was just added: its block without `data`. None: not for such data."""
        return None


class SourceConfig(Frozen):
    """Where raw data comes from. Each importer extends it as `Source`."""

    kind: str


class FolderSource(SourceConfig):
    """A folder of the user's: `path` is relative to the project or absolute, `sha256` is its `raw.folder_digest`."""

    path: str
    sha256: str


def task_names() -> list[str]:
    """The tasks that ship with Assay: the folders of `assay/tasks`."""
    return sorted(entry.name for entry in pkgutil.iter_modules([str(PACKAGE / "tasks")]) if entry.ispkg)


def load_config(name: str) -> type[TaskConfig]:
    """The config class of a task, without importing torch."""
    config: type[TaskConfig] = _task_module(name, "config").Config
    return config


def load_task(name: str) -> tuple[type[Task], Any]:
    """The task's class and its `source(config, dataset, split)`."""
    module = _task_module(name, "task")
    return module.Task, module.source


def load_serving(name: str) -> type[Serving[Any]]:
    """The task's serving side, without its training side.

    Raises:
        InputError: the task has no `serving.py`.
    """
    serving: type[Serving[Any]] = _task_module(name, "serving").Serving
    return serving


def _task_module(name: str, part: str) -> ModuleType:
    package = name if "." in name else f"assay.tasks.{name}"
    path = f"{package}.{part}"
    if not all(path.split(".")):  # an empty step would make it a relative import
        raise InputError(known("task", name, task_names()))
    note_import(name)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if part == "serving" and error.name == path:
            _task_module(name, "config")  # an unknown task has none
            raise InputError(
                f"task {name!r} has no serving.py, so its models cannot be registered: "
                "add one with a class Serving(assay.task.Serving)"
            ) from None
        if error.name is not None and f"{path}.".startswith(f"{error.name}."):
            raise InputError(known("task", name, task_names())) from None
        raise  # the task exists, but a module that it imports does not


def source_kinds() -> list[str]:
    """The kinds of source: the modules of `assay/data/importers`."""
    return sorted(entry.name for entry in pkgutil.iter_modules([str(PACKAGE / "data" / "importers")]))


def load_importer(kind: str) -> ModuleType:
    if kind not in source_kinds():
        raise InputError(known("kind of source", kind, source_kinds()))
    return importlib.import_module(f"assay.data.importers.{kind}")


def load_source(kind: str) -> type[SourceConfig]:
    source: type[SourceConfig] = load_importer(kind).Source
    return source
