"""Names of networks and weights are checked for form before anything heavy is imported."""

from __future__ import annotations

import pytest

from assay.networks.names import check_architecture, check_weights, parts, weight_files


@pytest.mark.parametrize("name", ["resnet18", "timm:", "keras:vgg16", "timm:../x", "torchvision:a b"])
def test_what_names_no_network_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="library:name"):
        check_architecture(name)


def test_what_names_a_network_is_taken_apart() -> None:
    assert parts(check_architecture("timm:tf_efficientnet_lite0")) == ("timm", "tf_efficientnet_lite0")


@pytest.mark.parametrize(("weights", "files"), [("none", ()), ("imagenet", ()), ("a/b.pth", ("a/b.pth",))])
def test_weights_are_a_word_or_a_file(weights: str, files: tuple[str, ...]) -> None:
    assert weight_files(check_weights(weights)) == files


def test_other_words_are_no_weights() -> None:
    with pytest.raises(ValueError, match="safetensors"):
        check_weights("ImageNet")
