"""Networks by name: their shapes, their weights, their export, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.errors import InputError
from assay.networks.catalog import check, classifier, feature_maps, normalization, perceptual

LITE = "timm:tf_efficientnet_lite0"


def images(channels: int = 3, size: int = 64, count: int = 2) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("architecture", "size", "channels"),
    [
        ("torchvision:resnet18", 32, 1),
        ("torchvision:squeezenet1_1", 64, 3),
        ("torchvision:mobilenet_v3_small", 32, 3),
        ("timm:resnet10t", 32, 1),
        ("timm:vit_tiny_patch16_224", 48, 3),
    ],
)
def test_a_classifier_has_its_classes_and_its_batch_is_free(architecture: str, size: int, channels: int) -> None:
    network, origin = classifier(
        architecture, channels=channels, classes=5, weights="none", image_size=size, dropout=0.2
    )
    assert origin == "random"
    network.eval()
    exported = torch.export.export(
        network, (images(channels, size),), dynamic_shapes=({0: torch.export.Dim.AUTO},)
    ).module()
    several = images(channels, size, 3)
    with torch.no_grad():
        assert network(several).shape == (3, 5)
        torch.testing.assert_close(exported(several), network(several), rtol=1e-5, atol=1e-5)
    assert all(network.body.get_submodule(name) is not None for name in network.head)


def test_grey_images_are_seen_as_colour_by_a_pretrained_network() -> None:
    network, origin = classifier(LITE, channels=1, classes=2, weights="imagenet", image_size=64, dropout=0)
    assert "package" in origin
    network.eval()
    grey = images(1)
    assert torch.equal(network(grey), network(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("size", [64, 160])
def test_a_new_head_on_learnt_features_begins_unsure(size: int) -> None:
    network, _ = classifier(LITE, channels=3, classes=2, weights="imagenet", image_size=size, dropout=0)
    with torch.no_grad():
        assert network.eval()(images(size=size)).softmax(1).max() < 0.9


@pytest.mark.parametrize("architecture", ["torchvision:alexnet", "torchvision:resnet18", "timm:resnet10t"])
def test_dropout_acts_in_training_alone_and_can_be_switched_off(architecture: str) -> None:
    network, _ = classifier(architecture, channels=3, classes=5, weights="none", image_size=64, dropout=0.5)
    drops = [module for module in network.modules() if isinstance(module, nn.Dropout) and module.p == 0.5]
    assert drops
    frozen = network.eval()
    assert torch.equal(frozen(images()), frozen(images()))
    for module in drops:
        module.train()
    assert not torch.equal(network(images()), network(images()))


def test_weights_are_not_looked_for_where_trained_ones_will_come() -> None:
    made = classifier(
        "torchvision:resnet18", channels=3, classes=2, weights="gone.pth", image_size=32, dropout=0, pretrained=False
    )
    assert made[1] == "trained before"


@pytest.mark.parametrize(
    ("architecture", "strides"),
    [(LITE, (4, 8, 16, 32)), ("timm:resnet10t", (8, 32)), ("torchvision:resnet18", (4, 8, 16, 32))],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_feature_maps_have_the_strides_asked_for(architecture: str, strides: tuple[int, ...], channels: int) -> None:
    network = feature_maps(architecture, channels=channels, weights="none", strides=strides).eval()
    assert network.strides == list(strides)
    with torch.no_grad():
        maps = network(torch.randn(2, channels, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (2, width, 64 // stride, 96 // stride) for width, stride in zip(network.channels, strides, strict=True)
    ]


def test_feature_maps_are_those_of_the_whole_pretrained_network() -> None:
    network = feature_maps(LITE, channels=3, weights="imagenet", strides=(8, 32)).eval()
    whole = classifier(LITE, channels=3, classes=2, weights="imagenet", image_size=64, dropout=0)[0].eval()
    assert "package" in network.origin
    with torch.no_grad():
        expected = whole.body.forward_intermediates(images(), intermediates_only=True)
        maps = network(images())
    assert torch.equal(maps[0], expected[2])
    assert torch.equal(maps[1], expected[4])


@pytest.mark.parametrize("architecture", ["timm:vit_tiny_patch16_224", "torchvision:alexnet"])
def test_a_network_without_such_maps_is_refused(architecture: str) -> None:
    with pytest.raises(InputError, match=architecture):
        feature_maps(architecture, channels=3, weights="none", strides=(4, 8))


def test_perceptual_activations_are_frozen_and_not_overwritten() -> None:
    network = perceptual("torchvision:squeezenet1_1", weights="none", layers=("features.0", "features.3"))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = network.train()(images().requires_grad_())
    assert list(found) == ["features.0", "features.3"]
    assert found["features.0"].min() < 0  # the rectifier that follows works in place in the library
    assert found["features.0"].requires_grad  # gradients reach the image
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_perceptual_layers_of_timm() -> None:
    network = perceptual(LITE, weights="imagenet", layers=("conv_stem", "blocks.1"))
    assert {name: tuple(m.shape) for name, m in network(images()).items()} == {
        "conv_stem": (2, 32, 32, 32), "blocks.1": (2, 24, 16, 16),
    }  # fmt: skip
    with pytest.raises(InputError, match=r"did you mean 'blocks\.6'"):
        perceptual(LITE, weights="imagenet", layers=("block.6",))


def test_normalization_is_the_librarys() -> None:
    assert normalization(LITE) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalization("torchvision:vgg16") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("architecture", "weights", "size", "message"),
    [
        ("torchvision:resnet19", "none", 64, "resnet18"),
        ("timm:tf_efficientnet_lite", "none", 64, "tf_efficientnet_lite0|tf_efficientnet_lite4"),
        ("torchvision:alexnet", "none", 32, "it takes images of 64 or more"),
        ("torchvision:inception_v3", "none", 64, "it takes images of 96 or more"),
        ("torchvision:resnet18", "gone.pth", 64, "no such file"),
    ],
)
def test_what_cannot_be_built_is_refused_before(architecture: str, weights: str, size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(architecture, weights, size, 3)


@pytest.mark.parametrize(("architecture", "size"), [("torchvision:alexnet", 64), (LITE, 32), ("torchvision:vgg16", 32)])
def test_what_can_be_built_passes(architecture: str, size: int) -> None:
    check(architecture, "none", size, 1)


def test_the_installed_weights_pass() -> None:
    check(LITE, "imagenet", 64, 1)
