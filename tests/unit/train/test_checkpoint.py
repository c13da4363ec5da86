"""A checkpoint comes back exactly or is named as damaged, and then the one before it comes back."""

from __future__ import annotations

import ast
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import assay
from assay.errors import WorkError
from assay.train.checkpoint import MANIFEST, Checkpoints, DamagedCheckpoint, read_checkpoint, weights_sha256

GOLDEN = "381baa4387f159a29e6c9671bec38aadba454e60bbb27e75ed5912a0c07c458e"
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    made = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) * 3
    made = made > 0 if dtype == torch.bool else made.abs().to(dtype) if dtype == torch.uint8 else made.to(dtype)
    return made.transpose(0, -1) if draw(st.booleans()) and made.dim() > 1 else made


KEYS = st.integers(-2, 12) | st.sampled_from(["", "a", "b", "a/b", "1", "model/net.0.weight", "é", "tensor", "map"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | tensors()
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=10
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        bits = torch.equal(one.contiguous().view(-1), other.contiguous().view(-1))
        return (one.dtype, one.shape) == (other.dtype, other.shape) and bits
    if isinstance(one, dict):
        return list(one) == list(other) and all(
            type(a) is type(b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    nans = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return type(one) is type(other) and (one == other or nans)


def checkpoints(folder: Path) -> tuple[Checkpoints, list[str]]:
    warnings: list[str] = []
    return Checkpoints(folder / "checkpoints", warnings.append), warnings


def state(step: int) -> dict[str, Any]:
    weights = {"model/weight": torch.full((2, 3), float(step)), "model/steps": torch.tensor(step)}
    return {"weights": weights, "position": {"step": step}, "optimizer": {"state": {0: {"momentum": torch.ones(2)}}}}


@given(st.dictionaries(st.sampled_from(["weights", "engine", "best", "position"]), TREES, max_size=4))
def test_any_tree_comes_back(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kept, warnings = checkpoints(Path(folder))
        kept.save(7, tree)
        found = kept.load()
        assert found is not None
        assert found[0] == 7
        assert same(found[1], tree)
        assert warnings == []


def test_tuples_come_back_as_lists_and_live_tensors_are_copied(tmp_path: Path) -> None:
    kept, _ = checkpoints(tmp_path)
    shared = torch.zeros(4)
    kept.save(
        1, {"a": {"betas": (0.9, 0.99), "one": shared[:2], "two": shared, "grad": torch.ones(1, requires_grad=True)}}
    )
    shared += 1
    _, tree = kept.load() or (0, {})
    assert tree["a"]["betas"] == [0.9, 0.99]
    assert [t.tolist() for t in (tree["a"]["one"], tree["a"]["two"])] == [[0, 0], [0, 0, 0, 0]]
    assert not tree["a"]["grad"].requires_grad


def test_keys_that_read_alike_stay_apart(tmp_path: Path) -> None:
    kept, _ = checkpoints(tmp_path)
    tree = {"part": {1: torch.ones(1), "1": torch.zeros(1), "a/b": torch.ones(2), "a": {"b": torch.zeros(2)}}}
    assert same(read_checkpoint(kept.save(1, tree)), tree)


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    kept, warnings = checkpoints(tmp_path)
    assert (kept.load(), kept.steps(), warnings) == (None, [], [])


def test_two_are_kept_and_leftovers_of_a_kill_are_cleared(tmp_path: Path) -> None:
    kept, _ = checkpoints(tmp_path)
    kept.save(1, state(1))
    torn = kept.folder / ".step-0000000009.12345"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes(b"half")
    assert kept.steps() == [1]
    for step in (5, 10, 200):
        kept.save(step, state(step))
    assert kept.steps() == [10, 200]
    assert sorted(path.name for path in kept.folder.iterdir()) == ["step-0000000010", "step-0000000200"]


def test_a_step_can_be_saved_again(tmp_path: Path) -> None:
    kept, _ = checkpoints(tmp_path)
    kept.save(3, state(3))
    kept.save(3, state(4))
    found = kept.load()
    assert found is not None
    assert found[1]["position"] == {"step": 4}


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    kept, _ = checkpoints(tmp_path)
    kept.save(1, state(1))
    with pytest.raises(TypeError):
        kept.save(2, {"weights": {"a": torch.ones(1)}, "position": object()})
    assert [path.name for path in kept.folder.iterdir()] == ["step-0000000001"]


def damage_everywhere(path: Path) -> list[bytes]:
    """The content with each of some bytes changed, cut at some places, and lengthened."""
    whole = path.read_bytes()
    places = sorted({*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1})
    flipped = [whole[:i] + bytes([whole[i] ^ bit]) + whole[i + 1 :] for i in places for bit in (1, 0x80)]
    return [*flipped, *(whole[:i] for i in places), whole + b"x"]


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json", MANIFEST])
def test_damage_at_any_byte_of_any_file_is_named_and_the_one_before_is_used(tmp_path: Path, name: str) -> None:
    kept, warnings = checkpoints(tmp_path)
    kept.save(1, state(1))
    target = kept.save(2, state(2))
    for content in damage_everywhere(target / name):
        (target / name).write_bytes(content)
        warnings.clear()
        found = kept.load()
        assert found is not None
        assert found[0] == 1
        assert same(found[1], state(1))
        (line,) = warnings
        assert str(target) in line
        assert "using the checkpoint before it" in line
        if name != MANIFEST:
            assert name in line


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json", MANIFEST])
def test_a_missing_file_is_damage(tmp_path: Path, name: str) -> None:
    kept, warnings = checkpoints(tmp_path)
    kept.save(1, state(1))
    (kept.save(2, state(2)) / name).unlink()
    found = kept.load()
    assert found is not None
    assert found[0] == 1
    assert name in warnings[0]


@pytest.mark.parametrize("manifest", [{}, [], 3, None, {"state.json": None}, {"state.json": 3}])
def test_a_manifest_that_says_nothing_is_damage(tmp_path: Path, manifest: Any) -> None:
    kept, _ = checkpoints(tmp_path)
    target = kept.save(2, state(2))
    (target / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(target)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname", "a/../outside.safetensors", "..", "."])
def test_a_manifest_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    kept, _ = checkpoints(tmp_path)
    target = kept.save(2, state(2))
    outside = kept.folder / "outside.safetensors"
    shutil.copy(target / "weights.safetensors", outside)
    manifest = json.loads((target / MANIFEST).read_text())
    manifest[name] = manifest["weights.safetensors"]
    (target / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(target)


def test_files_that_the_manifest_does_not_name_are_not_read(tmp_path: Path) -> None:
    kept, _ = checkpoints(tmp_path)
    target = kept.save(2, state(2))
    (target / "position.safetensors").write_bytes(b"no tensors")
    assert same(read_checkpoint(target), state(2))


def test_nothing_begins_from_a_damaged_state_of_another(tmp_path: Path) -> None:
    parent, _ = checkpoints(tmp_path / "parent")
    child, _ = checkpoints(tmp_path / "child")
    with pytest.raises(WorkError, match="there is no checkpoint to begin from"):
        child.inherit(parent.folder)
    weights = parent.save(5, state(5)) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(WorkError, match="weights.safetensors does not match its manifest"):
        child.inherit(parent.folder)
    assert child.steps() == []
    parent.save(7, state(7))
    child.inherit(parent.folder)
    assert child.steps() == [7]


def test_after_damage_the_run_goes_on_and_its_new_checkpoints_count(tmp_path: Path) -> None:
    kept, warnings = checkpoints(tmp_path)
    for step in (5, 10):
        (kept.save(step, state(step)) / "state.json").unlink()
    assert kept.load() is None
    assert len(warnings) == 3
    assert warnings[-1].endswith("the training begins anew")
    kept.save(2, state(2))
    assert kept.steps() == [2]
    found = kept.load()
    assert found is not None
    assert found[0] == 2


def test_the_hash_of_weights_sees_everything() -> None:
    base = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)}
    changes: list[dict[str, Tensor]] = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"]},
        {"a": base["a"].double(), "b": base["b"]},
        {"a": base["a"].reshape(3, 2), "b": base["b"]},
        {"a": base["a"].reshape(6), "b": base["b"]},
        {"a": base["a"], "b": torch.tensor([0.0, -0.0])},
        {"a": base["a"], "b": torch.zeros(2, dtype=torch.int32)},
        {"a": base["a"] + 1e-7, "b": base["b"]},
        {"a": base["a"], "b": torch.zeros(0)},
        {"a": base["b"], "b": base["a"]},
    ]
    assert len({weights_sha256(w) for w in [base, *changes]}) == len(changes) + 1
    assert weights_sha256(dict(reversed(base.items()))) == weights_sha256(base)
    lain = {"a": torch.arange(6.0).reshape(2, 3).t().contiguous().t(), "b": base["b"]}
    assert weights_sha256(lain) == weights_sha256(base)
    assert weights_sha256({"a": torch.tensor([1.0, float("nan")])}) == GOLDEN


@given(st.dictionaries(st.sampled_from("abc"), tensors(), max_size=3))
def test_the_hash_survives_a_checkpoint(weights: dict[str, Tensor]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kept, _ = checkpoints(Path(folder))
        assert weights_sha256(read_checkpoint(kept.save(1, {"weights": weights}))["weights"]) == weights_sha256(weights)


def test_nothing_is_ever_unpickled() -> None:
    """By what the source imports and calls: what could read a pickle must say that it does not."""
    modules = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    calls = {"torch.load", "torch.save", "torch.package", "np.load", "numpy.load", "torch.jit.load"}
    safe = {"weights_only=True", "allow_pickle=False"}
    found = []
    for path in Path(assay.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found += [f"{path}: {a.name}" for a in node.names if a.name.split(".")[0] in modules]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in modules:
                found.append(f"{path}: {node.module}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in calls and not safe & _said(node):
                found.append(f"{path}: {ast.unparse(node.func)}")
    assert found == []


def _said(call: ast.Call) -> set[str]:
    return {f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in call.keywords}
