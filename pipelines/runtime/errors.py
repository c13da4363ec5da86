"""The failures of flows. Free of Prefect, so that the command line can catch them before it imports Prefect."""

from __future__ import annotations


class StageFailed(Exception):
    """A stage ended with an error. `retry`: the same again can succeed."""

    def __init__(self, message: str, retry: bool = False, exit_code: int = 1):
        super().__init__(message)
        self.retry = retry
        self.exit_code = exit_code
