"""A task's name is its folder and its import path, and an import that breaks inside it is not hidden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from assay.config.plugin import Headline, load_config, load_serving, load_task, task_names
from assay.errors import InputError
from assay.task import Serving, Task

CONFIG = "from assay.config.plugin import TaskConfig\nclass Config(TaskConfig):\n    name: str\n    width: int = 3\n"
Write = Callable[[str, dict[str, str]], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Makes a task in a package outside Assay; returns its dotted name."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, files: dict[str, str]) -> str:
        folder = tmp_path.joinpath(*name.split("."))
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        return name

    return make


def test_the_tasks_that_ship_load() -> None:
    assert "classification" in task_names()
    for name in task_names():
        assert load_config(name).model_fields["name"].default == name
        task, source = load_task(name)
        assert issubclass(task, Task)
        assert isinstance(load_config(name)().headline, Headline)
        assert callable(source)
        assert issubclass(load_serving(name), Serving)


@pytest.mark.parametrize("name", ["clasification", "", "..", ".tasks", "a..b", "json.decoder", "no.such.thing", "x\0y"])
@pytest.mark.parametrize("load", [load_config, load_task, load_serving])
def test_an_unknown_task_is_named_with_the_known_ones(load: Callable[[str], object], name: str) -> None:
    with pytest.raises(InputError, match=r"unknown task .*Known: .*classification"):
        load(name)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(InputError, match="did you mean 'classification'"):
        load_config("clasification")


def test_a_dotted_name_is_an_import_path(write: Write) -> None:
    name = write("acme_one.vision.counting", {"config.py": CONFIG, "task.py": "class Task: ...\ndef source(): ...\n"})
    assert load_config(name)(name="x").model_dump() == {"name": "x", "width": 3}
    task, source = load_task(name)
    assert (task.__module__, source.__name__) == (f"{name}.task", "source")


def test_a_task_without_serving_can_be_trained_and_says_why_it_cannot_be_registered(write: Write) -> None:
    name = write("acme_four.counting", {"config.py": CONFIG, "task.py": "class Task: ...\ndef source(): ...\n"})
    load_task(name)
    with pytest.raises(
        InputError, match=r"'acme_four.counting' has no serving.py, so .* registered: add one"
    ) as caught:
        load_serving(name)
    assert "\n" not in str(caught.value)


# The missing module's name is a prefix of the task's in text, though no parent of it.
@pytest.mark.parametrize("missing", ["no_such_module_xyz", "acme_t", "assay.no_such_part"])
def test_a_broken_import_inside_a_task_is_not_an_unknown_task(write: Write, missing: str) -> None:
    name = write(f"acme_two_{len(missing)}.counting", {"config.py": CONFIG, "task.py": f"import {missing}\n"})
    load_config(name)
    with pytest.raises(ModuleNotFoundError, match=missing):
        load_task(name)


def test_other_errors_of_a_task_come_through(write: Write) -> None:
    name = write("acme_three.counting", {"config.py": "1 / 0\n"})
    with pytest.raises(ZeroDivisionError):
        load_config(name)


def test_of_equals_the_later_is_taken() -> None:
    up, down = Headline("accuracy"), Headline("loss", maximize=False)
    assert up.better(0.0, None)
    assert [up.better(v, 0.5) for v in (0.4, 0.5, 0.6)] == [False, True, True]
    assert [down.better(v, 0.5) for v in (0.4, 0.5, 0.6)] == [True, True, False]
