"""What git says of a project. A question that git cannot answer is an error, never an empty answer.

What a user has told git to show, to leave out or to take for unchanged does not change an answer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from assay.errors import InputError

PURPOSE = "so that runs can be traced to code"

_ENVIRONMENT = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_DIFF_OPTS": "", "GIT_LITERAL_PATHSPECS": "0"}
_SETTINGS = (
    "core.checkStat=default", "core.fsmonitor=false", "core.quotePath=true", "core.trustCtime=true",
    "diff.suppressBlankEmpty=false", "status.showUntrackedFiles=all",
)  # fmt: skip
"""What no option of a command can say."""
_DIFF = (
    "diff", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-relative", "--full-index",
    "--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "--inter-hunk-context=0", "--diff-algorithm=default",
    "--indent-heuristic", "--submodule=short", "--ignore-submodules=none", f"-O{os.devnull}",
)  # fmt: skip


def git(root: Path, *arguments: str, stdin: str = "", index: Path | None = None) -> str:
    """What a git command prints in a project. Raises `InputError` with git's own line if it fails.

    Args:
        index: used in place of the project's own.
    """
    words = ["git", *(word for setting in _SETTINGS for word in ("-c", setting)), *arguments]
    environment = {**os.environ, **_ENVIRONMENT, **({"GIT_INDEX_FILE": str(index)} if index else {})}
    try:
        done = subprocess.run(words, cwd=root, env=environment, input=os.fsencode(stdin), capture_output=True)
    except FileNotFoundError:
        raise InputError(f"git is not installed: install it, {PURPOSE}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace")
        lines = said.splitlines()
        line = next((line for line in lines if line.startswith(("fatal: ", "error: "))), said).strip()
        trust = next((line.strip() for line in lines if "--add safe.directory" in line), None)
        if trust:
            raise InputError(f"{root}: another user owns the repository: if you trust it, run `{trust}`, {PURPOSE}")
        raise InputError(f"{root}: `git {arguments[0]}` fails ({line}): fix what git reports, {PURPOSE}")
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


def changes(root: Path, *part: str) -> tuple[str, list[str]]:
    """How a part of the working tree differs from the commit, in a form that `git apply` takes, and the new files.

    A changed binary file has only its hash there: it may be large, and nothing would find a secret in it.
    """
    with _plain_index(root, part) as index:
        diff = git(root, *_DIFF, "HEAD", "--", *part, index=index)
        listed = git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *part, index=index)
    return diff, sorted(filter(None, listed.split("\0")))


@contextmanager
def _plain_index(root: Path, part: tuple[str, ...]) -> Iterator[Path]:
    """A copy of the index without the marks that hide edits.

    A file that is absent and marked `skip-worktree` stays so: a sparse checkout leaves it out.
    """
    index = root / git(root, "rev-parse", "--git-path", "index").removesuffix("\n")
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "index"
        if index.exists():
            shutil.copy2(index, copy)  # with its time, by which git knows what it must read again
        listed = git(root, "ls-files", "-v", "-z", "--", *part, index=copy).split("\0")
        marked = [line[2:] for line in listed if line[:1].islower() or line[:1] == "S"]
        here = [name for name in marked if os.path.lexists(root / name)]
        for mark, names in (("assume-unchanged", marked), ("skip-worktree", here)):
            if names:
                git(root, "update-index", f"--no-{mark}", "-z", "--stdin", stdin="\0".join(names), index=copy)
        yield copy
