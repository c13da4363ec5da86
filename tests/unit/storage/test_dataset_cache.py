"""The cache of a node stays within its limit and its disk, and never loses what is in use."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from assay.errors import InputError, Unavailable, WorkError
from tests.support.node import FILES, Node, Web, ended


def versions(node: Node, count: int) -> list[str]:
    """Versions of 1,000 bytes each."""
    return [node.publish({"a": bytes([number]) * 400, "b": b"b" * 600}) for number in range(count)]


@pytest.mark.parametrize("order", [1, -1])  # so that the order of names cannot stand in for that of use
def test_the_least_recently_used_versions_make_room(node: Node, order: int) -> None:
    first, second, third = sorted(versions(node, 3))[::order]
    for version in (first, second, first, third):
        node.fetch(version, limit=2500)
        ended()
    assert node.kept == {first, third}
    assert not (node.cache / f".{second}.hashes.json").exists()
    node.fetch(second, limit=1000)
    assert node.kept == {second}


def test_a_version_in_use_by_a_live_process_stays(node: Node) -> None:
    first, second, third = versions(node, 3)
    user = node.child(first)
    assert user.stdout is not None
    while not user.stdout.readline().startswith("folder"):
        pass
    node.fetch(second, limit=2500)
    ended()
    node.fetch(third, limit=2500)
    ended()
    assert node.kept == {first, third}
    with pytest.raises(Unavailable, match=r"ASSAY_DATA_CACHE_GB=1\.9e-06: .* takes 1\.0 kB, but .* leave 900 bytes of"):
        node.fetch(second, limit=1900)
    user.kill()
    user.communicate()
    node.fetch(second, limit=1900)
    assert node.kept == {second}


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a folder away")
def test_a_folder_of_somebody_else_is_not_trusted(node: Node) -> None:
    (version,) = versions(node, 1)
    node.cache.mkdir()
    os.chown(node.cache, 4242, 4242)
    with pytest.raises(InputError, match="belongs to another user"):
        node.fetch(version, limit=2500)


def test_a_version_beyond_the_limit_is_refused_before_it_is_fetched(node: Node, web: Web) -> None:
    (version,) = versions(node, 1)
    with pytest.raises(
        InputError, match=r"^ASSAY_DATA_CACHE_GB=9\.99e-07: dataset 'pets' takes 1\.0 kB: set it higher"
    ):
        node.fetch(version, limit=999)
    assert all(path.endswith(".dir") for path in web.asked)


@pytest.fixture
def small_disk(node: Node) -> Iterator[Callable[[str], None]]:
    """Puts the cache on a small disk of its own."""
    node.cache.mkdir()

    def mount(options: str) -> None:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(node.cache)], capture_output=True)
        if done.returncode != 0:
            pytest.skip("mounting is not permitted here")

    yield mount
    ended()
    subprocess.run(["umount", str(node.cache)], capture_output=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(node: Node, small_disk: Callable[[str], None]) -> None:
    small_disk("size=1m")
    version = node.publish({"a": b"1" * 600_000, "b": b"2" * 600_000})
    with pytest.raises(
        WorkError, match=r"^dataset 'pets': the disk of \S+cache is full \(1\.2 MB needed, 1\.0 MB free\): "
    ):
        node.fetch(version)
    assert node.kept == set()
    assert node.parts == []
    smaller = [node.publish({"a": bytes([number]) * 600_000}) for number in range(2)]
    for version in smaller:
        assert node.fetch(version).is_dir()  # unused versions make room on the disk as well
        ended()
    assert node.kept == {smaller[1]}


def test_a_disk_that_fills_while_fetching(node: Node, small_disk: Callable[[str], None]) -> None:
    small_disk("size=8m,nr_inodes=12")
    version = node.publish({f"{number:02}": bytes([number]) for number in range(20)})
    line = (
        r"^dataset 'pets': the disk of \S+cache is full \(20 bytes needed in all: No space left on device\): free some"
    )
    with pytest.raises(WorkError, match=line):
        node.fetch(version)
    assert node.kept == set()
    assert node.parts == []


def test_a_cache_that_cannot_be_is_refused(node: Node) -> None:
    node.cache.write_text("")
    with pytest.raises(InputError, match=r"^ASSAY_DATA_CACHE: \S+cache cannot be used: .*File exists"):
        node.fetch(node.publish(FILES))
