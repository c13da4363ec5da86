"""What is installed here, and what the project pins. The standard library and `packaging` are enough for it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from contextlib import suppress
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_MODULES = {"pillow": "PIL", "scikit-learn": "sklearn", "ruamel-yaml": "ruamel.yaml"}
"""Import names that do not follow from the name of the package."""


def installed_versions() -> dict[str, str]:
    """Every installed package, by canonical name."""
    versions: dict[str, str] = {}
    for item in importlib.metadata.distributions():
        with suppress(Exception):  # a damaged record: the package counts as missing
            versions.setdefault(canonicalize_name(item.metadata["Name"]), item.version)
    return {name: version for name, version in versions.items() if version}


def direct_requirements() -> list[Requirement]:
    """The requirements of the `assay` distribution, without its extras."""
    return _requirements("assay", frozenset({""}))


def extra_parts(requirement: Requirement) -> list[str]:
    """Canonical names of the packages that the extras of a requirement add, such as `ray[default]`."""
    if not requirement.extras:
        return []
    wanted = _requirements(requirement.name, frozenset(requirement.extras))
    return sorted({canonicalize_name(part.name) for part in wanted})


def _requirements(name: str, extras: frozenset[str]) -> list[Requirement]:
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    parsed: list[Requirement] = []
    for line in lines:
        with suppress(InvalidRequirement):
            parsed.append(Requirement(line))
    return [
        item
        for item in parsed
        if not item.marker and "" in extras or item.marker and any(item.marker.evaluate({"extra": e}) for e in extras)
    ]


def module_found(name: str) -> bool:
    """Whether a package's module can be found, without importing it."""
    module = _MODULES.get(name, name.replace("-", "_"))
    if _find(module):
        return True
    files = importlib.metadata.distribution(name).files or []
    tops = {file.parts[0].removesuffix(".py") for file in files if file.suffix == ".py"}
    return module.split(".")[0] not in tops and any(_find(top) for top in tops if top.isidentifier())


def flows_found(root: Path) -> bool:
    """Whether `python -m pipelines`, run in the folder `root`, finds the flows."""
    return (root / "pipelines" / "runtime").is_dir() or _find("pipelines.runtime")


def _find(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def read_constraints(root: Path) -> dict[str, str]:
    """The pins of the project's constraints.txt, else of the checkout that Assay runs from."""
    for folder in (root, Path(__file__).parents[2]):
        with suppress(OSError):
            return parse_constraints((folder / "constraints.txt").read_text(encoding="utf-8", errors="replace"))
    return {}


def parse_constraints(text: str) -> dict[str, str]:
    pins = (line.split("#")[0].split(";")[0].split("==") for line in text.splitlines() if "==" in line.split("#")[0])
    return {canonicalize_name(name.strip()): version.strip() for name, version, *_ in pins}
