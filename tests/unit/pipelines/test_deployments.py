"""One Prefect server has the schedules of one checkout."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.errors import InputError


def test_the_schedules_of_another_checkout_are_not_touched() -> None:
    from pipelines.runtime.deployments import require_one_checkout

    def there(folder: str) -> Any:
        return {"retrain/nightly": SimpleNamespace(job_variables={"working_dir": folder})}

    require_one_checkout(Path("/a/p"), there("/a/p"))
    require_one_checkout(Path("/a/p"), {})
    with pytest.raises(InputError, match="retrain/nightly of another checkout, /b/p: .* `prefect deployment delete"):
        require_one_checkout(Path("/a/p"), there("/b/p"))
