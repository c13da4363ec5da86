"""The gate: whether a model may have the `champion` alias. A pure decision; each check has its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from assay.config.experiment import GateConfig
from assay.config.plugin import Headline


@dataclass(frozen=True)
class Check:
    """One condition, and whether the model meets it."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Comparison:
    """The test metrics of the candidate and of the champion, measured on the same samples."""

    candidate: Mapping[str, float]
    champion: Mapping[str, float]


@dataclass(frozen=True)
class Decision:
    """The checks, all of which must pass; `notes` say what was not compared, and why."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """The details of the checks that failed; of all checks if none did."""
        failed = [check.detail for check in self.checks if not check.passed]
        return failed or [check.detail for check in self.checks]


def decide(
    gate: GateConfig,
    headline: Headline,
    metrics: Mapping[str, float],
    missing: list[str],
    comparison: Comparison | None,
) -> Decision:
    """Check a candidate's provenance, its metrics against floors and ceilings, and against the champion's.

    Nothing that is not a finite number passes a check.

    Args:
        metrics: the candidate's, `test/…` among them.
        missing: what its provenance lacks.
        comparison: None if there is no champion to compare with.
    """
    checks = [
        Check("provenance", not missing, f"provenance: {'lacks ' + ', '.join(missing) if missing else 'complete'}")
    ]
    checks += [_bound(name, metrics.get(name), bound, True) for name, bound in gate.min.items()]
    checks += [_bound(name, metrics.get(name), bound, False) for name, bound in gate.max.items()]
    name, notes = f"test/{headline.metric}", []
    if name not in metrics:
        checks.append(Check(name, False, f"{name}: not measured; run `assay evaluate` first"))
    elif not math.isfinite(metrics[name]):
        checks.append(Check(name, False, f"{name}: {metrics[name]} is no finite number"))
    elif comparison is not None:
        champion = comparison.champion.get(name)
        if champion is None or not math.isfinite(champion):
            found = "has no" if champion is None else f"has {champion} as its"
            notes.append(f"not compared: the champion {found} {name}")
        else:
            candidate = comparison.candidate.get(name, math.nan)
            checks.append(_rival(name, candidate, champion, headline, gate.tolerance))
    return Decision(tuple(checks), tuple(notes))


def _bound(name: str, value: float | None, bound: float, floor: bool) -> Check:
    if value is None:
        return Check(name, False, f"{name}: not measured, but the gate requires it")
    if not math.isfinite(value):
        return Check(name, False, f"{name}: {value} is no finite number")
    passed = value >= bound if floor else value <= bound
    sign = (">=" if passed else "<") if floor else ("<=" if passed else ">")
    return Check(name, passed, f"{name}: {value:.4f} {sign} {bound:g}")


def _rival(name: str, value: float, champion: float, headline: Headline, tolerance: float) -> Check:
    """At least as good as the champion, up to the tolerance: equals pass, so that fresh data reach production."""
    worse_by = champion - value if headline.maximize else value - champion
    passed = math.isfinite(value) and worse_by <= tolerance
    allowed = f" (tolerance {tolerance:g})" if tolerance else ""
    return Check("champion", passed, f"{name}: {value:.4f} against the champion's {champion:.4f}{allowed}")
