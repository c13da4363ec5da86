"""The page of a search is one complete file, harmless, and small enough."""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from assay.report.search import front
from assay.report.search_page import page, written
from tests.unit.report.searches import optuna_search, population

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Reader(HTMLParser):
    """The tags of a page, with their attributes, and the cells of the table of all trials."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and self.tags[-1][0] in ("td", "button"):
            self.rows[-1][-1] += data


def test_a_page_needs_nothing_else() -> None:
    content = page(optuna_search(20, 2))
    read = Reader(content)
    sources = [
        value for _, attrs in read.tags for key, value in attrs.items() if key in ("src", "href", "srcset", "data")
    ]
    assert len(sources) == 5
    assert all(source and source.startswith("data:image/png;base64,") for source in sources)
    assert not {tag for tag, _ in read.tags} & {"link", "iframe", "object", "base", "form"}
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", content))
    assert "default-src 'none'" in content


def test_what_users_write_stays_text() -> None:
    snapshot = optuna_search(12)
    trials = [
        replace(t, reason=EVIL, run_id=EVIL, values={**t.values, "task.<b>": EVIL, "task.blocks": [EVIL]})
        for t in snapshot.trials
    ]
    parameters = {**snapshot.parameters, "task.<b>": {"choices": [EVIL]}}
    details = {EVIL: EVIL}
    plain = Reader(page(replace(snapshot, details={"a": "b"}, parameters=parameters, trials=trials), {}))
    evil = page(
        replace(snapshot, name=EVIL, details=details, experiment=EVIL, parameters=parameters, trials=trials), {}
    )
    assert EVIL not in evil
    tags = [tag for tag, _ in Reader(evil).tags]
    assert tags == [tag for tag, _ in plain.tags]
    assert tags.count("script") == 1
    assert "img" not in tags
    assert sum(row.count(EVIL) for row in Reader(evil).rows) >= 2 * len(trials)


def test_the_table_has_all_trials_and_values() -> None:
    snapshot = optuna_search(15)
    read = Reader(page(snapshot, {}))
    start = len(read.rows) - 15
    heads = read.rows[start - 1]
    for trial, row in zip(snapshot.trials, read.rows[start:], strict=True):
        cells = dict(zip(heads, row, strict=True))
        assert cells["trial"] == str(trial.number)
        assert cells["status"] == trial.status
        assert cells["momentum"] == ("n/a" if "optimizer.momentum" not in trial.values else cells["momentum"])
        assert cells["blocks"] == str(trial.values["task.blocks"])
        assert cells["flip"] == ("true" if trial.values["data.flip"] else "false")
        assert cells["reason"] == trial.reason


def test_the_best_can_be_copied() -> None:
    snapshot = replace(optuna_search(15), fixed={"train.epochs": 16})
    best = front(snapshot.trials, snapshot.objectives)[0]
    block, command = (unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page(snapshot, {}), re.DOTALL))
    whole = {"train.epochs": 16, **best.values}
    assert dict(YAML(typ="safe").load(block)) == whole
    words = shlex.split(command)
    assert words[:3] == ["assay", "train", "digits"]
    assert words[3::2] == ["--set"] * len(whole)
    assigned = dict(word.split("=", 1) for word in words[4::2])
    assert {key: YAML(typ="safe").load(value) for key, value in assigned.items()} == whole


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)


@given(
    st.one_of(
        scalars,
        st.lists(scalars),
        st.sampled_from(["yes", "No", "null", "true", "False", "1e3", "~", "a: b", "on", "-", "0x1f"]),
    )
)
def test_values_are_read_back_as_they_were(value: Any) -> None:
    assert YAML(typ="safe").load(written(value)) == value


def test_weights_of_another_trial_are_mentioned() -> None:
    assert "started from the weights of another trial" in page(population(), {})
    assert "started from the weights of another trial" not in page(optuna_search(12), {})


@pytest.mark.parametrize("trials", [0, 4])
def test_a_search_without_success_has_a_page(trials: int) -> None:
    snapshot = optuna_search(max(trials, 1), failing=1.1)
    content = page(replace(snapshot, trials=snapshot.trials[:trials]))
    assert "No trial has finished" in content
    assert content.count("train/loss is nan") == trials


def test_a_large_search_makes_a_small_page() -> None:
    snapshot = optuna_search(300, 3, "random", more=12)
    began = time.process_time()
    content = page(snapshot)
    assert time.process_time() - began < 10  # of this process alone: others may be busy
    assert len(content) < 3_000_000
