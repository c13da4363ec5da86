"""What is wrong in params.yaml is named with its path, all at once; what is right comes back typed."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assay.config.card import SplitConfig
from assay.config.experiment import ExperimentConfig, OptimizerConfig, TrainConfig, located, override, parse_experiment
from assay.config.params import load_params, parse_params
from assay.config.schema import digest, resolved
from assay.errors import InputError

PROJECT = Path(__file__).parents[3]
BASE: dict[str, Any] = {
    "datasets": {"digits": {"source": {"kind": "digits"}}},
    "experiments": {"digits": {"task": {"name": "classification"}, "data": "digits"}},
}


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """`BASE` with the values at dotted paths replaced."""
    data = deepcopy(BASE)
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        node = data
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return data


def faults(**changes: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_params(changed({k.replace("__", "."): v for k, v in changes.items()}), "params.yaml")
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def experiment(**changes: Any) -> ExperimentConfig:
    data = changed({"experiments.digits." + k.replace("__", "."): v for k, v in changes.items()})
    return parse_params(data, "params.yaml").experiment("digits")


def test_the_base_is_right_and_defaults_are_written_out() -> None:
    plain = resolved(experiment())
    assert plain["task"]["image_size"] == 32
    assert plain["task"]["augment"] == {
        "shift": 0, "rotate": 0, "scale": 0, "flip": False, "colour": 0, "erase": 0
    }  # fmt: skip
    assert plain["optimizer"]["betas"] == [0.9, 0.999]
    assert parse_experiment(plain, "again") == experiment()


def test_the_shipped_file_is_right() -> None:
    params = load_params(PROJECT / "params.yaml")
    assert params.experiment("digits").data in params.datasets


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            "datasetz",
            {},
            "datasetz: unknown key 'datasetz'; did you mean 'datasets'? "
            "Known: datasets, experiments, presets, schedules, searches.",
        ),
        ("datasets.digits.sed", 1, "datasets.digits.sed: unknown key 'sed'; did you mean 'seed'?"),
        ("datasets.digits.split.valid", 1, "datasets.digits.split.valid: unknown key 'valid'; did you mean 'val'?"),
        ("datasets.digits.source.kind", "digit", "datasets.digits.source.kind: unknown kind of source 'digit'; did"),
        ("datasets.digits.source.path", "x", "datasets.digits.source.path: unknown key 'path'"),
        (
            "datasets.digits.source",
            "digits",
            "datasets.digits.source: must be a mapping with the key 'kind' (a name)",
        ),
        (
            "datasets.digits.source",
            {},
            "datasets.digits.source: must be a mapping with the key 'kind' (a name)",
        ),
        ("datasets.Digits", {"source": {"kind": "digits"}}, "datasets.Digits: string should match pattern"),
        ("experiments.digits.lr", 1, "experiments.digits.lr: unknown key 'lr'."),
        ("experiments.digits.optimizer.l", 1, "experiments.digits.optimizer.l: unknown key 'l'; did you mean 'lr'?"),
        ("experiments.digits.optimizer.lr", "fast", "experiments.digits.optimizer.lr: input should be a valid number"),
        ("experiments.digits.optimizer.lr", 0, "experiments.digits.optimizer.lr: input should be greater than 0, not"),
        ("experiments.digits.optimizer.name", "lion", "experiments.digits.optimizer.name: input should be 'adamw'"),
        ("experiments.digits.optimizer.betas", [0.9], "experiments.digits.optimizer.betas.1: missing"),
        ("experiments.digits.optimizer.betas", [0.9, 1], "experiments.digits.optimizer.betas.1: input should be less"),
        ("experiments.digits.optimizer.betas", [-1, 0.9], "experiments.digits.optimizer.betas.0: input should be gr"),
        ("experiments.digits.optimizer", 3, "experiments.digits.optimizer: input should be a valid dictionary"),
        ("experiments.digits.train.epochs", 1.5, "experiments.digits.train.epochs: input should be a valid integer"),
        ("experiments.digits.train.epochs", 0, "experiments.digits.train.epochs: input should be greater than or eq"),
        ("experiments.digits.gate.min", {"accuracy": 1}, "experiments.digits.gate.min.accuracy: string should match"),
        (
            "experiments.digits.task",
            "gan",
            "experiments.digits.task: must be a mapping with the key 'name' (a name)",
        ),
        ("experiments.digits.task", {"name": 3}, "experiments.digits.task: must be a mapping with the key 'name'"),
        ("experiments.digits.task.name", "clasification", "experiments.digits.task.name: unknown task 'clasification'"),
        ("experiments.digits.task.augment", {"flop": 1}, "experiments.digits.task.augment.flop: unknown key 'flop'; "),
        ("experiments.digits.task.width", "big", "experiments.digits.task.width: input should be a valid integer"),
        ("experiments.digits.data", "digit", "experiments.digits.data: unknown dataset 'digit'; did you mean 'digits'"),
    ],
)
def test_each_bad_key_is_one_line_with_its_path(path: str, value: Any, expected: str) -> None:
    (line,) = faults(**{path: value})
    assert line.startswith("params.yaml: " + expected)


def test_a_missing_key_is_named() -> None:
    data = deepcopy(BASE)
    del data["experiments"]["digits"]["data"]
    with pytest.raises(InputError, match=r"^p: experiments\.digits\.data: missing$"):
        parse_params(data, "p")


def test_all_errors_are_reported_at_once() -> None:
    lines = faults(
        datasets__digits__source={"kind": "digits", "folder": "x", "file": "y"},
        datasets__digits__seed=-1,
        experiments__digits__task={"name": "classification", "widht": 8, "dropout": 2, "augment": {"flop": 1}},
        experiments__digits__optimizer={"lr": -1, "rate": 2},
        experiments__digits__trian={},
    )
    assert sorted(line.split(": ")[1] for line in lines) == [
        "datasets.digits.seed",
        "datasets.digits.source.file",
        "datasets.digits.source.folder",
        "experiments.digits.optimizer.lr",
        "experiments.digits.optimizer.rate",
        "experiments.digits.task.augment.flop",
        "experiments.digits.task.dropout",
        "experiments.digits.task.widht",
        "experiments.digits.trian",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "path",
    ["optimizer.lr", "optimizer.weight_decay", "train.clip", "train.checkpoint_seconds", "gate.min.test/accuracy",
     "gate.tolerance", "task.dropout", "task.augment.rotate"],
)  # fmt: skip
def test_nan_and_infinity_are_refused(path: str, value: float) -> None:
    changes = {"experiments.digits.task": {"name": "classification", "augment": {}}} | {f"experiments.digits.{path}": 0}
    data = changed(changes)
    *parents, leaf = ["experiments", "digits", *path.split(".")]
    node = data
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    with pytest.raises(InputError, match=rf"experiments\.digits\.{re.escape(path)}: input should be a finite number"):
        parse_params(data, "p")


@pytest.mark.parametrize(("batch", "workers", "near"), [(65, 2, 64), (2, 3, 3), (7, 4, 4)])
def test_a_batch_that_workers_cannot_share_is_refused_with_one_that_they_can(
    batch: int, workers: int, near: int
) -> None:
    (line,) = faults(experiments__digits__train={"batch_size": batch, "workers": workers})
    assert line.endswith(f"batch_size {batch} is not divisible by workers {workers}; try {near}")
    TrainConfig(batch_size=near, workers=workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_one_process_takes_any_batch(workers: int) -> None:
    assert TrainConfig(batch_size=7, workers=workers).batch_size == 7


def test_fractions_of_a_split_make_one() -> None:
    (line,) = faults(datasets__digits__split={"train": 0.7, "val": 0.2, "test": 0.2})
    assert line == "params.yaml: datasets.digits.split: train + val + test add up to 1.1; they must add up to 1"
    assert SplitConfig(train=0.7, val=0.1, test=0.2).test == 0.2
    (line,) = faults(datasets__digits__split={"train": 0.8, "val": 0.2, "test": 0})
    assert "split.test: input should be greater than 0" in line


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError):
        experiment().optimizer.lr = 1.0


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: 1\na: 2", "a: !!python/object:os.system x", "a: \x00", "- 1", "3", "a: 2001-13-01", "a: !!int x"],
)
def test_what_is_no_yaml_mapping_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"^params\.yaml: (not valid YAML|must be a mapping)") as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_binary_or_empty(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(InputError, match="no such file"):
        load_params(path)
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(InputError, match="not valid YAML"):
        load_params(path)
    path.write_text("# nothing yet\n")
    assert load_params(path).experiments == {}


def test_unknown_experiments_and_datasets_are_named_with_the_known() -> None:
    params = parse_params(BASE, "p")
    with pytest.raises(InputError, match=r"unknown experiment 'digit'; did you mean 'digits'\? Known: digits\."):
        params.experiment("digit")
    with pytest.raises(InputError, match=r"unknown dataset 'x'\. Known: digits\."):
        params.dataset("x")


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("optimizer.lr=0.01", 0.01),
        ("optimizer.lr=1e-3", 0.001),
        ("optimizer.name=sgd", "sgd"),
        ("optimizer.betas=[0.5, 0.9]", (0.5, 0.9)),
        ("train.clip=null", None),
        ("train.clip=1", 1.0),
        ("task.augment.flip=true", True),
        ("gate.min.test/accuracy=0.5", 0.5),
        ("gate.max.val/loss=2", 2.0),
        ("seed=7", 7),
    ],
)
def test_overrides_are_typed(assignment: str, value: Any) -> None:
    node: Any = override(experiment(train={"clip": 3}), [assignment])
    for part in assignment.partition("=")[0].split("."):
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    assert node == value
    assert type(node) is type(value)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("optimizer.lr", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("optimizer.rate=1", r"--set optimizer\.rate: unknown key 'optimizer\.rate'; did you mean 'optimizer\.name'"),
        ("optimizer.lr.x=1", "unknown key 'optimizer.lr.x'; did you mean 'optimizer.lr'"),
        ("nothing.here=1", "unknown key 'nothing.here'"),
        ("gate.min.a.b=1", "unknown key"),
        ("gate.min.accuracy=1", r"--set: gate\.min\.accuracy: string should match"),
        ("optimizer.lr=fast", r"--set: optimizer\.lr: input should be a valid number.*'fast'"),
        ("optimizer.lr=.nan", "finite"),
        ("optimizer=3", "optimizer: input should be a valid dictionary"),
        ("train.epochs=1.5", r"train\.epochs: input should be a valid integer"),
        ("train.workers=3", "batch_size 64 is not divisible by workers 3; try 63"),
        ("task.name=clasification", r"task\.name: unknown task 'clasification'; did you mean 'classification'"),
        ("seed=[", "not valid YAML"),
        ("seed=2001-13-01", "not valid YAML"),
        ("optimizer.lr=!!float abc", "not valid YAML"),
    ],
)
def test_bad_overrides_are_named(assignment: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        override(experiment(), [assignment])


def test_overrides_apply_in_order_and_leave_the_original_alone() -> None:
    config = experiment()
    made = override(config, ["optimizer.lr=0.5", "seed=1", "optimizer.lr=0.25", "gate.min.test/accuracy=0.1"])
    assert (made.optimizer.lr, made.seed) == (0.25, 1)
    assert config == experiment()
    assert override(config, []) == config


@given(
    lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False), seed=st.integers(0, 2**31 - 1)
)
def test_any_number_survives_an_override(lr: float, seed: int) -> None:
    made = override(experiment(), [f"optimizer.lr={lr!r}", f"seed={seed}"])
    assert (made.optimizer.lr, made.seed) == (lr, seed)


@given(
    key=st.sampled_from(["seed", "optimizer.lr", "train", "task.augment", "gate.min.x", ""]), text=st.text(max_size=12)
)
def test_no_override_ends_in_anything_but_a_config_or_a_plain_error(key: str, text: str) -> None:
    with suppress(InputError):
        assert isinstance(override(experiment(), [f"{key}={text}"]), ExperimentConfig)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(data: Any, source: random.Random) -> Any:
    if isinstance(data, dict):
        items = [(name, shuffled(value, source)) for name, value in data.items()]
        source.shuffle(items)
        return dict(items)
    return [shuffled(value, source) for value in data] if isinstance(data, list) else data


@given(data=PLAIN, source=st.randoms(use_true_random=False))
def test_the_digest_ignores_the_order_of_keys(data: Any, source: random.Random) -> None:
    assert digest(shuffled(data, source)) == digest(data)


@given(one=PLAIN, other=PLAIN)
def test_the_digest_tells_data_apart(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (digest(one) == digest(other)) is same


def test_the_digest_stays_what_it_is() -> None:
    expected = "84afbf1d4853005f9dd0c81cb1819b53ce86978340764c062160f6e8356665de"
    assert digest({"b": [1, 2.5, None], "a": "é"}) == expected
    with pytest.raises(ValueError, match="JSON"):
        digest(float("nan"))


def test_reading_a_config_imports_nothing_heavy() -> None:
    program = (
        "import sys; from pathlib import Path; import assay.config.params; "
        f"assay.config.params.load_params(Path({str(PROJECT / 'params.yaml')!r})); "
        "print([m for m in ('torch', 'ray', 'mlflow', 'prefect', 'dvc', 'sklearn', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_of_an_optimizer_are_closed() -> None:
    with pytest.raises(ValidationError):
        OptimizerConfig.model_validate({"lr": 1, "nesterov": True})


def test_files_of_a_task_are_those_of_the_project(tmp_path: Path) -> None:
    task = {"name": "classification", "architecture": "timm:resnet18", "weights": "models/own.pth"}
    config = ExperimentConfig.model_validate({"task": task, "data": "digits"})
    absolute = str(tmp_path / "models/own.pth")
    assert located(config, tmp_path).task.files == (absolute,)
    assert located(located(config, tmp_path), Path("/elsewhere")).task.files == (absolute,)
    assert config.task.files == ("models/own.pth",)
    assert located(experiment(), tmp_path) == experiment()


def test_a_preset_replaces_keys_and_is_checked() -> None:
    block = {"task": {"name": "classification"}, "data": "d"}
    data = {"datasets": {"d": {"source": {"kind": "digits"}}}, "experiments": {"e": block}}
    params = parse_params({**data, "presets": {"e": {"long": {"train.epochs": 77}, "odd": {"train.epoch": 1}}}}, "p")
    assert params.preset("e", "long").train.epochs == 77
    with pytest.raises(InputError, match=r"presets\.e\.odd: train\.epoch: unknown key .*did you mean 'train\.epochs'"):
        params.preset("e", "odd")
    with pytest.raises(InputError, match=r"unknown preset 'lang'; did you mean 'long'"):
        params.preset("e", "lang")
    with pytest.raises(InputError, match=r"presets\.f: unknown experiment 'f'"):
        parse_params({**data, "presets": {"f": {}}}, "p")
