"""Networks of torchvision and timm by name: classifiers, feature maps and perceptual activations, with their weights.

All take normalized images [B, C, H, W] and compute in channels-last order, which is faster on CPUs and GPUs alike.
A grey image is repeated over three channels if the network has been, or could have been, pretrained on colour.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from assay.errors import InputError, known
from assay.networks import weights as stored
from assay.networks.libraries import import_timm, import_torchvision
from assay.networks.names import parts

IMAGENET_CLASSES = 1000
SIZES = (32, 48, 64, 96, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)


class Network(nn.Module):
    """A library's classifier: normalized [B, C, H, W] to logits [B, K]. `head` names the modules that compute them."""

    def __init__(self, body: nn.Module, repeat: bool, head: Sequence[str]) -> None:
        super().__init__()
        self.body = body.to(memory_format=torch.channels_last)
        self.repeat = repeat
        self.head = tuple(head)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(_laid_out(images, self.repeat))
        return logits


class FeatureMaps(nn.Module):
    """Normalized [B, C, H, W] to a list of maps [B, channels[i], H / strides[i], W / strides[i]], rounded up."""

    def __init__(self, body: nn.Module, repeat: bool, channels: list[int], strides: list[int], origin: str) -> None:
        super().__init__()
        self.body = body.to(memory_format=torch.channels_last)
        self.repeat = repeat
        self.channels = channels
        self.strides = strides
        self.origin = origin

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.body(_laid_out(images, self.repeat))
        return list(maps.values()) if isinstance(maps, dict) else list(maps)


class Perceptual(nn.Module):
    """Normalized [B, 3, H, W] to {layer: [B, c, h, w]}. Frozen: no weight learns, and it stays in evaluation mode."""

    def __init__(self, body: nn.Module, origin: str) -> None:
        super().__init__()
        self.body = body.to(memory_format=torch.channels_last).requires_grad_(False)
        self.origin = origin
        self.eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(self.body(images.contiguous(memory_format=torch.channels_last)))

    def train(self, mode: bool = True) -> Perceptual:  # noqa: ARG002
        """Stay in evaluation mode: running statistics must not change."""
        return super().train(False)


def classifier(
    architecture: str,
    *,
    channels: int,
    classes: int,
    weights: str,
    image_size: int,
    dropout: float,
    pretrained: bool = True,
) -> tuple[Network, str]:
    """A network for `classes` classes, and where its weights came from.

    Args:
        weights: "none", "imagenet" or a path. The head keeps its random start if its number of classes differs.
        image_size: pixels a side, for networks that are built for one size.
        dropout: for the network's own dropout layers or, if it has none, before the head.
        pretrained: whether to load the weights; False if trained ones will replace them anyway.

    Raises:
        InputError: an unknown network, or weights that are missing or do not fit.
    """
    repeat = _repeats(architecture, channels, weights)
    body, options = _create(architecture, 3 if repeat else channels, classes, image_size, weights)
    head = _head(body)
    origin = _fill(body, architecture, weights, head, options, pretrained)
    _set_dropout(body, head, dropout)
    return Network(body, repeat, head), origin


def feature_maps(
    architecture: str,
    *,
    channels: int,
    weights: str,
    pretrained: bool = True,
    strides: tuple[int, ...] = (4, 8, 16, 32),
) -> FeatureMaps:
    """The maps of a network at these strides, the last (deepest) at each.

    Raises:
        InputError: an unknown network, one without maps at these strides, or weights that do not fit.
    """
    library, name = parts(architecture)
    repeat = _repeats(architecture, channels, weights)
    full, options = _create(architecture, 3 if repeat else channels, IMAGENET_CLASSES, None, weights)
    origin = _fill(full, architecture, weights, _head(full), options, pretrained)
    if library == "torchvision":
        nodes, wide = _nodes_at(full, architecture, strides)
        return FeatureMaps(_extractor(full, nodes, architecture), repeat, wide, list(strides), origin)
    import timm

    make: Any = partial(timm.create_model, name, features_only=True, in_chans=options["in_chans"])
    try:
        info = make().feature_info
        offered = info.reduction()
        body = make(out_indices=tuple(max(i for i, s in enumerate(offered) if s == stride) for stride in strides))
    except ValueError:
        raise InputError(f"{architecture}: has maps at the strides {offered}, not at all of {list(strides)}") from None
    except (RuntimeError, AttributeError, AssertionError):
        raise InputError(f"{architecture}: gives no feature maps: take another, such as timm:resnet18") from None
    if hasattr(body, "_stage_out_idx"):  # timm's EfficientNets and MobileNets continue after the last map
        body.blocks = body.blocks[: max(body._stage_out_idx)]
    tensors = {_plain(key): tensor for key, tensor in full.state_dict().items()}
    body.load_state_dict({key: tensors[_plain(key)] for key in body.state_dict()})
    return FeatureMaps(body, repeat, body.feature_info.channels(), list(strides), origin)


def perceptual(architecture: str, *, weights: str, layers: tuple[str, ...]) -> Perceptual:
    """Named activations of a frozen network. A layer is the name of a module, such as `features.3` or `blocks.2`.

    Raises:
        InputError: an unknown network or layer, or weights that do not fit.
    """
    body, options = _create(architecture, 3, IMAGENET_CLASSES, None, weights)
    origin = _fill(body, architecture, weights, _head(body), options, pretrained=True)
    for module in body.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment] # otherwise the next layer overwrites this one's output
    names = [name for name, _ in body.named_modules() if name]
    for layer in layers:
        if layer not in names:
            raise InputError(known(f"layer of {architecture}", layer, names))
    return Perceptual(_extractor(body.eval(), {layer: layer for layer in layers}, architecture), origin)


def normalization(architecture: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each of three channels, in 0..1, that the pretrained weights were learnt with."""
    library, name = parts(architecture)
    _known(architecture)
    if library == "torchvision":
        from torchvision.models import get_model_weights

        transforms = get_model_weights(name).DEFAULT.transforms()
        return tuple(transforms.mean), tuple(transforms.std)
    import timm

    config = timm.get_pretrained_cfg(name)
    return (tuple(config.mean), tuple(config.std)) if config else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def check(architecture: str, weights: str, image_size: int, channels: int) -> None:
    """Refuse what could not be built: an unknown name, images too small, weights that are missing or do not fit.

    Nothing is computed: only shapes are followed (on the meta device).

    Raises:
        InputError: the key, what is wrong, and the fix.
    """
    repeat = _repeats(architecture, channels, weights)
    into = 3 if repeat else channels
    body, options = _create_empty(architecture, into, image_size, weights)
    if not _takes(body, into, image_size):
        larger = (size for size in SIZES if size > image_size)
        fit = next((s for s in larger if _takes(_create_empty(architecture, into, s, weights)[0], into, s)), None)
        fix = f"it takes images of {fit} or more" if fit else "take another network"
        raise InputError(f"task.image_size: {image_size} is too small for {architecture}: {fix}")
    if weights != "none":
        stored.load(architecture, weights, body.state_dict(), head=_head(body), options=options)


def _plain(key: str) -> str:
    """A tensor's name in the whole network, from its name in timm's network of feature maps, which flattens names."""
    return key.removeprefix("model.").replace("_", ".")


def _laid_out(images: Tensor, repeat: bool) -> Tensor:
    if repeat:
        images = images.expand(-1, 3, -1, -1)
    return images.contiguous(memory_format=torch.channels_last)


def _repeats(architecture: str, channels: int, weights: str) -> bool:
    """Whether grey is repeated as colour: if the network is pretrained, or torchvision's, which take only colour."""
    return channels == 1 and (weights != "none" or parts(architecture)[0] == "torchvision")


def _known(architecture: str) -> str:
    """The name in its library. Raises `InputError` with the nearest names if it is unknown."""
    library, name = parts(architecture)
    if library == "torchvision":
        import_torchvision()
        from torchvision import models

        names = models.list_models(module=models)
    else:
        import_timm()
        import timm

        names = timm.list_models()
    if name not in names:
        import difflib

        nearest = ", ".join(difflib.get_close_matches(name, names, n=3)) or "nothing like it"
        raise InputError(f"task.architecture: {library} has no network {name!r}; it has {nearest}")
    return name


def _create(
    architecture: str, channels: int, classes: int, image_size: int | None, weights: str
) -> tuple[nn.Module, dict[str, Any]]:
    """The library's network with its own random start, and the options it was made with."""
    library, name = parts(architecture)
    _known(architecture)
    options: dict[str, Any] = {"num_classes": classes}
    if library == "timm":
        import timm

        options["in_chans"] = channels
        if image_size is not None and getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
            options["img_size"] = image_size
        return timm.create_model(name, **options), options
    from torchvision.models import get_model

    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True, "transform_input": weights != "none"}
    elif image_size is not None and name.startswith("vit_"):
        options["image_size"] = image_size
    elif image_size is not None and name.startswith("maxvit"):
        options["input_size"] = (image_size, image_size)
    return get_model(name, weights=None, **options), options


def _create_empty(architecture: str, channels: int, image_size: int, weights: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network without memory for its weights. Raises `InputError` if it cannot be made for the size."""
    try:
        with torch.device("meta"):
            return _create(architecture, channels, IMAGENET_CLASSES, image_size, weights)
    except (AssertionError, ValueError, ZeroDivisionError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"task.image_size: {image_size} does not suit {architecture}: {detail}") from None


def _takes(body: nn.Module, channels: int, image_size: int) -> bool:
    """Whether images of this size are large enough to reach the end of the network, also in training."""
    images = torch.zeros(2, channels, image_size, image_size, device="meta")
    try:
        body.train()(images)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def _fill(
    body: nn.Module, architecture: str, weights: str, head: Sequence[str], options: dict[str, Any], pretrained: bool
) -> str:
    """Load the weights into `body`; returns their origin in words."""
    if weights == "none":
        return "random"
    if not pretrained:
        return "trained before"
    state, origin = stored.load(architecture, weights, body.state_dict(), head=head, options=options)
    body.load_state_dict(state, strict=False)  # `load` has checked what may be missing
    for name in head:
        if not any(key.startswith(f"{name}.") for key in state):
            _start_small(body.get_submodule(name))
    return origin


def _start_small(head: nn.Module) -> None:
    """Start a new head on learnt features near zero: some libraries draw weights so large that they drown them."""
    for layer in head.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _head(body: nn.Module) -> tuple[str, ...]:
    """The names of the modules that return the logits: as timm declares them, else the last layer with weights."""
    declared = (getattr(body, "pretrained_cfg", None) or {}).get("classifier")
    if declared:
        return (declared,) if isinstance(declared, str) else tuple(declared)
    layers = [name for name, module in body.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    return (layers[-1],)


def _set_dropout(body: nn.Module, heads: Sequence[str], dropout: float) -> None:
    """Set the network's own dropout layers or, if it has none, add one before its head."""
    own = [module for module in body.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    for module in own:
        module.p = dropout
    if dropout and not own:
        for head in heads:
            body.set_submodule(head, nn.Sequential(nn.Dropout(dropout), body.get_submodule(head)))


def _extractor(body: nn.Module, nodes: dict[str, str], architecture: str) -> nn.Module:
    """The network as a function that returns {new name: output} of the named layers and computes only those."""
    library = "timm.models" if parts(architecture)[0] == "timm" else "torchvision.models.feature_extraction"
    try:  # timm knows which parts of its networks must not be traced
        extractor: nn.Module = importlib.import_module(library).create_feature_extractor(body, nodes)
        return extractor
    except Exception as error:  # symbolic tracing fails in as many ways as there are networks
        detail = " ".join(str(error).split())[:120]
        raise InputError(f"{architecture}: its layers cannot be taken out one by one ({detail})") from None


def _nodes_at(body: nn.Module, architecture: str, strides: Iterable[int]) -> tuple[dict[str, str], list[int]]:
    """For each stride, the last node whose map is smaller by that factor, and the channels of that map."""
    import copy

    from torchvision.models.feature_extraction import get_graph_node_names

    side = 256
    names = get_graph_node_names(body)[1]
    probe = _extractor(copy.deepcopy(body).to("meta").eval(), {name: name for name in names}, architecture)
    try:
        outputs = probe(torch.zeros(1, 3, side, side, device="meta"))
    except (RuntimeError, AssertionError):
        raise InputError(f"{architecture}: is made for one size: take another, such as timm:resnet18") from None
    maps = {n: o for n, o in outputs.items() if isinstance(o, Tensor) and o.ndim == 4 and o.shape[2] == o.shape[3]}
    found: dict[str, str] = {}
    channels = []
    for stride in strides:
        at = [name for name, output in maps.items() if output.shape[2] * stride == side]
        if not at:
            raise InputError(f"{architecture}: has no map at stride {stride}: take another, such as timm:resnet18")
        found[at[-1]] = f"stride_{stride}"
        channels.append(int(maps[at[-1]].shape[1]))
    return found, channels
