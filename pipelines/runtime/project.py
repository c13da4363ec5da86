"""What a project must have before flows can run its stages."""

from __future__ import annotations

from pathlib import Path

from assay.errors import InputError
from assay.usecases.helpers.places import require_repository


def require_stages(root: Path) -> None:
    """Raise `InputError`, in one line, if the project lacks git, DVC or the stages."""
    require_repository(root)
    if not (root / "dvc.yaml").is_file():
        raise InputError(
            f"{root}: no dvc.yaml, whose stages (data, train, evaluate, register) the flows run: copy the one of "
            "Assay's repository, without its deps on platform/ and constraints.txt"
        )
