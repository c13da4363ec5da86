"""Where the workers of each node began reaches whoever leads the run, whichever nodes are gone by then."""

from __future__ import annotations

import shutil
from pathlib import Path

from assay.storage.attempts import attempt_name, pull_starts
from assay.storage.object_store import ObjectStore
from assay.storage.run_mirror import receiving, sending
from assay.workers.starts import note_start, read_starts


def silent(_: str) -> None: ...


def begun(folder: Path) -> list[tuple[int, int]]:
    return [(start.session, start.step) for start in read_starts(folder)]


def test_the_starts_of_all_nodes_reach_the_one_that_leads(bucket: str, tmp_path: Path) -> None:
    driver, other = tmp_path / "driver", tmp_path / "other"
    with receiving(bucket, driver, silent) as receiver:
        assert receiver is not None
        for tried, (node, session, step) in enumerate((("a", 1, 0), ("b", 1, 38), ("c", 2, 57)), 1):
            attempt = attempt_name("00000001", tried)
            receiver.follow(attempt)
            with sending(bucket, attempt, tmp_path / node, silent):
                note_start(tmp_path / node, session, step, gpu=False)
            shutil.rmtree(tmp_path / node)
    assert begun(driver) == [(1, 0), (1, 38), (2, 57)]
    other.mkdir()
    pull_starts(ObjectStore(bucket), other)  # the next session may be led from another machine
    assert begun(other) == begun(driver)
