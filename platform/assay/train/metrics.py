"""Sums and counts: of training losses over a window of steps, and of an evaluation over a split."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from assay.errors import WorkError
from assay.task import Context


class Window:
    """The means of training metrics since they were last recorded. Sums stay on the device: a step never waits."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1

    def fold(self, context: Context) -> dict[str, float]:
        """Move the sums of all workers to rank 0, so that its state alone is the whole state; returns them."""
        if not self.sums:
            return {}
        total = context.all_reduce(torch.stack(list(self.sums.values())))
        if context.world_size > 1:
            self.sums = dict(zip(self.sums, total if context.rank == 0 else torch.zeros_like(total), strict=True))
        return dict(zip(self.sums, total.tolist(), strict=True))

    def take(self, context: Context) -> dict[str, float]:
        """The means over steps and workers; starts over."""
        if not self.sums:
            return {}
        total = context.all_reduce(torch.stack(list(self.sums.values()))) / (self.count * context.world_size)
        means = dict(zip(self.sums, total.tolist(), strict=True))
        self.sums, self.count = {}, 0
        return means

    def state(self) -> dict[str, float | int]:
        return {"count": self.count, **{f"sum/{name}": value.item() for name, value in self.sums.items()}}

    def restore(self, state: Mapping[str, float | int], rank: int) -> None:
        """Take back a folded state; only rank 0 carries the sums, the others count along with zeros."""
        self.count = int(state["count"])
        self.sums = {
            name.removeprefix("sum/"): torch.tensor(
                value if rank == 0 else 0.0, dtype=torch.float64, device=self.device
            )
            for name, value in state.items()
            if name.startswith("sum/")
        }


class Sums:
    """The `Metrics` of an evaluation."""

    def __init__(self) -> None:
        self.means: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.rows: dict[str, list[Tensor]] = {}

    def add(self, name: str, total: Tensor, count: Tensor | int) -> None:
        total = total.detach().double()
        pair = torch.stack([total, torch.as_tensor(count, dtype=torch.float64, device=total.device)])
        self.means[name] = self.means[name] + pair if name in self.means else pair

    def add_counts(self, name: str, counts: Tensor) -> None:
        counts = counts.detach()
        self.counts[name] = self.counts[name] + counts if name in self.counts else counts

    def add_rows(self, name: str, rows: Tensor) -> None:
        self.rows.setdefault(name, []).append(rows.detach())

    def clear(self) -> None:
        """Keep the names and shapes of what was added, and count none of it."""
        self.means = {name: torch.zeros_like(pair) for name, pair in self.means.items()}
        self.counts = {name: torch.zeros_like(table) for name, table in self.counts.items()}
        self.rows = {name: [rows[0][:0]] for name, rows in self.rows.items()}

    def reduce(self, context: Context) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Means, and the tables of counts and of rows, over all workers."""
        means = {}
        if self.means:
            pairs = context.all_reduce(torch.stack(list(self.means.values())))
            means = {name: (pair[0] / pair[1]).item() for name, pair in zip(self.means, pairs, strict=True)}
        tables = {name: context.all_reduce(table).cpu() for name, table in self.counts.items()}
        return means, tables | {name: context.gather(torch.cat(rows)).cpu() for name, rows in self.rows.items()}


def check_finite(metrics: Mapping[str, float], step: int) -> None:
    """Stop a run that has diverged, before its weights are saved."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise WorkError(
                f"{name} became {value} at or shortly before step {step}. Lower optimizer.lr, set train.clip, "
                "or check the data; the last checkpoint is from before."
            )
