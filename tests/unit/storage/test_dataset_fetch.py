"""A node gets the recorded version of a dataset, whole and verified, or one line that says why not."""

from __future__ import annotations

import re
import shutil
import signal
import threading
import time

import pytest

from assay.errors import InputError, Unavailable, WorkError
from assay.storage.dataset_fetch import STREAMS, missing_in_remote
from tests.support.node import FILES, Node, Web, content, ended, md5


def test_a_version_is_fetched_once_and_nothing_else_is_left(node: Node) -> None:
    version = node.publish(FILES | {"empty": b""})
    folder = node.fetch(version)
    assert content(folder) == FILES | {"empty": b""}
    assert node.kept == {version}
    assert node.parts == []
    assert node.lines[-1].startswith("dataset pets: 1.0 kB fetched in 0 s")
    shutil.rmtree(node.remote)
    assert node.fetch(version) == folder


def test_the_fetch_tells_how_far_it_is(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.progress.PLAIN_SECONDS", 0.0)
    node.fetch(node.publish(FILES))
    assert node.lines[-2].startswith("dataset pets: 1.0 kB of 1.0 kB, ")
    assert re.search(r", [\d.]+ [kMG]B/s, 0 s left$", node.lines[-2])


def test_what_is_no_version_is_refused(node: Node) -> None:
    with pytest.raises(InputError, match=r"'\.\./x' is not a dataset version"):
        node.fetch("../x")


def test_what_the_remote_lacks(node: Node) -> None:
    with pytest.raises(InputError, match=r"'pets' has no recorded version: run `dvc repro data@pets`"):
        missing_in_remote(node.root, "pets")
    version = node.publish(FILES)
    assert missing_in_remote(node.root, "pets") == []
    node.object(version).unlink()
    assert missing_in_remote(node.root, "pets") == [str(node.object(version))]
    with pytest.raises(WorkError, match=r"run `dvc push data@pets`.*mounted at the same path on every node"):
        node.fetch(version)
    version = node.publish(FILES)
    lost = node.object(md5(FILES["dataset.json"]))
    lost.unlink()
    mend = rf"lacks 1 of 3 files \(dataset\.json …\): delete {node.object(version)}, and run `dvc push data@pets`"
    for look in (lambda: missing_in_remote(node.root, "pets"), lambda: node.fetch(version)):
        with pytest.raises(WorkError, match=mend):
            look()


def test_damage_in_the_remote_is_named_and_never_used(node: Node) -> None:
    version = node.publish(FILES)
    damaged = node.object(md5(FILES["train-00000.arrow"]))
    damaged.write_bytes(b"T" * 900)
    with pytest.raises(
        WorkError, match=rf"train-00000\.arrow is damaged .* delete {damaged} and {node.object(version)}"
    ):
        node.fetch(version)
    assert node.kept == set()
    (part,) = node.parts
    whole = {"dataset.json", "sub/test-00000.arrow"}  # kept as far as they had come when the damaged one stopped them
    assert set(content(part)) <= {place for name in whole for place in (f"files/{name}", f"partial/{md5(FILES[name])}")}
    node.object(version).write_bytes(b"[]")
    with pytest.raises(
        WorkError, match=rf"damaged listing: delete {node.object(version)}, and run `dvc push data@pets`"
    ):
        node.fetch(version)


def test_a_changed_copy_is_noticed_and_mended_under_its_users(node: Node, web: Web) -> None:
    version = node.publish(FILES | {"val-00000.arrow": b"v" * 50})
    folder = node.fetch(version)
    web.asked.clear()
    with (folder / "train-00000.arrow").open("r+b") as open_file:
        open_file.write(b"X")
        open_file.flush()
        (folder / "sub" / "test-00000.arrow").unlink()
        (folder / "stranger").write_bytes(b"")
        assert node.fetch(version) == folder
        open_file.seek(0)
        assert open_file.read(2) == b"Xt"
    assert content(folder) == FILES | {"val-00000.arrow": b"v" * 50}
    fetched = {"/" + node.object(md5(FILES[path])).relative_to(node.remote).as_posix() for path in FILES if "0" in path}
    assert {path for path in web.asked if not path.endswith(".dir")} == fetched
    assert "was changed; replacing 2 files" in node.lines[-2]


def test_two_processes_at_once_fetch_once(node: Node, web: Web) -> None:
    version = node.publish(FILES)
    held = node.object(md5(FILES["train-00000.arrow"]))
    web.held = f"/{held.relative_to(node.remote)}"
    first = node.child(version)
    assert web.reached.wait(60)
    second = node.child(version)
    assert second.stdout is not None
    assert second.stdout.readline() == "dataset pets: another process on this node is fetching it\n"
    web.gate.set()
    for child in (first, second):
        out, _ = child.communicate()
        assert f"folder {node.cache / version}" in out
        assert child.returncode == 0
    assert content(node.cache / version) == FILES
    assert set(web.asked.values()) == {1}


def test_a_killed_fetch_is_continued_where_it_was(node: Node, web: Web) -> None:
    """What is whole is not asked for again, of what is not only the rest, and damage in between is found."""
    web.ranges = True
    large = bytes(range(256)) * 2**15
    version = node.publish(FILES | {"val-00000.arrow": large})
    path = f"/{node.object(md5(large)).relative_to(node.remote)}"
    web.held = path
    child = node.child(version)
    assert web.reached.wait(60)
    (part,) = node.parts
    partial = part / "partial" / md5(large)
    while not partial.exists() or partial.stat().st_size < len(large) // 2:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    web.gate.set()
    web.asked.clear()
    web.sent.clear()
    assert content(node.fetch(version)) == FILES | {"val-00000.arrow": large}
    assert {asked for asked in web.asked if not asked.endswith(".dir")} == {path}
    assert web.sent[path] == len(large) - len(large) // 2
    assert node.parts == []
    assert re.search(r"8\.4 MB fetched in \d+ s, 4\.2 MB of it by an earlier try", node.lines[-1])


@pytest.mark.parametrize("ranges", [True, False])
def test_a_damaged_part_of_an_earlier_try_is_not_blamed_on_the_remote(node: Node, web: Web, ranges: bool) -> None:
    web.ranges = ranges
    version = node.publish(FILES)
    lost = md5(FILES["train-00000.arrow"])
    partial = node.cache / f".{version}.part" / "partial" / lost
    partial.parent.mkdir(parents=True)
    for earlier in (b"t" * 400, b"x" * 400, b"t" * 2000):
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(earlier)
        assert content(node.fetch(version)) == FILES
        ended()
        shutil.rmtree(node.cache / version)


def test_files_are_fetched_side_by_side(node: Node, web: Web) -> None:
    files = {f"{number}.arrow": bytes([number]) * 1000 for number in range(8)}
    version = node.publish(files)
    together = threading.Barrier(STREAMS, timeout=60)
    web.meet = lambda path: None if path.endswith(".dir") else together.wait()
    assert content(node.fetch(version)) == files  # with fewer streams, nobody would pass the barrier


def test_only_what_differs_from_the_versions_that_are_here_is_fetched(node: Node, web: Web) -> None:
    first = node.publish(FILES)
    old = node.fetch(first)
    ended()
    second = node.publish(FILES | {"train-00000.arrow": b"T" * 900})
    web.asked.clear()
    new = node.fetch(second)
    assert {asked.rpartition("/")[2] for asked in web.asked if not asked.endswith(".dir")} == {md5(b"T" * 900)[2:]}
    assert (new / "dataset.json").samefile(old / "dataset.json")
    assert node.kept == {first, second}


def test_a_killed_fetch_leaves_nothing_half(node: Node, web: Web) -> None:
    other = node.publish({"a": b"1" * 100})
    version = node.publish(FILES)
    for name, path in ((other, md5(b"1" * 100)), (version, md5(FILES["train-00000.arrow"]))):
        web.held = f"/{node.object(path).relative_to(node.remote)}"
        web.reached.clear()
        child = node.child(name)
        assert web.reached.wait(60)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert node.kept == set()
        assert [part.name for part in node.parts] == [f".{name}.part"]  # the one before was swept up
    web.gate.set()
    assert content(node.fetch(version)) == FILES
    assert node.kept == {version}
    assert node.parts == []


def test_a_remote_that_breaks_off_is_asked_three_times(node: Node, web: Web) -> None:
    version = node.publish(FILES)
    path = f"/{node.object(md5(FILES['train-00000.arrow'])).relative_to(node.remote)}"
    web.cut[path] = 2
    assert content(node.fetch(version)) == FILES
    assert web.asked[path] == 3
    shutil.rmtree(node.cache)
    ended()
    web.cut[path] = 9
    with pytest.raises(Unavailable, match=r"the DVC remote 'team' \(http://127.0.0.1:\d+\) does not answer"):
        node.fetch(version)
    assert node.kept == set()
    web.close()
    with pytest.raises(Unavailable, match=r"does not answer \(ConnectionRefusedError: "):
        missing_in_remote(node.root, "pets")
