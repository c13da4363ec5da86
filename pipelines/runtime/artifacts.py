"""What a flow shows in Prefect's pages: the metrics, the decision, the pictures, a link to the run."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from assay.git import git
from assay.redaction import hide_login
from assay.settings import Settings
from assay.usecases.helpers.results import ExperimentResults

PICTURES_BYTES = 400_000
"""The most that an artifact's pictures take together: Prefect keeps them in its database, with each run."""


def read_results(root: Path, experiment: str) -> dict[str, Any]:
    """`train`, `metrics` and `model`: what `results/` holds."""
    results = ExperimentResults.of(root, experiment)
    files = {"train": results.record, "metrics": results.metrics, "model": results.model}
    return {name: results.read(file) for name, file in files.items()}


def verdict(model: dict[str, Any]) -> str:
    """The gate's decision in one line, with its reasons."""
    outcome = "promoted" if model["decision"] == "promoted" else "refused"
    return f"{outcome}: {model['model']} version {model['version']}: {'; '.join(model['reasons'])}"


def publish_artifacts(root: Path, experiment: str, summary: dict[str, Any]) -> None:
    """Publish the artifacts of an experiment whose stages ran."""
    run_id = summary["train"]["run_id"]
    rows = [{"metric": name, "value": value} for name, value in summary["metrics"].items()]
    create_table_artifact(rows, key=artifact_key(experiment, "metrics"), description=f"run {run_id}")
    dataset = summary["train"]["dataset"]
    lines = [
        f"# {experiment}",
        f"**{verdict(summary['model'])}**",
        f"- run: {run_link(run_id)}",
        f"- dataset: {dataset['name']} `{dataset['hash']}`",
        f"- weights: sha256 `{summary['train']['weights_sha256']}`",
    ]
    changed = uncommitted(root)
    if changed:
        lines.append(f"- **changed, and to be committed: {', '.join(changed)}**")
    lines += ["", *pictures(ExperimentResults.of(root, experiment).pictures)]
    create_markdown_artifact(
        "\n".join(lines), key=artifact_key(experiment, "report"), description=verdict(summary["model"])
    )


def artifact_key(name: str, what: str) -> str:
    """The key of an artifact, in which Prefect allows no underscore."""
    return f"{name}-{what}".replace("_", "-")


def run_link(run_id: str) -> str:
    """A link to the run in MLflow's pages, if a server shows them."""
    tracking = Settings().tracking
    if tracking.startswith(("http://", "https://")):
        return f"[{run_id}]({hide_login(tracking).rstrip('/')}/#/runs/{run_id})"
    return f"`{run_id}` (to see it: `assay ui`)"


def uncommitted(root: Path) -> list[str]:
    """The files that flows may change and whose change is not committed."""
    listed = git(root, "status", "--porcelain", "--", "params.yaml", "dvc.lock")
    return [line[3:] for line in listed.splitlines()]


def pictures(folder: Path) -> list[str]:
    """The pictures as Markdown, inlined: Prefect's pages cannot show files of this machine."""
    lines, left = [], PICTURES_BYTES
    for path in sorted(folder.glob("*.png")):
        content = path.read_bytes()
        if len(content) <= left:
            left -= len(content)
            lines.append(f"![{path.stem}](data:image/png;base64,{base64.b64encode(content).decode()})")
        else:
            lines.append(f"{path.stem}: in `{path.relative_to(folder.parents[2])}`")
    return lines
