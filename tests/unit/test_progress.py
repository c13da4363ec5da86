"""How far something long is: plain lines where standard error is not a terminal."""

from __future__ import annotations

import pytest

from assay import progress
from assay.progress import Bar, PlainProgress, count


def test_numbers_for_people() -> None:
    assert [count(number) for number in (0, 3, 1234, 12.34, 1.25, 0.0294)] == ["0", "3", "1234", "12", "1.2", "0.029"]


def test_a_line_has_the_count_the_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 5.0, 8.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    lines: list[str] = []
    show = PlainProgress("pets:", lines.append)
    show(1, 20)  # too soon
    show(8, 20, "checked")
    show(10, 20)  # too soon again
    show(20, 20, "checked")
    assert lines == ["pets: 8 of 20, 2/s, 6 s left, checked", "pets: 20 of 20, 2.5/s, 0 s left, checked"]


def test_the_last_line_can_be_left_out_and_the_rate_starts_where_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 12.0, 13.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    lines: list[str] = []
    show = PlainProgress("step", lines.append, lambda number: f"{number:.0f} m", last=False)
    show.start(6)
    show(10, 20)
    show(20, 20)
    assert lines == ["step 10 m of 20 m, 2 m/s, 5 s left"]


def test_elsewhere_than_on_a_terminal_a_bar_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    bar = Bar("pets:", lines.append)
    with bar.showing("waiting"):
        bar.log("[bold]a line[/bold]")
        bar.update(2, 2)
    assert lines[0] == "[bold]a line[/bold]"
    assert lines[1].startswith("pets: 2 of 2, ")
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_bar_is_drawn_and_lines_stand_above_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bar = Bar("pets:", lambda line: pytest.fail(line))
    with bar.showing("waiting"):
        bar.log("[bold]a line[/bold]")
        bar.update(2, 2, "[checked]")
    drawn = capsys.readouterr().err
    assert "[bold]a line[/bold]" in drawn
    assert "2/2" in drawn
    assert "[checked]" in drawn
