"""Which workers a run gets: how many, on what device, with how many threads. Decided before the start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from assay.config.experiment import ExperimentConfig, TrainConfig
from assay.errors import InputError


@dataclass(frozen=True)
class Slots:
    """What the machine or the cluster offers. `nodes`: (CPU cores, GPUs) of each node of a cluster."""

    cpus: int
    gpus: int
    gpu_name: str = ""
    bf16: bool = True
    nodes: tuple[tuple[int, int], ...] = ()

    def threads(self, ranks: int, gpu: bool) -> int:
        """The most threads that each of `ranks` workers can have, each on one node; 0: they do not fit."""
        nodes = self.nodes or ((self.cpus, self.gpus),)
        for threads in range(max(cpus for cpus, _ in nodes), 0, -1):
            if sum(min(cpus // threads, gpus) if gpu else cpus // threads for cpus, gpus in nodes) >= ranks:
                return threads
        return 0


@dataclass(frozen=True)
class Plan:
    """`workers` 0 trains in this process, without Ray."""

    workers: int
    device: str
    threads: int
    compiled: bool = False

    @property
    def gpu(self) -> bool:
        return self.device != "cpu"

    def machine(self) -> Mapping[str, str]:
        """The part that provenance records."""
        return machine(self.workers, self.threads, self.device, self.compiled)


def machine(workers: int, threads: int, device: str, compiled: bool) -> Mapping[str, str]:
    """What a run records of its workers: another thread, device or compiler may round differently."""
    return {
        "world_size": str(max(workers, 1)),
        "threads": str(threads),
        "device": device,
        "compiled": str(compiled).lower(),
    }


def local_slots() -> Slots:
    """The CPU cores that this process may use, and the GPUs."""
    import torch

    gpus = torch.cuda.device_count()
    name = torch.cuda.get_device_name(0) if gpus else ""
    return Slots(len(os.sched_getaffinity(0)), gpus, name, not gpus or torch.cuda.is_bf16_supported())


def plan(config: TrainConfig, slots: Slots) -> Plan:
    """Choose GPUs if there is one for each worker, CPU cores otherwise.

    Raises:
        InputError: more workers than slots, or a precision that the device does not have.
    """
    ranks = max(config.workers, 1)
    use_gpu = config.device == "gpu" or (config.device == "auto" and slots.gpus >= ranks)
    kind, have = ("GPU", slots.gpus) if use_gpu else ("CPU core", slots.cpus)
    if ranks > have:
        needed = f"{_counted(ranks, 'worker')} need{'s' if ranks == 1 else ''} {_counted(ranks, kind)}"
        fix = f"use {f'--workers {have}' if have else 'train.device: cpu'}"
        raise InputError(
            f"train.workers: {needed}, but there {'is' if have == 1 else 'are'} {_counted(have, kind)}: {fix}"
        )
    if config.precision == "fp16" and not use_gpu:
        raise InputError("train.precision: fp16 needs a GPU; use bf16 or fp32")
    if config.precision == "bf16" and use_gpu and not slots.bf16:
        raise InputError(f"train.precision: {slots.gpu_name} does not support bf16; use fp16 or fp32")
    device = slots.gpu_name or "gpu" if use_gpu else "cpu"
    return Plan(config.workers, device, max(1, slots.threads(ranks, use_gpu)), config.compile and can_compile())


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def can_compile() -> bool:
    """Whether `torch.compile` works on this machine: for CPUs and GPUs alike it needs a C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception:  # the type of the error differs between versions of torch
        return False
    return True


def check_fit(config: ExperimentConfig, samples: Mapping[str, int]) -> None:
    """Refuse too few samples: training needs one for each worker, an evaluation a single one.

    Args:
        samples: how many each split has.
    """
    ranks = max(config.train.workers, 1)
    for split, needed in (("train", ranks), ("val", 1)):
        if samples.get(split, 0) < needed:
            raise InputError(f"datasets.{config.data}: {samples.get(split, 0)} {split} samples for {ranks} workers")
