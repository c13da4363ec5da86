"""What cannot be run is refused with the number that can."""

from __future__ import annotations

import os

import pytest

from assay.config.experiment import ExperimentConfig, TrainConfig
from assay.errors import InputError
from assay.workers.plan import Plan, Slots, check_fit, local_slots, plan
from tests.support.tiny_task import Config


def train(**values: object) -> TrainConfig:
    return TrainConfig.model_validate({"batch_size": 60, **values})


@pytest.mark.parametrize(
    ("workers", "device", "gpus", "expected"),
    [
        (0, "auto", 0, Plan(0, "cpu", 8)),
        (1, "auto", 0, Plan(1, "cpu", 8)),
        (2, "auto", 0, Plan(2, "cpu", 4)),
        (3, "auto", 0, Plan(3, "cpu", 2)),
        (0, "auto", 1, Plan(0, "H100", 8)),
        (1, "auto", 1, Plan(1, "H100", 8)),
        (2, "auto", 1, Plan(2, "cpu", 4)),
        (2, "auto", 2, Plan(2, "H100", 4)),
        (1, "cpu", 2, Plan(1, "cpu", 8)),
        (2, "gpu", 2, Plan(2, "H100", 4)),
    ],
)
def test_gpus_are_used_where_each_worker_gets_one(workers: int, device: str, gpus: int, expected: Plan) -> None:
    made = plan(train(workers=workers, device=device), Slots(8, gpus, "H100" if gpus else ""))
    assert made == expected
    assert made.gpu is (expected.device != "cpu")
    assert made.machine() == {
        "world_size": str(max(workers, 1)), "threads": str(expected.threads), "device": expected.device,
        "compiled": "false",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "device", "slots", "message"),
    [
        (5, "auto", Slots(4, 0), "5 workers need 5 CPU cores, but there are 4 CPU cores: use --workers 4"),
        (2, "cpu", Slots(1, 8), "2 workers need 2 CPU cores, but there is 1 CPU core: use --workers 1"),
        (3, "gpu", Slots(8, 2), "3 workers need 3 GPUs, but there are 2 GPUs: use --workers 2"),
        (1, "gpu", Slots(8, 0), "1 worker needs 1 GPU, but there are 0 GPUs: use train.device: cpu"),
        (0, "gpu", Slots(8, 0), "1 worker needs 1 GPU, but there are 0 GPUs: use train.device: cpu"),
    ],
)
def test_too_many_workers_are_refused_with_the_number(workers: int, device: str, slots: Slots, message: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(train(workers=workers, device=device), slots)
    assert str(caught.value).startswith("train.workers: ")
    assert str(caught.value).endswith(message)


def test_fp16_needs_a_gpu() -> None:
    for device in ("cpu", "auto"):
        with pytest.raises(InputError, match=r"train\.precision: fp16 needs a GPU; use bf16 or fp32"):
            plan(train(precision="fp16", device=device), Slots(4, 0))
    assert plan(train(precision="fp16"), Slots(4, 1, "H100")).gpu
    assert not plan(train(precision="bf16"), Slots(4, 0)).gpu


def test_a_gpu_without_a_name_is_one() -> None:
    assert plan(train(), Slots(4, 1)).gpu


def test_this_machine_offers_the_cores_that_this_process_may_use() -> None:
    assert local_slots().cpus == len(os.sched_getaffinity(0)) >= 1


@pytest.mark.parametrize(
    ("samples", "split"), [({"train": 2, "val": 9}, "train"), ({"train": 9, "val": 0}, "val"), ({"train": 9}, "val")]
)
def test_training_must_feed_every_worker_and_an_evaluation_one(samples: dict[str, int], split: str) -> None:
    config = ExperimentConfig(task=Config(), data="points", train=train(workers=3))
    with pytest.raises(InputError, match=rf"^datasets\.points: \d {split} samples for 3 workers"):
        check_fit(config, samples)
    check_fit(config, {"train": 3, "val": 1})


@pytest.mark.parametrize(
    ("nodes", "ranks", "gpu", "threads"),
    [
        (((8, 0), (8, 0)), 2, False, 8),  # one each
        (((8, 0), (8, 0)), 3, False, 4),
        (((3, 0), (3, 0), (2, 0)), 2, False, 3),  # 8 cores, but no node has 4
        (((16, 4), (16, 4)), 8, True, 4),
        (((2, 4), (16, 1)), 3, True, 1),  # the GPUs are where few cores are
        (((4, 0),), 5, False, 0),
    ],
)
def test_no_worker_spans_two_nodes(nodes: tuple[tuple[int, int], ...], ranks: int, gpu: bool, threads: int) -> None:
    slots = Slots(sum(c for c, _ in nodes), sum(g for _, g in nodes), nodes=nodes)
    assert slots.threads(ranks, gpu) == threads
