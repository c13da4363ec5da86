"""Serves a network that cannot be traced: builds it from its config and loads its weights. MLflow runs this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel  # type: ignore[attr-defined]


class Served(PythonModel):
    """One array in, one array out, as with a traced network."""

    def load_context(self, context: Any) -> None:
        from assay.config.experiment import parse_experiment
        from assay.config.plugin import load_serving
        from assay.data.dataset import Dataset, read_card
        from assay.files import read_json
        from assay.train.prepare import load_weights, rebuild

        folder = Path(context.artifacts["trained"])
        config = parse_experiment(read_json(folder / "config.json", "register the run again"), "the model's config")
        dataset = Dataset(folder, read_card(folder, config.data), "")
        sha256 = (folder / "model.sha256").read_text()
        weights = load_weights(folder / "model.safetensors", sha256, "this model")
        task = rebuild(config, dataset, folder, weights)
        self.module = load_serving(config.task.name).export(task).module.eval()

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # noqa: ARG002
        """No type hints here: MLflow would take them for a schema."""
        import torch

        with torch.no_grad():
            return self.module(torch.from_numpy(model_input)).numpy()


set_model(Served())
