"""`assay doctor`: what may keep a project from working on this machine, each finding with its fix.

Only the standard library and `packaging` are imported at the top, so that it can name whatever else is missing. The
rules are pure functions of what the probes find.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from assay.errors import AssayError, InputError
from assay.git import commit_of
from assay.installed import direct_requirements, extra_parts, installed_versions, module_found, read_constraints
from assay.state import TRACKING_DATABASE, state_folder

if TYPE_CHECKING:
    from assay.settings import Settings

PYTHONS = SpecifierSet(">=3.11,<3.13")
UI_PORT = 5000
GB = 2**30
NET_SECONDS = 3.0
_INSTALL = "pip install -c constraints.txt"
_INSTALL_ALL = f"{_INSTALL} -e ."


@dataclass(frozen=True)
class Finding:
    """What one check found. If it is `ok` and has a `fix`, it is a warning."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class KnownBad:
    """Versions that do not work together, what happens then, and the fix."""

    versions: Mapping[str, str]
    symptom: str
    fix: str


KNOWN_BAD = (
    KnownBad(
        {"prefect": "==3.8.8", "fastapi": ">0.150.0"},
        "flows fail with \"Body() got an unexpected keyword argument 'min_items'\"",
        f"{_INSTALL} fastapi",
    ),
    KnownBad({"prefect": "==3.8.8", "sqlalchemy": ">=2.1"}, "no schedule ever runs", f"{_INSTALL} sqlalchemy"),
    KnownBad(
        {"torchvision": "==0.29.1", "torch": "!=2.14.1"},
        "importing torchvision fails on `torchvision::nms`",
        f"{_INSTALL} torch torchvision",
    ),
)


def diagnose(port: int = UI_PORT) -> dict[str, Any]:
    """Run every check on this machine and the project here; returns `{ok, checks}`."""
    findings = list(_all_findings(port))
    return {"ok": all(finding.ok for finding in findings), "checks": [asdict(finding) for finding in findings]}


def _all_findings(port: int) -> Iterator[Finding]:
    yield check_python(sys.version.split()[0])
    settings, root, project = find_project()
    yield project
    versions, constraints = installed_versions(), read_constraints(root)
    yield from check_packages(direct_requirements(), versions, constraints, module_found)
    yield from check_combinations(versions)
    yield check_git(root)
    yield check_dvc(root)
    yield check_program(shutil.which("assay"), Path(sys.executable).parent)
    if project.ok or (root / "params.yaml").exists():
        yield _guarded("params.yaml", lambda: check_params(root / "params.yaml"))
    state = settings.state if settings else state_folder(root)
    yield check_folder("state folder", state)
    if settings is not None and settings.storage:
        yield check_folder("run storage", settings.runs)
    yield check_shared_memory(*shared_memory())
    yield Finding("hardware", True, hardware())
    tracking = settings.tracking if settings else f"sqlite:///{state / TRACKING_DATABASE}"
    yield _guarded("tracking store", lambda: check_tracking(tracking))
    yield _guarded("services", lambda: check_services(state, port))


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """The finding of a check that may need a missing package."""
    try:
        return check()
    except ImportError as error:
        return Finding(name, False, f"not checked: {error}", _INSTALL_ALL)


def check_python(version: str) -> Finding:
    if PYTHONS.contains(version, prereleases=True):
        return Finding("python", True, version)
    return Finding("python", False, f"{version}; Assay is known to work on {PYTHONS}", "use Python 3.11")


def check_packages(
    requirements: Sequence[Requirement],
    versions: Mapping[str, str],
    constraints: Mapping[str, str],
    found: Callable[[str], bool],
) -> Iterator[Finding]:
    """Each direct dependency: installed with its extras, importable, and of the version known to work.

    `versions` and `constraints` map canonical names to versions; `found` tests whether a package's module exists.
    """
    if not requirements:
        yield Finding("package assay", False, "not installed as a package", _INSTALL_ALL)
    if not constraints:
        yield Finding(
            "constraints.txt", True, "not found: versions are not compared", "run this in a checkout of Assay"
        )
    for requirement in requirements:
        yield _check_package(requirement, versions, constraints, found)


def _check_package(
    requirement: Requirement, versions: Mapping[str, str], constraints: Mapping[str, str], found: Callable[[str], bool]
) -> Finding:
    name, key, spelt = f"package {requirement.name}", canonicalize_name(requirement.name), str(requirement)
    fix = f"{_INSTALL} '{spelt}'"
    if key not in versions:
        return Finding(name, False, "not installed", fix)
    version, known = versions[key], constraints.get(key, "")
    if not found(key):
        return Finding(name, False, f"{version} is installed, but its module is missing", f"{fix} --force-reinstall")
    missing = [part for part in extra_parts(requirement) if part not in versions]
    if missing:
        return Finding(name, False, f"{spelt} is incomplete: {', '.join(missing)} missing", fix)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(name, False, f"{version}, but {requirement.specifier} is required", fix)
    if known and not _same(version, known):
        return Finding(name, True, f"{version}, not {known} as in constraints.txt: not known to work", fix)
    return Finding(name, True, version)


def check_combinations(versions: Mapping[str, str], table: Sequence[KnownBad] = KNOWN_BAD) -> Iterator[Finding]:
    """One failure for each known-bad set of versions, or a single good finding."""
    found = [bad for bad in table if all(_fits(versions.get(name), spec) for name, spec in bad.versions.items())]
    for bad in found:
        together = " with ".join(f"{name} {versions[name]}" for name in bad.versions)
        yield Finding("combination " + "+".join(bad.versions), False, f"{together}: {bad.symptom}", bad.fix)
    torch, vision = versions.get("torch", ""), versions.get("torchvision", "")
    builds = [version.partition("+")[2] for version in (torch, vision)]
    if torch and vision and builds[0] != builds[1]:
        detail = f"torch {torch} with torchvision {vision}: not of the same build, so importing torchvision fails"
        yield Finding("combination torch builds", False, detail, "install both from the same index")
    elif not found:
        yield Finding("combinations", True, "no versions that are known to break each other")


def _fits(version: str | None, specifier: str) -> bool:
    return version is not None and SpecifierSet(specifier).contains(version, prereleases=True)


def _same(version: str, known: str) -> bool:
    """Whether two versions are equal apart from the build (`+cpu`)."""
    try:
        return Version(version).public == Version(known).public
    except InvalidVersion:
        return version == known


def find_project() -> tuple[Settings | None, Path, Finding]:
    """The settings and the project's folder; without a project, the current folder."""
    try:
        from assay.settings import Settings

        settings = Settings()
        root = settings.root
    except ImportError as error:
        here = Path(os.environ.get("ASSAY_PROJECT") or Path.cwd())
        return None, here, Finding("project", False, f"the settings cannot be read: {error}", _INSTALL_ALL)
    except (AssayError, ValueError) as error:  # no project here, or an invalid setting
        line = " ".join(str(error).split())
        return None, Path.cwd(), Finding("project", False, line, "cd into the project, or set ASSAY_PROJECT")
    return settings, root, Finding("project", True, str(root))


def check_params(file: Path) -> Finding:
    """Every wrong line of `params.yaml`."""
    from assay.config.params import load_params

    try:
        params = load_params(file)
    except AssayError as error:
        return Finding("params.yaml", False, str(error), "correct these lines")
    detail = f"{len(params.datasets)} datasets, {len(params.experiments)} experiments"
    for name in sorted(
        {experiment.task.name for experiment in params.experiments.values() if "." in experiment.task.name}
    ):
        link = file.parent / "platform" / "assay" / "tasks" / name
        if link.parent.is_dir() and not link.exists():
            fix = f"ln -s FOLDER platform/assay/tasks/{name}, with the folder of its code"
            return Finding("params.yaml", True, f"{detail}; `dvc repro` does not find the code of task {name}", fix)
    return Finding("params.yaml", True, detail)


def check_git(root: Path) -> Finding:
    try:
        return Finding("git", True, f"commit {commit_of(root)[:12]}")
    except InputError as error:
        detail, _, fix = str(error).rpartition(": ")
        return Finding("git", False, detail, fix)


def check_dvc(root: Path) -> Finding:
    """A DVC repository here or above that does not report usage."""
    import configparser

    home = next((folder / ".dvc" for folder in (root, *root.parents) if (folder / ".dvc").is_dir()), None)
    if home is None or not (home / "config").is_file():
        detail = f"{root} is not a DVC repository" if home is None else f"{home} has no config"
        return Finding("dvc", False, detail, "dvc init && dvc config core.analytics false")
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(home / "config", encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        return Finding("dvc", False, f"{home / 'config'}: {' '.join(str(error).split())}", "correct the file")
    if config.get("core", "analytics", fallback="true").lower() != "false":
        return Finding("dvc", True, f"{home}; it reports usage to DVC's makers", "dvc config core.analytics false")
    return Finding("dvc", True, str(home))


def check_program(found: str | None, environment: Path) -> Finding:
    """`dvc repro` runs `assay` from PATH; it must be the one of this environment."""
    activate = f'export PATH="{environment}:$PATH"'
    if found is None:
        return Finding("assay on PATH", False, "not found, but `dvc repro` runs it", activate)
    if Path(found).parent.resolve() != environment.resolve():
        return Finding("assay on PATH", True, f"{found} belongs to another environment", activate)
    return Finding("assay on PATH", True, found)


def check_folder(name: str, folder: Path) -> Finding:
    """A folder that can be written to or created, on a disk with free space. Leaves nothing behind."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding(name, False, f"{folder}: not writable: {error.strerror}", f"make {existing} a writable folder")
    return check_space(name, folder, free)


def check_space(name: str, folder: Path, free: int) -> Finding:
    detail = f"{folder}, {free / GB:.1f} GB free"
    fix = f"free space on the disk of {folder}" if free < 5 * GB else ""
    return Finding(name, free >= GB, detail, fix)


def shared_memory() -> tuple[int | None, int]:
    """(free bytes of /dev/shm, bytes of memory)."""
    memory = 0
    with suppress(ValueError, OSError, AttributeError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return shutil.disk_usage("/dev/shm").free, memory  # noqa: S108 - the system's own folder
    except OSError:
        return None, memory


def check_shared_memory(free: int | None, memory: int) -> Finding:
    """Ray keeps objects in shared memory, up to 30 % of memory."""
    if free is None:
        return Finding("shared memory", True, "this system has no /dev/shm")
    wanted = 0.3 * memory
    if free >= wanted:
        return Finding("shared memory", True, f"{free / GB:.1f} GB free")
    detail = f"{free / GB:.1f} GB free; Ray needs {wanted / GB:.1f} GB, otherwise it uses the slower disk"
    return Finding("shared memory", True, detail, f"start the container with --shm-size={max(wanted / GB, 1):.0f}g")


def hardware() -> str:
    """Usable cores and the GPUs that the driver names."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    code, text = _output(["nvidia-smi", "-L"])
    gpus = [re.sub(r" \(UUID.*", "", line) for line in text.splitlines() if line.startswith("GPU")] * (code == 0)
    return f"{cores} CPU cores, {', '.join(gpus) or 'no GPU'}"


def _output(command: list[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout


def check_tracking(uri: str) -> Finding:
    """The tracking store: a database that can be written to, or a server that answers within 3 seconds."""
    from assay.redaction import hide_login
    from assay.services.stores import sqlite_file, store_error

    shown = str(sqlite_file(uri) or hide_login(uri))
    error = store_error(uri, NET_SECONDS)
    if error:
        return Finding("tracking store", False, f"{shown}: {error}", "fix or start it, or correct ASSAY_TRACKING_URI")
    return Finding("tracking store", True, shown)


def check_services(state: Path, port: int) -> Finding:
    """What `assay up` has started; otherwise the port of `assay ui`, which may be taken, as others can be used."""
    from assay.services.net import port_owner
    from assay.services.running import described

    what, better = described(state)
    if what:
        return Finding("services", True, what, better)
    owner = port_owner(port)
    if owner is None:
        return Finding("services", True, f"not running; port {port} is free for `assay ui`")
    return Finding("services", True, f"not running; port {port} is taken by {owner}", f"assay ui --port {port + 1}")
