"""The pages for people: what they name exists, and the README can be read in one sitting."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from assay.inputs import SHARED
from assay.settings import Settings

REPOSITORY = Path(__file__).parents[2]
ARCHITECTURE = REPOSITORY / "docs/architecture.md"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "infra/README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PAGES += sorted((REPOSITORY / "platform/assay/tasks").glob("*/README.md"))
ELSEWHERE = ("pipelines/", "platform/", "tests/", "docs/")
"""How paths begin that do not lie below `platform/assay/`."""
EXAMPLES = {"file.py", "results/", "acme/counting/", "__init__.py"}
"""What the page says in the form of a path, and that is not one of the code."""


def inline_code(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def located(name: str) -> Path:
    return REPOSITORY / name if name.startswith(ELSEWHERE) else REPOSITORY / "platform/assay" / name


def defined(path: Path) -> set[str]:
    """The functions, classes and constants of a module, and `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 170


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_every_file_and_name_of_the_architecture_exists() -> None:
    paths = 0
    for code in inline_code(ARCHITECTURE.read_text()):
        name, _, inside = code.partition("::")
        if not re.fullmatch(r"[\w./]+(\.py|/)", name) or name in EXAMPLES:
            continue
        paths += 1
        assert located(name).exists(), code
        assert not inside or inside in defined(located(name)), code
    assert paths > 80


def test_the_picture_of_the_rooms_is_what_the_imports_are_held_to() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["assay"])
    drawn = re.findall(r"^│ ([\w |]+?) +│", ARCHITECTURE.read_text(), flags=re.MULTILINE)
    assert drawn == layers


def test_every_room_has_a_sentence() -> None:
    text = ARCHITECTURE.read_text()
    rooms = [path for path in (REPOSITORY / "platform/assay").iterdir() if (path / "__init__.py").exists()]
    for room in (*rooms, REPOSITORY / "pipelines/flows", REPOSITORY / "pipelines/runtime"):
        name = room.name if room in rooms else f"pipelines/{room.name}"
        assert f"| `{name}/` | " in text, name


def test_the_hashed_code_is_listed() -> None:
    text = ARCHITECTURE.read_text()
    for name in SHARED:
        assert f"`{name}`" in text or f"`{name}/`" in text, name


def test_every_setting_is_on_its_page() -> None:
    text = (REPOSITORY / "docs/settings.md").read_text()
    for name in Settings.model_fields:
        assert f"`ASSAY_{name.upper()}`" in text
