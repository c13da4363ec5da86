"""Walls between the rooms of the package that import-linter cannot see."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from assay.config.search import SAMPLERS, SCHEDULERS
from assay.tune.algorithms import CLASSES

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "platform/assay"
ALGORITHMS = {*SAMPLERS, *SCHEDULERS} - {"random", "grid", "evolution"}  # words that have other uses
CONTRACTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def parsed() -> Iterator[tuple[str, ast.Module]]:
    """Each module of ours by its path from the root of the repository."""
    for path in sorted([*PACKAGE.rglob("*.py"), *(REPOSITORY / "pipelines").rglob("*.py")]):
        yield str(path.relative_to(REPOSITORY)), ast.parse(path.read_text())


def imported(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a module imports, wherever it does so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def test_private_parts_of_ray_are_kept_together() -> None:
    users = {path for path, tree in parsed() for name in imported(tree) if name.startswith("ray.") and is_private(name)}
    assert users == {f"platform/assay/workers/{name}.py" for name in ("ray_private", "ray_trainer")}


def test_every_module_of_the_package_stands_in_a_layer() -> None:
    """import-linter insists on it as long as its contract is exhaustive; here it is known without running it."""
    (layers,) = (c for c in CONTRACTS if c["type"] == "layers" and c["containers"] == ["assay"])
    assert layers["exhaustive"] is True
    assert "exhaustive_ignores" not in layers
    named = {name.strip() for layer in layers["layers"] for name in layer.split("|")}
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert modules - {"__init__"} == named


def test_only_tracking_drives_mlflow() -> None:
    """Import-linter keeps others from importing it; here nobody else takes the MLflow client of a tracker either."""
    for path, tree in parsed():
        attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "client")
        trackers = {name for node in attributes if (name := ast.unparse(node.value)).endswith("tracker")}
        assert path.startswith("platform/assay/tracking/") or not trackers, f"{path} takes the client of {trackers}"


def test_algorithms_are_named_where_they_are_declared_alone() -> None:
    """Everyone else goes by their properties (`config.search.Traits`)."""
    allowed = ("platform/assay/config/search.py", "platform/assay/tune/algorithms/", "platform/assay/tune/rungs.py")
    for path, tree in parsed():
        names = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)} & ALGORITHMS
        assert path.startswith(allowed) or not names, f"{path} names {sorted(names)}"


def test_every_sampler_has_its_class() -> None:
    assert set(CLASSES) == set(SAMPLERS)
