"""Errors of stores say what is wrong in one line without a password; a run whose beginning was torn is completed."""

from __future__ import annotations

import json

import pytest

from assay.errors import Unavailable
from assay.redaction import hide_login
from assay.settings import Settings
from assay.tracking.reach import one_line
from assay.tracking.runs import claim
from assay.tracking.tracker import Tracker
from tests.unit.tracking.test_runs import provenance


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql+psycopg2://me:s3cret@host:5432/runs", "postgresql+psycopg2://host:5432/runs"),
        ("postgresql://me:s3cret@x@host/runs", "postgresql://host/runs"),
        ("postgresql://host/runs?user=me&password=s3cret", "postgresql://host/runs"),
        ("postgresql://me:s3?cret@host/runs", "postgresql://…"),
        ("postgresql://me:s3/cret@host/runs", "postgresql://host/runs"),
        ("https://u:p@h:1/x?y=1", "https://h:1/x"),
        ("file:///home/me@work/runs", "file:///home/me@work/runs"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_an_address_is_shown_without_its_password(uri: str, expected: str) -> None:
    assert hide_login(uri) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "(psycopg2.OperationalError) server closed the connection\n\tunexpectedly\n[SQL: SELECT %(a)s]\n[more]",
            "server closed the connection unexpectedly",
        ),
        (
            '(psycopg2.OperationalError) could not translate host name "s3cret@host" to address: unknown\n\n'
            "(Background on this error at: somewhere)",
            'could not translate host name "…@host" to address: unknown',
        ),
        ("cannot reach postgresql://me:s3cret@host/runs", "cannot reach …@host/runs"),
        ("GET https://host/file?X-Amz-Signature=s3cret failed", "GET https://host/file failed"),
        ("", "ValueError"),
    ],
)
def test_an_error_is_one_line_without_a_password(text: str, expected: str) -> None:
    assert one_line(ValueError(text)) == expected


def test_a_run_whose_beginning_was_torn_is_completed(settings: Settings, tracker: Tracker) -> None:
    inputs = provenance()
    run_id = tracker.begin("torn", inputs)  # and here its process was killed
    with claim(settings, tracker, "torn", inputs, None, False) as held:
        assert held.run_id == run_id
    assert json.loads(tracker.read_bytes(run_id, "provenance/config.json")) == inputs.config
    assert tracker.read_bytes(run_id, "provenance/working-tree.diff") == b"a diff"


def test_a_run_that_cannot_be_explained_says_failed(
    settings: Settings, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise Unavailable("the artifact store does not answer")

    inputs = provenance()
    with monkeypatch.context() as patch:
        patch.setattr(tracker, "log_file", gone)
        with pytest.raises(Unavailable), claim(settings, tracker, "unexplained", inputs, None, False):
            pass
    run = tracker.find("unexplained", inputs.tags["fingerprint"])
    assert run is not None
    assert (run.info.status, run.data.tags["assay.reason"]) == ("FAILED", "the artifact store does not answer")
