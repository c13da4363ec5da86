"""One HTML file about a search. It needs no other file, no server and no network."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from assay.report.search import NOT_USED, SearchSnapshot, TrialRow, columns, front, line, short, text, winners
from assay.report.search_parameters import importance, parallel_coordinates
from assay.report.search_pictures import front_picture, lineage, progress, rungs

DRAWN = {
    "front": (
        front_picture,
        "The objectives against each other",
        "Finished trials. Of those on the front, none is beaten by another trial in all objectives.",
    ),
    "progress": (progress, "Progress", "The first objective of each trial, and the best so far."),
    "importance": (
        importance,
        "What matters",
        "How much the good trials differ from all trials in each key (PED-ANOVA). Pale bars may be chance.",
    ),
    "parallel_coordinates": (
        parallel_coordinates,
        "Values and results",
        "Each line is a trial. Objectives are better on the right; values worse than the left end are drawn there.",
    ),
    "rungs": (rungs, "Learning curves", "The farther a trial got, the darker its line."),
    "lineage": (lineage, "Lines of descent", "Which trial continued from the weights of which other."),
}
PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)$)[a-z_][a-z0-9_-]*", re.IGNORECASE)


def pictures(snapshot: SearchSnapshot) -> dict[str, bytes]:
    """The PNG pictures of a search by name; those that have nothing to show are left out."""
    drawn = {name: draw(snapshot) for name, (draw, *_) in DRAWN.items()}
    return {name: _smaller(picture) for name, picture in drawn.items() if picture is not None}


def page(snapshot: SearchSnapshot, drawn: dict[str, bytes] | None = None) -> str:
    """The HTML page; `drawn` are its pictures if they have been made before."""
    drawn = pictures(snapshot) if drawn is None else drawn
    best = winners(snapshot)
    parts = [
        f"<h1>{escape(snapshot.name)}</h1>",
        f"<p>{escape(line(snapshot).removeprefix(snapshot.name + ': '))}</p>",
        _details(snapshot),
    ]
    if best:
        parts += ["<h2>The best trial</h2>", _best(snapshot, best[0])]
        if len(best) > 1:
            title = "The front" if len(snapshot.objectives) > 1 else f"The best {len(best)}"
            parts += [f"<h2>{title}</h2>", _table(snapshot, best, "")]
    else:
        parts.append("<p>No trial has finished with all objectives.</p>")
    for name, picture in drawn.items():
        _, title, caption = DRAWN[name]
        parts += [f"<h2>{title}</h2>", _figure(title, picture, caption)]
    if snapshot.trials:
        parts += ["<h2>All trials</h2>", FILTER, _table(snapshot, snapshot.trials, "all")]
    return (
        HEAD.format(title=escape(snapshot.name), style=STYLE)
        + "\n".join(parts)
        + f"<script>{SCRIPT}</script></body></html>"
    )


def _details(snapshot: SearchSnapshot) -> str:
    objectives = ", ".join(f"{metric} ({way})" for metric, way in snapshot.objectives.items())
    rows = {
        "experiment": snapshot.experiment,
        "search": snapshot.search_id,
        "algorithm": snapshot.algorithm + (f", {snapshot.scheduler}" if snapshot.scheduler else ""),
        "objectives": objectives,
        **{f"{metric}, baseline": text(value) for metric, value in snapshot.baseline.items()},
        **{name: value for name, value in snapshot.details.items() if name != "total"},
    }
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>' for k, v in rows.items())}</dl>"


def _best(snapshot: SearchSnapshot, trial: TrialRow) -> str:
    metrics = ", ".join(f"{escape(m)} <b>{text(trial.metrics[m])}</b>" for m in snapshot.objectives)
    values = {**snapshot.fixed, **trial.values}
    block = "\n".join(f"{key}: {written(value)}" for key, value in values.items())
    words = ["assay", "train", snapshot.experiment]
    words += [word for key, value in values.items() for word in ("--set", f"{key}={written(value)}")]
    command = " ".join(map(shlex.quote, words))
    note = ""
    if trial.parent is not None:
        note = "<p>It started from the weights of another trial: these values alone do not train the same model.</p>"
    return f"<p>Trial {trial.number}: {metrics}</p>{note}<pre>{escape(block)}</pre><pre>{escape(command)}</pre>"


def _smaller(picture: bytes) -> bytes:
    """The same picture in 256 colours: a third of the bytes if there are many thin lines."""
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def written(value: Any) -> str:
    """A value in one line, from which YAML reads the same value back."""
    if isinstance(value, str) and PLAIN.fullmatch(value):
        return value
    plain = json.dumps(value, default=str, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in plain)


def _figure(title: str, picture: bytes, caption: str) -> str:
    image = f'<img alt="{title}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
    return f'<figure><div class="wide">{image}</div><figcaption>{caption}</figcaption></figure>'


def _table(snapshot: SearchSnapshot, trials: Sequence[TrialRow], name: str) -> str:
    """One row per trial; a table with a name can be filtered and marks the front."""
    metrics, names = columns(snapshot), short(snapshot.parameters)
    metrics = [metric for metric in metrics if any(metric in t.metrics for t in trials)]
    family = any(t.parent is not None for t in trials)
    reasons = any(t.reason for t in trials)
    heads = [("trial", ""), ("status", ""), *((metric, "") for metric in metrics)]
    heads += [(names[key], key) for key in snapshot.parameters] + [("epochs", ""), ("seconds", "")]
    heads += [("parent", "")] * family + [("reason", "")] * reasons + [("run", "")]
    best = {t.number for t in front(snapshot.trials, snapshot.objectives)} if name else set()
    rows = []
    for t in trials:
        cells = [_cell(t.number), _cell(t.status), *(_cell(t.metrics.get(metric)) for metric in metrics)]
        cells += [
            _cell(t.values[key]) if key in t.values else f"<td class=none>{NOT_USED}" for key in snapshot.parameters
        ]
        cells += [_cell(t.epochs), _cell(round(t.seconds, 1))]
        cells += [_cell(t.parent)] * family + [_cell(t.reason)] * reasons + [_cell(t.run_id)]
        mark = " class=best" if t.number in best else f" class={t.status}" if t.status.isalpha() else ""
        rows.append(f"<tr{mark}>{''.join(cells)}")
    return _whole_table(name, heads, rows)


def _whole_table(name: str, heads: Iterable[tuple[str, str]], rows: Sequence[str]) -> str:
    titles = "".join(
        f'<th title="{escape(full or shown)}"><button type=button>{escape(shown)}</button></th>'
        for shown, full in heads
    )
    mark = f' id="{name}"' if name else ""
    body = "\n".join(rows)
    return f'<div class="wide rows"><table{mark}><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    """A cell; numbers are shown to four figures but sorted by their full value."""
    if value is None:
        return "<td>"
    if isinstance(value, float):
        return f'<td class=n data-v="{value}">{text(value)}' if math.isfinite(value) else f"<td class=n>{value}"
    number = isinstance(value, int) and not isinstance(value, bool)
    return f"<td{' class=n' * number}>{escape(text(value))}"


HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>{style}</style></head><body>
"""
FILTER = (
    '<p><input id="words" type="search" placeholder="words to look for, such as: failed sgd" '
    'aria-label="filter the trials"> <span id="count"></span></p>'
)
STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --accent: #c23b52; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { margin: 0; } h2 { margin: 2rem 0 .5rem; font-size: 1.2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; } dt { opacity: .7; } dd { margin: 0; }
pre { background: var(--soft); padding: .7rem; border-radius: 6px; white-space: pre-wrap; user-select: all; }
figure { margin: 0; } figcaption { opacity: .75; font-size: .9em; }
.wide { overflow-x: auto; } img { background: #fff; border-radius: 6px; min-width: 34rem; max-width: 100%; }
.rows { max-height: 75vh; overflow: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: 13px; width: max-content; min-width: 100%; }
th { position: sticky; top: 0; background: Canvas; text-align: left; border-bottom: 1px solid var(--line); }
th button { font: inherit; border: 0; background: none; color: inherit; padding: .3rem .5rem; }
th button { white-space: nowrap; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\25b2"; }
th[aria-sort=descending] button::after { content: " \\25bc"; }
td { padding: .2rem .5rem; border-bottom: 1px solid var(--soft); max-width: 16rem; vertical-align: top; }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; } td.none { color: GrayText; }
tr.best { background: #c23b5222; font-weight: 600; } tr.failed td, tr.over td { color: var(--accent); }
tr.stopped { opacity: .75; }
input { font: inherit; padding: .3rem .5rem; width: min(24rem, 100%); box-sizing: border-box; }
"""
SCRIPT = """
'use strict';
const value = cell => {
  const whole = cell.dataset.v ?? cell.textContent, number = Number(whole);
  return whole.trim() === '' || cell.className === 'none' ? null : Number.isNaN(number) ? whole : number;
};
const order = (a, b) => typeof a === 'number' && typeof b === 'number' ? a - b
  : typeof a === typeof b ? a.localeCompare(b) : typeof a === 'number' ? -1 : 1;
for (const table of document.querySelectorAll('table')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.addEventListener('click', () => {
    const down = head.ariaSort === 'ascending';
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const rows = [...body.rows].map(row => [value(row.cells[column]), row]);
    rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : down ? order(b, a) : order(a, b));
    body.append(...rows.map(([, row]) => row));
  }));
}
const words = document.getElementById('words'), all = document.getElementById('all');
if (all) {
  const held = row => [...row.cells].map(cell => cell.textContent).join(' ').toLowerCase();
  const rows = [...all.tBodies[0].rows].map(row => [held(row), row]);
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\\s+/);
    let shown = 0;
    for (const [text, row] of rows) {
      row.hidden = !wanted.every(word => text.includes(word));
      shown += !row.hidden;
    }
    document.getElementById('count').textContent = `${shown} of ${rows.length}`;
  };
  words.addEventListener('input', filter);
  filter();
}
"""
