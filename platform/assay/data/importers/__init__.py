"""Importers: each turns raw data into checked samples. `kind` = module name = import path; there is no central list.

A module `assay/data/importers/<kind>.py` has `class Source(SourceConfig)` and
`def scan(source, root, progress) -> Scan`. Nothing heavy is imported at its top: every command reads the config.
A source that reads a user's folder is a `FolderSource` and available to `assay data add`; its module may have
`def recognizes(folder) -> bool`, which looks only at the layout.
"""

from __future__ import annotations

from pathlib import Path

from assay.config.plugin import FolderSource, load_importer, load_source, source_kinds
from assay.errors import InputError


def folder_kinds() -> list[str]:
    """The kinds that `assay data add` can take."""
    return [kind for kind in source_kinds() if issubclass(load_source(kind), FolderSource)]


def detect(folder: Path) -> str:
    """The kind whose layout the folder has; plain class folders, which no kind recognizes, are an `image_folder`.

    Raises:
        InputError: the layout fits several kinds.
    """
    found = [kind for kind in folder_kinds() if getattr(load_importer(kind), "recognizes", lambda _: False)(folder)]
    if len(found) > 1:
        raise InputError(f"{folder}: looks like {' and like '.join(found)}: choose one with --kind")
    return found[0] if found else "image_folder"
