"""`assay data add`: from a folder of images to a recorded version and an experiment. It does all of it or nothing."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from assay.config.card import Card
from assay.config.dataset import DatasetConfig
from assay.config.experiment import ExperimentConfig
from assay.config.params import Params, load_params, parse_params, read_yaml
from assay.config.params_file import Block, add_block, set_values
from assay.config.plugin import FolderSource, SourceConfig, load_config, load_source, task_names
from assay.config.schema import resolved
from assay.data.dataset import build, divide, read_card, refuse_overlap, scan_source
from assay.data.importers import detect, folder_kinds
from assay.data.raw import folder_digest, has_empty_folder
from assay.data.report import summary
from assay.data.version import folder_hash, recorded_hash
from assay.errors import InputError, WorkError, known
from assay.files import new_folder, swapped, write_atomic
from assay.progress import Progress
from assay.scratch import scratch_folder
from assay.state import ADD_LOCK, HASHES, state_folder
from assay.storage.dataset_cache import amount
from assay.storage.dvc_cache import DvcCache
from assay.system_errors import refusal

_BOM = "\ufeff"


def add_folder(root: Path, name: str, folder: Path, kind: str | None, progress: Progress) -> dict[str, Any]:
    """Pack a folder of images, record the version with DVC, and add its blocks to `params.yaml`.

    If `kind` is None, it is that of the existing dataset, or for a new one detected from the folder. Adding an
    unchanged folder again changes nothing; a changed one becomes the new version. On any failure and on Ctrl-C,
    `params.yaml`, `dvc.lock` and the dataset are restored.

    Returns the contents of the card, `kind`, `changed`, `new` (the dataset did not exist before), `healed` (DVC's cache
    lacked files of the recorded version, and has them again, if that is still the version), `experiment`, the name of
    the experiment that was added (None if it existed, or if no task fits such data), and its `task`.

    Raises:
        InputError: something is wrong with the name, the project or the folder; nothing was written.
        WorkError: DVC failed; everything was restored.
    """
    params = _require_project(root, name)
    raw = folder.resolve()
    if not raw.is_dir():
        raise InputError(f"{folder}: {'not a folder' if raw.exists() else 'no such folder'}")
    target = root / "data" / name
    refuse_overlap(raw, target.resolve(), name)
    path = raw.relative_to(root.resolve()).as_posix() if raw.is_relative_to(root.resolve()) else str(raw)
    with _only_one(root):
        old = params.datasets.get(name)
        kind = _kind(name, raw, kind, old)
        if old is not None and _is_current(root, name, old, path, raw, target):
            return _result(root, name, read_card(target, name), changed=False, new=False, experiment=None)
        before, lost = _state(root, name), _lost(root, name, target)
        source = load_source(kind).model_validate({"path": path, "sha256": ""})
        card, experiment = _import(root, name, source, old, params, progress)
        changed = _state(root, name) != before
        return _result(root, name, card, changed=changed, new=old is None, experiment=experiment, healed=lost)


def _kind(name: str, raw: Path, kind: str | None, old: DatasetConfig | None) -> str:
    """The kind of the folder. Raises `InputError` for an unknown kind, and for a kind other than the dataset's."""
    if kind is not None and kind not in folder_kinds():
        raise InputError(f"--kind: {known('kind of folder', kind, folder_kinds())}")
    if old is None:
        return kind or detect(raw)
    if kind not in (None, old.source.kind) or not isinstance(old.source, FolderSource):
        raise InputError(f"datasets.{name} already exists with kind {old.source.kind!r}: choose another name")
    return old.source.kind


def _state(root: Path, name: str) -> tuple[bytes, str | None]:
    return (root / "params.yaml").read_bytes(), recorded_hash(root, name)


def _require_project(root: Path, name: str) -> Params:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name):
        raise InputError(f"{name!r}: a name has at most 63 lower-case letters, digits, - and _, and not - or _ first")
    if not any((parent / ".git").exists() for parent in (root, *root.parents)):
        raise InputError(f"{root}: not a git repository: run `git init`")
    if not (root / ".dvc").is_dir():
        raise InputError(f"{root}: not a DVC repository: run `dvc init`")
    if not (root / "dvc.yaml").is_file():
        raise InputError(f"{root}: dvc.yaml with the stages is missing: run `git checkout dvc.yaml`")
    return load_params(root / "params.yaml")


@contextmanager
def _only_one(root: Path) -> Iterator[None]:
    """Allow only one `data add` at a time: two would overwrite each other's `params.yaml`."""
    from filelock import FileLock, Timeout

    state_folder(root).mkdir(exist_ok=True)
    try:
        with FileLock(state_folder(root) / ADD_LOCK, timeout=0):
            yield
    except Timeout:
        raise InputError("another `assay data add` is running in this project: wait until it has finished") from None


def _is_current(root: Path, name: str, old: DatasetConfig, path: str, raw: Path, target: Path) -> bool:
    """Whether exactly this folder is already added, packed and recorded."""
    assert isinstance(old.source, FolderSource)
    if old.source.path != path or not target.is_dir():
        return False
    recorded = recorded_hash(root, name)
    version, md5s = folder_hash(target, state_folder(root) / HASHES)
    if recorded != version or missing_in_cache(root, target, version, md5s):
        return False
    if has_empty_folder(raw):
        return False  # the digest covers only files, and a new empty folder may be a class without images
    return bool(folder_digest(raw) == old.source.sha256)


def _import(
    root: Path, name: str, source: SourceConfig, old: DatasetConfig | None, params: Params, progress: Progress
) -> tuple[Card, dict[str, Any] | None]:
    """Scan, pack, put in place and record; returns the card and the block of the new experiment."""
    target = root / "data" / name
    config = old.model_copy(update={"source": source}) if old else DatasetConfig(source=source)
    scan = scan_source(root, name, config, target, progress)
    division = divide(name, scan, config)
    config = config.model_copy(update={"source": source.model_copy(update={"sha256": scan.digest})})
    params_file, lock_file = root / "params.yaml", root / "dvc.lock"
    existed = target.parent.exists()
    with ExitStack() as stack:
        if not existed:
            stack.push(lambda kind, *_: _remove_if_empty(target.parent) if kind else None)
        fresh = stack.enter_context(new_folder(target))
        card = build(name, config, scan, division, fresh, progress)
        experiment = None if name in params.experiments else first_experiment(name, card)
        before = params_file.read_bytes()
        after = _edited(before, name, config, old, experiment)
        parse_params(_parsed(after, root), "params.yaml")
        stack.enter_context(swapped(fresh, target))
        stack.enter_context(_restored(lock_file))
        stack.enter_context(_restored(params_file))
        write_atomic(params_file, after)
        DvcCache.of(root).meet(target, state_folder(root) / HASHES)
        _record(root, name)
        version, md5s = folder_hash(target, state_folder(root) / HASHES)
        if recorded_hash(root, name) != version:
            raise WorkError(f"dvc.lock records another version of {name!r} than was packed, so everything was restored")
        if missing := missing_in_cache(root, target, version, md5s):
            raise WorkError(
                f"DVC says that data@{name} is recorded, but its cache lacks {missing[0]}, so everything was restored: "
                f"the disk is probably full ({_free(missing[0])} free): make room, and add it again"
            )
    return card, experiment


def _lost(root: Path, name: str, folder: Path) -> bool:
    """Whether DVC's cache lacks files of the recorded version, and `folder` has them."""
    recorded = recorded_hash(root, name)
    if recorded is None:
        return False
    version, md5s = folder_hash(folder, state_folder(root) / HASHES)
    return recorded == version and bool(missing_in_cache(root, folder, version, md5s))


def missing_in_cache(root: Path, folder: Path, version: str, md5s: Mapping[str, str]) -> list[Path]:
    """What DVC's cache lacks of the version in `folder`, or has in another length. On a full disk DVC tells nobody."""
    sizes = {md5: (folder / path).stat().st_size for path, md5 in md5s.items()}
    return DvcCache.of(root).lacks(version, sizes)


def _free(path: Path) -> str:
    existing = next(folder for folder in path.parents if folder.exists())
    return amount(shutil.disk_usage(existing).free)


def first_experiment(name: str, card: Card) -> dict[str, Any] | None:
    """The block from the first task with a starter for such data; None if there is no such task."""
    for task in task_names():
        block = load_config(task).starter(card)
        if block is not None:
            data = {"task": block["task"], "data": name, **{k: v for k, v in block.items() if k != "task"}}
            ExperimentConfig.model_validate(data)
            return data
    return None


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _parsed(content: bytes, root: Path) -> dict[str, Any]:
    """The new `params.yaml` as data, as every command will read it."""
    with scratch_folder(root) as folder:
        path = folder / "params.yaml"
        path.write_bytes(content)
        return read_yaml(path)


@contextmanager
def _restored(path: Path) -> Iterator[None]:
    """Restore a file, byte for byte, if the block fails."""
    before = path.read_bytes() if path.exists() else None
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != before:
            write_atomic(path, before)
        raise


def _edited(
    content: bytes, name: str, config: DatasetConfig, old: DatasetConfig | None, experiment: dict[str, Any] | None
) -> bytes:
    """`params.yaml` with the dataset's block added or updated, and a new experiment's block."""
    text = content.decode("utf-8")
    mark = _BOM if text.startswith(_BOM) else ""
    text = text.removeprefix(_BOM)
    data = resolved(config)
    if old is None:
        text = add_block(text, "datasets", name, Block(data))
    else:
        source = {key: data["source"][key] for key in ("path", "sha256")}
        text = set_values(text, ("datasets", name, "source"), source)
    if experiment is not None:
        notes = {"gate": "a floor; raise it once you know what can be reached"}
        text = add_block(text, "experiments", name, Block(experiment, notes))
    return (mark + text).encode("utf-8")


def _record(root: Path, name: str) -> None:
    """Let DVC record the folder as the output of its stage. Raises `WorkError` with DVC's message."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "commit", "--force", f"data@{name}"]
    process = subprocess.Popen(
        command, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate()
    except BaseException:
        _end(process)
        raise
    if process.returncode != 0:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines
        detail = errors[0] if errors else f"exit code {process.returncode}"
        detail = str(refusal(WorkError(detail)) or detail)
        raise WorkError(f"DVC could not record data@{name}, so everything was restored: {detail}")


def _end(process: subprocess.Popen[str]) -> None:
    """Stop DVC so that it releases its locks; only then may anything be restored."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _result(
    root: Path,
    name: str,
    card: Card,
    changed: bool,
    new: bool,
    experiment: dict[str, Any] | None,
    healed: bool = False,
) -> dict[str, Any]:
    return {
        **summary(root / "data" / name, card, recorded_hash(root, name)),
        "kind": card.kind,
        "changed": changed,
        "new": new,
        "healed": healed,
        "experiment": name if experiment else None,
        "task": experiment["task"]["name"] if experiment else None,
    }
