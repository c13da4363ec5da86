"""Checkpoints: safetensors and JSON under a manifest of hashes. Nothing is ever unpickled.

A checkpoint is a folder `step-<number>`, written under a temporary name, synced and renamed: it is whole or absent.
The two newest are kept; one that does not match its manifest is reported and the one before it is used. Which one a
training begins with, all of its workers agree on: each may read a copy of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from assay.errors import WorkError
from assay.files import load_json, sync

if TYPE_CHECKING:
    from assay.task import Context

MANIFEST = "manifest.json"
KEPT = 2
NONE_LEFT = -1
Weights = dict[str, Tensor]


class DamagedCheckpoint(Exception):
    """A checkpoint is incomplete or does not match its manifest; names the file."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self.warn = warn

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a tree of plain data and tensors, and drop the oldest beyond two.

        Args:
            state: a mapping of parts; each becomes one file of tensors, all plain data one `state.json`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"step-{step:010d}"
        temporary = self.folder / f".{target.name}.{os.getpid()}"
        for torn in self.folder.glob(".step-*"):  # left by a kill
            shutil.rmtree(torn, ignore_errors=True)
        temporary.mkdir()
        try:
            _write(temporary, state)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync(self.folder)
        steps = self.steps()
        kept = [number for number in steps if number <= step][-KEPT:]  # newer ones are damaged: the run began before
        for other in set(steps) - set(kept):
            shutil.rmtree(self.folder / f"step-{other:010d}", ignore_errors=True)
        return target

    def steps(self) -> list[int]:
        """The steps of the checkpoints here, oldest first."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def inherit(self, other: Path) -> None:
        """Begin from the newest checkpoint in another run's folder, unless this one has one.

        Raises:
            WorkError: there is none, or it is damaged: what began without it would be another training.
        """
        if self.steps():
            return
        newest = max(other.glob("step-*"), default=None)
        if newest is None:
            raise WorkError(f"{other}: there is no checkpoint to begin from")
        try:
            read_checkpoint(newest)
        except DamagedCheckpoint as error:
            raise WorkError(f"the checkpoint to begin from: {error}") from None
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{newest.name}.{os.getpid()}"
        shutil.copytree(newest, temporary)
        temporary.rename(self.folder / newest.name)

    def load(self, context: Context | None = None) -> tuple[int, dict[str, Any]] | None:
        """The newest checkpoint that every worker has whole, with its step; None if there is none.

        Rank 0 proposes its own, the newest first, and all step back together from one that a worker lacks. What is
        missing or damaged is reported through `warn`.

        Args:
            context: the workers that agree; None: this process alone.
        """
        rank, ranks, device = (context.rank, context.world_size, context.device) if context else (0, 1, None)
        add: Callable[[Tensor], Tensor] = context.all_reduce if context else lambda tensor: tensor
        proposals = [*reversed(self.steps()), NONE_LEFT] if rank == 0 else []
        tried = 0
        while True:
            proposal = proposals[tried] if rank == 0 else 0
            step = int(add(torch.tensor(proposal, device=device)).item())
            if step == NONE_LEFT:
                if tried:
                    self.warn("no checkpoint is whole on every worker: the training begins anew")
                return None
            tried += 1
            state = self._read(step)
            whole = torch.zeros(ranks, dtype=torch.int64, device=device)
            whole[rank] = state is not None
            lacking = [other for other, there in enumerate(add(whole).tolist()) if not there]
            if state is not None and not lacking:
                return step, state
            if any(lacking):  # of rank 0 itself, `_read` has told
                self.warn(f"no whole checkpoint of step {step} on workers {lacking}; using the checkpoint before it")

    def _read(self, step: int) -> dict[str, Any] | None:
        try:
            return read_checkpoint(self.folder / f"step-{step:010d}")
        except DamagedCheckpoint as error:
            self.warn(f"{error}; using the checkpoint before it")
            return None


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The tree of one checkpoint, every file checked against the manifest. Raises `DamagedCheckpoint`."""
    try:
        manifest = load_json((folder / MANIFEST).read_bytes())
        if "state.json" not in manifest:
            raise DamagedCheckpoint(f"{folder / MANIFEST} does not name state.json")
        for name, expected in manifest.items():
            if Path(name).name != name or _sha256(folder / name) != expected:
                raise DamagedCheckpoint(f"{folder / name} does not match its manifest")
        skeleton = load_json((folder / "state.json").read_bytes())
        files = [path for path in folder.glob("*.safetensors") if path.name in manifest]
        tensors = {path.stem: _aligned(load_file(path)) for path in files}
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        raise DamagedCheckpoint(f"{folder} is damaged ({error})") from None
    return {part: _join(tree, tensors.get(part, {})) for part, tree in skeleton.items()}


def _aligned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies. In the memory of the file they lie at odd addresses, where sums may round differently (L-BFGS)."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """One hash of all weights: names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()


def _write(folder: Path, state: Mapping[str, Any]) -> None:
    skeleton = {}
    for part, tree in state.items():
        tensors: Weights = {}
        skeleton[part] = _split(tree, tensors, "")
        if tensors:
            save_file(tensors, folder / f"{part}.safetensors")
    (folder / "state.json").write_text(json.dumps(skeleton))
    files = sorted(path for path in folder.iterdir())
    (folder / MANIFEST).write_text(json.dumps({path.name: _sha256(path) for path in files}))
    for path in [*files, folder / MANIFEST, folder]:
        sync(path)


def _split(tree: Any, tensors: Weights, path: str) -> Any:
    """Plain data with a reference in place of each tensor; mappings become lists of pairs, for keys may be numbers."""
    if isinstance(tree, Tensor):
        while path in tensors:  # 1 and "1", or "a/b" and b in a
            path += "'"
        tensors[path] = tree.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if isinstance(tree, Mapping):
        return {
            "map": [[key, _split(value, tensors, f"{path}/{key}" if path else str(key))] for key, value in tree.items()]
        }
    if isinstance(tree, (list, tuple)):
        return {"list": [_split(value, tensors, f"{path}/{i}" if path else str(i)) for i, value in enumerate(tree)]}
    return {"value": tree}


def _join(node: dict[str, Any], tensors: Weights) -> Any:
    ((kind, value),) = node.items()
    if kind == "tensor":
        if value not in tensors:
            raise DamagedCheckpoint(f"the tensor {value} is missing")
        return tensors[value]
    if kind == "map":
        return {key: _join(child, tensors) for key, child in value}
    if kind == "list":
        return [_join(child, tensors) for child in value]
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
