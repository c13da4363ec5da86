"""Every shape can be built, for images of any size: what it gives, what it passes back, and what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.config.experiment import ExperimentConfig
from assay.config.schema import validate
from assay.errors import InputError
from assay.networks.convnet import Maps, body
from assay.networks.shape import NetworkConfig, StageConfig

blocks = st.sampled_from(["plain", "residual", "inception"])


def stages(fewest: int) -> st.SearchStrategy[StageConfig]:
    return st.builds(
        StageConfig,
        depth=st.integers(fewest, 2),
        width=st.integers(4, 20),
        kernel=st.sampled_from([3, 5, 7]),
        block=blocks,
        bottleneck=st.booleans(),
    )


networks = st.builds(
    NetworkConfig,
    stem=st.integers(4, 12),
    stages=st.tuples(stages(1), stages(0), stages(0), stages(0)),
    normalization=st.sampled_from(["batch", "group", "none"]),
    activation=st.sampled_from(["relu", "silu", "gelu"]),
    separable=st.booleans(),
)


def images(size: int, channels: int, count: int = 2) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


@given(networks, st.integers(4, 72) | st.sampled_from([127, 128, 224]), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_every_shape_learns_from_images_of_any_size(config: NetworkConfig, size: int, channels: int) -> None:
    torch.manual_seed(0)
    layers, width, side = body(config, channels, size)
    network = nn.Sequential(*layers)
    maps = network(images(size, channels))
    assert maps.shape == (2, width, side, side)
    present = [stage for stage in config.stages if stage.depth]
    assert len(layers) == 1 + len(present)
    assert width == present[-1].width
    halvings = itertools.accumulate(present[1:], lambda s, _: s // 2 if s >= 8 else s, initial=_after_stem(size))
    assert side == list(halvings)[-1]
    maps.square().mean().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def _after_stem(size: int) -> int:
    return math.ceil(size / (1 if size < 64 else 2 if size < 128 else 4))


@given(networks, st.sampled_from([(4,), (4, 8), (8, 16), (8, 16, 32), (4, 8, 16, 32), (32,)]))
@settings(max_examples=15, deadline=None)
def test_maps_have_the_strides_asked_for(config: NetworkConfig, strides: tuple[int, ...]) -> None:
    network = Maps(config, 3, strides)
    with torch.no_grad():
        maps = network(torch.randn(2, 3, 64, 96))
    expected = [(2, wide, 64 // s, 96 // s) for wide, s in zip(network.channels, strides, strict=True)]
    assert [tuple(m.shape) for m in maps] == expected
    assert len(network.stages) == int(math.log2(strides[-1])) - 1, "nothing behind the last map is computed"


@pytest.mark.parametrize("normalization", ["batch", "group", "none"])
@pytest.mark.parametrize("block", ["plain", "residual", "inception"])
def test_signals_keep_their_size_in_the_deepest_networks(block: str, normalization: str) -> None:
    torch.manual_seed(0)
    deep = [{"depth": 4, "width": 16, "block": block}] * 4
    config = NetworkConfig.model_validate({"stages": deep, "normalization": normalization})
    layers, _, _ = body(config, 1, 32)
    assert 0.05 < nn.Sequential(*layers)(images(32, 1, 8)).std() < 20


def test_a_residual_network_starts_as_its_shortcuts() -> None:
    stage = {"depth": 3, "width": 8, "block": "residual"}
    for normalization in ("batch", "group", "none"):
        config = NetworkConfig.model_validate({"stem": 8, "stages": [stage], "normalization": normalization})
        (stem, residual), _, _ = body(config, 1, 8)
        seen = stem(images(8, 1))
        torch.testing.assert_close(residual(seen), seen)


def test_a_separable_kernel_costs_a_number_a_place_and_channel() -> None:
    stage = {"depth": 1, "width": 12, "kernel": 5}
    plain = {"stem": 4, "stages": [stage], "normalization": "none"}
    count = {}
    for separable in (False, True):
        layers, _, _ = body(NetworkConfig.model_validate({**plain, "separable": separable}), 1, 8)
        count[separable] = sum(p.numel() for layer in layers for p in layer.parameters())
    stem = 9 * 4 + 4
    assert count == {False: stem + 25 * 4 * 12 + 12, True: stem + 25 * 4 + 4 * 12 + 12}


def test_stages_that_are_not_written_are_left_out() -> None:
    config = NetworkConfig.model_validate({"stages": [{"depth": 2, "width": 8}]})
    assert [stage.depth for stage in config.stages] == [2, 0, 0, 0]


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"stages": [{"depth": 0}]}, "task.network.stages.0.depth: must be 1 or more"),
        ({"stages": [{"depth": 1, "wdith": 3}]}, "task.network.stages.0.wdith"),
        ({"stages": [{"depth": 1, "kernel": 4}]}, "task.network.stages.0.kernel"),
        ({"stages": [{"depth": 1}] * 5}, "task.network.stages"),
        ({"normalization": "batchnorm"}, "task.network.normalization"),
    ],
)
def test_what_is_no_shape_is_refused_by_its_path(network: dict[str, Any], said: str) -> None:
    data = {"task": {"name": "classification", "architecture": "convnet", "network": network}, "data": "digits"}
    with pytest.raises(InputError) as refused:
        validate(ExperimentConfig, data, "params.yaml")
    assert f"params.yaml: {said}" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
