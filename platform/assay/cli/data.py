"""`assay data`: prepare, add, list and check dataset versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.output import AsJson, log, present, progress_bar

if TYPE_CHECKING:
    from assay.config.dataset import DatasetConfig

app = typer.Typer(help="Datasets: import, version, inspect.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name under `datasets:` in params.yaml.")]
_SHOWN = 20
"""How many rejected or converted files, problems or classes are listed without --json."""
_REST = "; --json lists all"


@app.command(epilog="Example: assay data prepare digits")
def prepare(name: Name, as_json: AsJson = False) -> None:
    """Pack a dataset's raw data into data/NAME. `dvc repro data@NAME` runs this and records the version."""
    from assay.config.params import load_params
    from assay.data.dataset import prepare as prepare_dataset
    from assay.data.report import summary
    from assay.data.version import folder_hash
    from assay.settings import Settings
    from assay.state import HASHES
    from assay.storage.dvc_cache import DvcCache
    from assay.usecases.helpers.stage import unchanged

    settings = Settings()

    def block() -> DatasetConfig:
        return load_params(settings.params_file).dataset(name)

    config, folder = block(), settings.dataset_folder(name)
    with unchanged(f"dataset {name!r}", block), progress_bar(name) as progress:
        card = prepare_dataset(settings.root, name, config, folder, progress)
    DvcCache.of(settings.root).meet(folder, settings.state / HASHES)
    found, _ = folder_hash(folder, settings.state / HASHES)
    _report(summary(folder, card, found), as_json)


@app.command(epilog="Example: assay data add pets raw/pets --kind coco")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the dataset and of its first experiment.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with the images and their annotations.")],
    kind: Annotated[
        str | None, typer.Option(help="Layout of the folder: image_folder, coco, ... Default: detected.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check and pack a folder of images, record its version with DVC, and add it and an experiment to params.yaml."""
    from assay.settings import Settings
    from assay.usecases.add_data import add_folder

    root = Settings().root
    with progress_bar(name) as progress:
        result = add_folder(root, name, folder, kind, progress)
    _report(result, as_json)
    if kind is None and result["new"]:
        log(f"{name}: read as {result['kind']}; use --kind to choose another layout")
    if result["healed"] and not result["changed"]:
        log(f"{name}: unchanged since it was added; DVC's cache lacked files of it, and has them again")
    elif not result["changed"]:
        log(f"{name}: unchanged since it was added; nothing to do")
    elif result["experiment"]:
        log(f"{name}: added to params.yaml; to train its {result['task']} model: assay train {name}")
    elif result["new"]:
        log(f"{name}: added to params.yaml; no task provides a first experiment for it: write one under `experiments:`")
    else:
        log(f"{name}: recorded the new version")


@app.command("list", epilog="Example: assay data list --json")
def list_(as_json: AsJson = False) -> None:
    """List the datasets of params.yaml, each with its recorded version and its contents."""
    from assay.config.params import load_params
    from assay.settings import Settings

    settings = Settings()
    params = load_params(settings.params_file)
    rows = [_row(settings.root, name, params.datasets[name].source.kind, as_json) for name in sorted(params.datasets)]
    present({"datasets": rows}, as_json, _render_list)


@app.command(epilog="Example: assay data check digits")
def check(name: Name, as_json: AsJson = False) -> None:
    """Check a dataset: its files against dvc.lock, every packed image, and whether the raw data has changed."""
    from assay.config.params import load_params
    from assay.settings import Settings
    from assay.usecases.check_data import check_dataset

    settings = Settings()
    config = load_params(settings.params_file).dataset(name)
    with progress_bar(name) as progress:
        result = check_dataset(settings.root, name, config, settings.dataset_folder(name), progress)
    _report(result, as_json)
    if not result["ok"]:
        raise typer.Exit(1)


def _row(root: Path, name: str, kind: str, full: bool) -> dict[str, Any]:
    """One line of the list. `state` is ready, missing, unrecorded or changed (`detail` gives the fix).

    `rejected` lists all rejected files if the row is to be `full`; else it is their number, which the card holds.
    """
    from assay.data.dataset import open_dataset, read_card
    from assay.data.report import read_report
    from assay.data.version import recorded_hash
    from assay.errors import InputError

    folder = root / "data" / name
    recorded = recorded_hash(root, name)
    row: dict[str, Any] = {"name": name, "kind": kind, "annotation": None, "hash": recorded, "samples": None}
    row |= {"boxes": None, "classes": None, "rejected": None, "state": "ready", "detail": ""}
    try:
        card = open_dataset(root, name, folder).card
    except InputError as error:
        present_folder = folder.is_dir()
        row["state"] = ("changed" if recorded else "unrecorded") if present_folder else "missing"
        row["detail"] = str(error)
        try:
            card = read_card(folder, name)
        except InputError:
            return row
    row |= {"annotation": card.annotation, "samples": sum(card.samples.values()), "boxes": card.boxes}
    row |= {"classes": card.classes, "rejected": card.rejected.count}
    if full:
        try:
            row["rejected"] = read_report(folder, card).rejected
        except InputError:  # the detail names the damage
            row["rejected"] = card.rejected.first
    return row


def _report(result: Mapping[str, Any], as_json: bool) -> None:
    """A short table on standard output, then on standard error what needs attention, one line each."""
    present(result, as_json, _summary)
    if as_json:
        return
    lines = _some([f"problem: {line}" for line in result.get("problems", [])])
    lines += [f"warning: {line}" for line in result["warnings"]]
    lines += rejections(result)
    lines += _some([f"converted: {item['file']}: {item['change']}" for item in result.get("converted", [])])
    for line in lines:
        log(printable(line))


def _summary(result: Mapping[str, Any]) -> Any:
    from assay.cli.output import table

    splits = ", ".join(f"{split} {count}" for split, count in result.get("splits", {}).items())
    classes = result["classes"]
    shown = ", ".join(classes[:_SHOWN]) + (", ..." if len(classes) > _SHOWN else "")
    rows = {
        "dataset": result["name"],
        "hash": result["hash"],
        "samples": f"{result['samples']}{f' ({splits})' if splits else ''}",
        "annotation": _annotation(result),
        "classes": printable(f"{len(classes)}: {shown}"),
        "rejected": str(len(result["rejected"])),
    }
    if "ok" in result:
        rows["check"] = "no problems" if result["ok"] else f"{len(result['problems'])} problems"
    return table(rows)


def _annotation(result: Mapping[str, Any]) -> str:
    boxes = "" if result["boxes"] is None else f" ({result['boxes']})"
    return f"{result['annotation'] or ''}{boxes}"


def rejections(result: Mapping[str, Any], rest: str = _REST) -> list[str]:
    """A line for each file that was left out. `rest` ends the last line, if there are more than are shown."""
    return _some([f"rejected: {item['file']}: {item['reason']}" for item in result["rejected"]], rest)


def _some(lines: list[str], rest: str = _REST) -> list[str]:
    if len(lines) <= _SHOWN:
        return lines
    return [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more{rest}"]


def _render_list(result: Mapping[str, Any]) -> Any:
    from rich.table import Table

    grid = Table(box=None, padding=(0, 1, 0, 0))
    for title in ("dataset", "kind", "samples", "annotation", "classes", "rejected", "hash", "state"):
        grid.add_column(title, justify="left", overflow="fold")
    for row in result["datasets"]:
        classes = "" if row["classes"] is None else str(len(row["classes"]))
        samples, rejected = ("" if row[key] is None else str(row[key]) for key in ("samples", "rejected"))
        version = (row["hash"] or "")[:8]
        grid.add_row(row["name"], row["kind"], samples, _annotation(row), classes, rejected, version, row["state"])
    return grid


def printable(text: str) -> str:
    """Text with line breaks and terminal codes, which file names may contain, written as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
