"""Every route of every server that `assay up` starts, as their own code tells them; printed as JSON by itself."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

DECLARED = re.compile(r'\.(?:add_)?(get|post|put|delete|patch|head|options|static)\(\s*f?"(/[^"]*)"')
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


def mlflow() -> set[tuple[str, str]]:
    import mlflow.server.auth.routes as protected
    from mlflow.server import app
    from mlflow.server.fastapi_app import app as outer

    found = {(m, rule.rule) for rule in app.url_map.iter_rules() for m in (rule.methods or set()) & METHODS}
    found |= {
        (m.upper(), path) for path, item in outer.openapi()["paths"].items() for m in item if m.upper() in METHODS
    }
    known = {value for value in vars(protected).values() if isinstance(value, str) and value.startswith("/")}
    return found | {(method, path) for path in known for method in ("GET", "POST", "PATCH", "DELETE")}


def prefect() -> set[tuple[str, str]]:
    from prefect.server.api.server import create_api_app

    paths = create_api_app().openapi()["paths"]
    return {(m.upper(), f"/api{path}") for path, item in paths.items() for m in item if m.upper() in METHODS}


def ray() -> set[tuple[str, str]]:
    """Of the dashboard, of each node's agent and of its runtime environments."""
    import ray

    root = Path(ray.__file__).parent
    files = [*root.glob("dashboard/**/*.py"), root / "_private/runtime_env/agent/main.py"]
    found = {pair for file in files for pair in DECLARED.findall(file.read_text())}
    return {("GET" if method == "static" else method.upper(), path) for method, path in found}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"MLflow": sorted(mlflow()), "Prefect": sorted(prefect()), "Ray": sorted(ray())}))
