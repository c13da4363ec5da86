"""Fixtures of what runs on the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.storage import dvc_remote
from tests.support.node import Node, Web, ended


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    for name in ("PAUSES", "LONG_PAUSES"):
        monkeypatch.setattr(dvc_remote, name, (0.01, 0.01))
    node = Node(tmp_path)
    node.configure(str(node.remote))
    yield node
    ended()


@pytest.fixture
def web(node: Node) -> Iterator[Web]:
    web = Web(node.remote)
    node.configure(web.url)
    yield web
    web.close()
