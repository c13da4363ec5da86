"""Tickets for turns, kept in MLflow: the versions of one registered model that no model is ever registered as.

MLflow has no locks. But it numbers the versions of a model one by one, whatever its store is: SQLite, Postgres, or
either of them behind a server. A number is visible before the next one is given out, and is never given out again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from assay.tracking.paging import pages

if TYPE_CHECKING:
    from mlflow import MlflowClient

TURNS = "assay.turns"
"""The registered model. No experiment can have its name, which has a dot."""
SOURCE = "s3://assay/turns"
"""Every version must name a place, and a server takes no folder; nothing is there."""
ABOUT = "Not a model: open versions are Assay's commands that are at work on a model or a run, or wait for their turn."
TAKEN, OWNER, BEAT = "assay.turn", "assay.owner", "assay.beat"
ATTEMPTS = 20  # to get a number while others ask; MLflow itself gives up after three


@dataclass(frozen=True)
class Ticket:
    """`subject` is what the turn is for; `owner` who holds the ticket; `beat` changes as long as its holder lives."""

    number: int
    subject: str
    owner: str
    beat: str


class Tickets:
    """The part of `Tracker` that gives out tickets."""

    @cached_property
    def _client(self) -> MlflowClient:
        raise NotImplementedError

    def take_ticket(self, subject: str, owner: str) -> int:
        """A number that is higher than that of every ticket before."""
        from mlflow.exceptions import MlflowException

        tags = {TAKEN: subject, OWNER: owner, BEAT: "0"}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return int(self._client.create_model_version(TURNS, SOURCE, tags=tags, await_creation_for=0).version)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    self._begin_turns()
                elif "Giving up" not in str(error) or attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _begin_turns(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(TURNS, description=ABOUT)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def tickets(self) -> list[Ticket]:
        """The tickets that are out, in order."""
        found = pages(self._client.search_model_versions, f"name = '{TURNS}'")
        tickets = (Ticket(int(v.version), *(v.tags.get(tag, "") for tag in (TAKEN, OWNER, BEAT))) for v in found)
        return sorted(tickets, key=lambda ticket: ticket.number)

    def renew_ticket(self, number: int, beat: str) -> bool:
        """Show that its holder lives; False if it was taken away."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.set_model_version_tag(TURNS, str(number), BEAT, beat)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def drop_ticket(self, number: int) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.delete_model_version(TURNS, str(number))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # another process was faster
                raise
