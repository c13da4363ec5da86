"""What a network costs: by hand, by brute force, and as others have counted it."""

from __future__ import annotations

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.networks.convnet import body
from assay.networks.costs import costs, latency_ms
from assay.networks.receptive_field import ReceptiveField
from assay.networks.shape import NetworkConfig

CPU = torch.device("cpu")


def field(module: nn.Module, image: Tensor) -> int:
    with torch.no_grad(), ReceptiveField(image) as found:
        module.eval()(image)
    return found.side


def seen(module: nn.Module, side: int, channels: int = 1) -> int:
    """Pixels a side on which some place near the middle of the last map depends, by the gradient."""
    module = module.eval().double()
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.1)
    image = torch.ones(1, channels, side, side, dtype=torch.float64, requires_grad=True)
    made = module(image)
    middle, found = made.shape[-1] // 2, 0
    for place in range(middle - 2, middle + 2):
        (slope,) = torch.autograd.grad(made[0, :, place, place].sum(), image, retain_graph=True)
        for touched in (slope[0].abs().sum((0, 1)) > 0, slope[0].abs().sum((0, 2)) > 0):
            places = touched.nonzero()[:, 0]
            found = max(found, int(places[-1] - places[0]) + 1)
    return found


def test_costs_are_those_counted_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    found = costs(network, torch.zeros(3, 1, 8, 8), CPU)
    assert found.parameters == (9 * 4 + 4) + 9 * 2 * 8 + 16 + (80 + 10)
    assert found.macs == 9 * 4 * 64 + 9 * 2 * 8 * 16 + 80
    assert found.receptive_field == 1 + 2 + 1 + 2 * 2
    assert 0.005 < found.latency_ms < 20
    assert found.metrics == {
        "cost/parameters": found.parameters,
        "cost/macs": found.macs,
        "cost/receptive_field": found.receptive_field,
        "cost/latency_ms": found.latency_ms,
    }


@pytest.mark.parametrize(
    ("architecture", "side", "parameters", "macs", "field"),
    [
        ("resnet18", 224, 11_689_512, 1.814e9, 435),  # Araujo, Norris and Sim, table 1
        ("resnet50", 224, 25_557_032, 4.089e9, 427),
        ("vit_tiny_patch16_224", 224, 5_717_416, 1.254e9, 224),  # each place attends to the whole image
    ],
)
def test_known_networks_cost_what_is_known(
    architecture: str, side: int, parameters: int, macs: float, field: int
) -> None:
    found = costs(timm.create_model(architecture), torch.zeros(1, 3, side, side), CPU)
    assert found.parameters == parameters
    assert found.macs == pytest.approx(macs, rel=1e-3)
    assert found.receptive_field == field


class Branches(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Backwards(nn.Module):
    """Channels are the last dimension, as in ConvNeXt."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2)


def conv(into: int, out: int, kernel: int | tuple[int, int], **how: int) -> nn.Module:
    return nn.Conv2d(into, out, kernel, padding="same" if "stride" not in how else 0, bias=False, **how)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Sequential(conv(1, 2, 3), conv(2, 2, 5)), 7),
        (nn.Sequential(conv(1, 2, 3, stride=2), conv(2, 2, 3)), 7),
        (nn.Sequential(conv(1, 2, 3, dilation=3), nn.AvgPool2d(3, 2, 1), conv(2, 2, 3)), 13),
        (nn.Sequential(conv(1, 2, (1, 7)), conv(2, 2, (3, 1))), 7),
        (Branches(conv(1, 2, 3), nn.Sequential(conv(1, 2, 5), conv(2, 2, 5)), nn.Identity()), 9),
        (nn.Sequential(nn.AvgPool2d(2), conv(1, 2, 3), nn.Upsample(scale_factor=2), conv(2, 2, 3)), 8),
        (nn.Sequential(nn.AvgPool2d(4), nn.Upsample(scale_factor=2, mode="bilinear"), conv(1, 1, 3)), 12),
        (nn.Sequential(conv(1, 2, 3, stride=2), nn.ConvTranspose2d(2, 1, 4, 2, 1), conv(1, 1, 3)), 7),
        (nn.Sequential(conv(1, 2, 3, stride=2), nn.ConvTranspose2d(2, 1, 3, 2, 1), conv(1, 1, 3)), 7),
    ],
)
def test_receptive_fields_are_those_of_brute_force(network: nn.Module, expected: int) -> None:
    assert field(network, torch.zeros(1, 1, 48, 48)) == expected
    assert seen(network, 48) == expected


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2),
            st.sampled_from([3, 5]),
            st.sampled_from(["plain", "residual", "inception"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_receptive_fields_of_shapes_are_those_of_brute_force(
    chosen: list[tuple[int, int, str, bool]], separable: bool
) -> None:
    """With averages instead of maxima and no activation, so that every pixel leaves a trace."""
    stages = [{"depth": d, "kernel": k, "block": b, "bottleneck": n, "width": 4} for d, k, b, n in chosen]
    config = NetworkConfig.model_validate(
        {"stem": 4, "stages": stages, "normalization": "none", "separable": separable}
    )
    side = 60
    network = nn.Sequential(*body(config, 1, side)[0])
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.MaxPool2d):
            network.set_submodule(name, nn.AvgPool2d(module.kernel_size, module.stride, module.padding))
        elif isinstance(module, nn.ReLU):
            network.set_submodule(name, nn.Identity())
    found = field(network, torch.zeros(1, 1, side, side))
    assert found == field(nn.Sequential(*body(config, 1, side)[0]), torch.zeros(1, 1, side, side))
    if found < side - 16:  # not cut off by the border
        assert seen(network, side) == found


@pytest.mark.parametrize(
    "head",
    [
        [nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1)],
        [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32, 3)],
        [nn.AvgPool2d(16)],
        [Backwards(), nn.AdaptiveMaxPool2d(1)],
    ],
)
def test_a_head_sees_no_farther_than_its_map(head: list[nn.Module]) -> None:
    assert field(nn.Sequential(conv(1, 2, 5), *head), torch.zeros(1, 1, 16, 16)) == 5


def test_a_network_without_an_image_has_no_field() -> None:
    made = nn.Sequential(nn.Linear(8, 32), nn.Unflatten(1, (2, 4, 4)), nn.Conv2d(2, 1, 3))
    assert costs(made, torch.zeros(2, 8), CPU).receptive_field == 0


def test_latency_grows_with_the_work_and_leaves_the_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    image = torch.zeros(1, 16, 32, 32)
    one, ten = (nn.Sequential(*(conv(16, 16, 3) for _ in range(count))) for count in (1, 10))
    assert latency_ms(ten, image) > 3 * latency_ms(one, image)
    assert torch.get_num_threads() == threads
