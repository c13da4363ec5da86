"""Taking over a pretrained network: which part learns when, and how fast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from assay.networks.catalog import Network
from assay.tasks.classification.config import TransferConfig

Stage = list[nn.Module]


def stages(network: nn.Module) -> list[Stage]:
    """The parts of a network that thaw together, the head first, then from it down to the input.

    A stage is a child of the network, or of a list of children in it; one without convolution or matrix (a lone
    normalization) belongs to the child before it. Parameters of the network itself are in no stage.
    """
    if not isinstance(network, Network):
        *body, head = network.children()
        return [[head], *([child] for child in reversed(body) if _learns(child))]
    heads = [network.body.get_submodule(name) for name in network.head]
    inside_heads = {id(p) for head in heads for p in head.parameters()}
    found: list[Stage] = []
    for child in _blocks(network.body, network.head):
        learnt = [p for p in child.parameters() if id(p) not in inside_heads]
        if not learnt:
            continue
        if found and all(p.ndim < 2 for p in learnt):
            found[-1].append(child)
        else:
            found.append([child])
    return [heads, *reversed(found)]


def _blocks(body: nn.Module, heads: Sequence[str]) -> Iterator[nn.Module]:
    """The children in order, lists of them opened, and what lies around a head opened, too."""
    for name, child in body.named_children():
        if name in heads:
            continue
        inner = [head.removeprefix(f"{name}.") for head in heads if head.startswith(f"{name}.")]
        if inner or isinstance(child, (nn.Sequential, nn.ModuleList)):
            yield from _blocks(child, inner) if inner else child.children()
        else:
            yield child


def _learns(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


class Thaw:
    """Which stages of a network learn: all, or the head and as many below it as are due by now."""

    def __init__(self, network: nn.Module, config: TransferConfig) -> None:
        self.network = network
        self.config = config
        self.stages = stages(network)
        self.learning = 1 if config.freeze else len(self.stages)
        self._apply()

    def follow(self, progress: float) -> bool:
        """Thaw what is due. True if that changed anything. It follows from `progress` alone."""
        due = 1 + sum(progress >= fraction for fraction in self.config.unfreeze)
        if not self.config.freeze or min(due, len(self.stages)) == self.learning:
            return False
        self.learning = min(due, len(self.stages))
        self._apply()
        return True

    def _apply(self) -> None:
        if self.config.freeze:
            self.network.requires_grad_(False)
            for module in self._learning():
                module.requires_grad_(True)

    def train(self) -> None:
        """Training mode for what learns; what is frozen keeps its running statistics."""
        if self.config.freeze:
            self.network.eval()
            for module in self._learning():
                module.train()

    def _learning(self) -> Iterable[nn.Module]:
        return [module for stage in self.stages[: self.learning] for module in stage]

    def trainable(self) -> int:
        """How many parameters learn at the end of the training."""
        if not self.config.freeze:
            return sum(p.numel() for p in self.network.parameters())
        last = self.stages[: 1 + len(self.config.unfreeze)]
        return sum({id(p): p.numel() for stage in last for module in stage for p in module.parameters()}.values())

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """All parameters for the optimizer, a group a stage; those of no stage learn like the deepest one."""
        if self.config.decay == 1:
            return [{"params": list(self.network.parameters()), "lr": rate}]
        seen: set[int] = set()
        groups = []
        parts = [[p for module in stage for p in module.parameters()] for stage in self.stages]
        parts[-1] += self.network.parameters()
        for depth, parameters in enumerate(parts):
            mine = [p for p in parameters if id(p) not in seen and not seen.add(id(p))]  # type: ignore[func-returns-value]
            groups.append({"params": mine, "lr": rate * self.config.decay**depth})
        return groups
