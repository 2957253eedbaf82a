"""Whether this worker should be sent requests, in the words of Maskinporten's own /health."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from maskinporten.altinn import Altinn
from maskinporten.drain import Drain
from maskinporten.errors import Unavailable
from maskinporten.keyring import Keyring
from maskinporten.replay import SpentGrants
from maskinporten.replica import Replica

CUT_OFF: Final = 10.0  # seconds without a word from the database that an operator should know of


class Status(StrEnum):
    """UP and DEGRADED answer 200, the others 503."""

    UP = "UP"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"
    OUT_OF_SERVICE = "OUT_OF_SERVICE"


@dataclass(frozen=True, slots=True)
class Health:
    """The word, why it is not UP, and the age of the registry in seconds."""

    status: Status
    reasons: tuple[str, ...]
    registry_age: int

    @property
    def ready(self) -> bool:
        """Whether a token request would be answered."""
        return self.status in {Status.UP, Status.DEGRADED}


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """What the health of a worker is read from."""

    keyring: Keyring
    replica: Replica
    spent: SpentGrants
    drain: Drain
    altinn: Altinn | None

    def look(self) -> Health:
        """As it is now. The worst word wins; every reason is named."""
        found: list[tuple[Status, str]] = []
        try:
            self.keyring.signing_key()
        except Unavailable:
            found.append((Status.DOWN, "no signing key is open"))
        age = self.replica.age
        try:
            self.replica.current()
        except Unavailable as stale:
            found.append((Status.OUT_OF_SERVICE, stale.detail))
        if self.drain.begun:
            found.append((Status.OUT_OF_SERVICE, "this node is about to stop"))
        if age > CUT_OFF:
            found.append((Status.DEGRADED, "the registry cannot be followed"))
        if self.spent.away:
            found.append((Status.DEGRADED, "spent grants cannot be written to the database"))
        if self.altinn is not None and self.altinn.away:
            found.append((Status.DEGRADED, "Altinn does not answer"))
        order = [Status.DOWN, Status.OUT_OF_SERVICE, Status.DEGRADED]
        status = min((word for word, _ in found), key=order.index, default=Status.UP)
        return Health(status, tuple(reason for _, reason in found), int(age))
