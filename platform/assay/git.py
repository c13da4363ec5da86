"""What git says of a project. A question that git cannot answer is an error, never an empty answer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from assay.errors import InputError

PURPOSE = "so that runs can be traced to code"


def git(root: Path, *arguments: str) -> str:
    """What a git command prints in a project. Raises `InputError` with git's own line if it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, env={**os.environ, "LC_ALL": "C"}, capture_output=True)
    except FileNotFoundError:
        raise InputError(f"git is not installed: install it, {PURPOSE}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace")
        line = next((line for line in said.splitlines() if line.startswith(("fatal: ", "error: "))), said)
        raise InputError(f"{root}: `git {arguments[0]}` fails ({line.strip()}): mend the repository, {PURPOSE}")
    return os.fsdecode(done.stdout)  # as it is: text mode would change the ends of lines, and names


def commit_of(root: Path) -> str:
    """The commit that is checked out. Raises `InputError` if there is none."""
    try:
        git(root, "rev-parse", "--is-inside-work-tree")
    except InputError as error:
        if "not a git repository" not in str(error):
            raise
        raise InputError(f"{root}: not a git repository: run `git init` and commit, {PURPOSE}") from None
    try:
        return git(root, "rev-parse", "--verify", "HEAD").strip()
    except InputError as error:
        if "Needed a single revision" not in str(error):
            raise
        raise InputError(f"{root}: the git repository has no commit yet: commit, {PURPOSE}") from None
