"""A job's log is shown once, line by line, however it arrives; its last line is for the program."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from assay.submit.follow import END, JobLog

LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8), max_size=12)


@given(lines=LINES, reads=st.lists(st.integers(0, 120), max_size=8), whole=st.booleans())
def test_each_line_is_given_out_once(lines: list[str], reads: list[int], whole: bool) -> None:
    text = "\n".join(lines) + ("\n" if whole and lines else "")
    log, shown = JobLog(), []
    for size in reads:  # the log may be read any number of times, at any length, also shorter than before
        shown += list(log.new(text[:size]))
    shown += list(log.new(text, last=True))
    assert shown == text.splitlines()


def test_the_last_line_is_taken_out() -> None:
    told = {"exit_code": 2, "result": None, "error": None}
    log = JobLog()
    text = f"step 1\nerror: wrong\n{END}{json.dumps(told)}\n"
    assert list(log.new(text, last=True)) == ["step 1", "error: wrong"]
    assert log.final_report() == {**told, "error": {"message": "wrong"}}
    cut = JobLog()
    assert list(cut.new(text[:-20])) == ["step 1", "error: wrong"]
    assert cut.final_report() == {"error": {"message": "wrong"}}
