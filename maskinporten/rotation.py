"""Rotation on every worker: all of them try each step, one commit wins, the others see it done."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from maskinporten.administration import administer
from maskinporten.domain.evidence import WINDOW, reach
from maskinporten.domain.registry import Change, Registry
from maskinporten.domain.rotation import (
    NEW_KEYS,
    Act,
    RotationPolicy,
    Step,
    apply,
    next_key,
    next_step,
)
from maskinporten.domain.signing import SealedKey
from maskinporten.errors import Unavailable
from maskinporten.keyring import Keyring
from maskinporten.replica import Replica
from maskinporten.store import Conflict, Store

_PAUSE: Final = 60.0  # seconds between two looks at the schedule
_log = logging.getLogger(__name__)


class Rotation:
    """Moves the signing keys of the registry along their policy."""

    def __init__(
        self,
        store: Store,
        replica: Replica,
        keyring: Keyring,
        policy: RotationPolicy,
        clock: Callable[[], float],
        bits: int,
    ) -> None:
        self._store = store
        self._replica = replica
        self._keyring = keyring
        self._policy = policy
        self._clock = clock
        self._bits = bits

    async def advance(self, *, gently: bool = False) -> list[Step]:
        """Take every step that is due; the steps that this worker's commits made.

        `gently`, while tokens are issued: keys are made of the time that tokens leave.

        Raises Unavailable, Conflict.
        """
        taken: list[Step] = []
        while True:
            registry = await self._replica.catch_up()
            reached = await self._reached(registry)
            if (step := self._due(registry, reached)) is None:
                return taken
            if await self._take(step, reached, gently=gently):
                taken.append(step)

    async def run(self) -> None:
        """Advance for ever. What fails now is tried again at the next look."""
        while True:
            # Not all at once: who looks first makes the key, and the others find it done.
            await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - not a secret
            try:
                await self.advance(gently=True)
            except (Unavailable, Conflict) as fault:
                _log.warning("the signing keys could not be rotated: %r", fault)
            except Exception:  # noqa: BLE001 - a defect must not end rotation for good
                _log.exception("the signing keys could not be rotated")

    async def _reached(self, registry: Registry) -> int:
        """The percentage of the callers of /jwk that have the next key; asked only if it counts."""
        coming = next_key(registry.signing_keys.values())
        if not self._policy.evidence or coming is None:
            return 0
        since = int(self._clock()) - WINDOW
        return reach(await self._store.fetches(), coming.kid, since).percent

    async def make_key(self, *, gently: bool = True) -> SealedKey:
        """A key that is not yet in the registry.

        It takes a second of a core, beside the tokens; `gently`, what they leave of one.
        """
        now = int(self._clock())
        return await asyncio.to_thread(self._keyring.prepare, now, self._bits, gently=gently)

    async def _take(self, step: Step, reached: int, *, gently: bool) -> bool:
        """Whether it was our commit that took the step."""
        now = int(self._clock())
        fresh = [await self.make_key(gently=gently) for _ in range(NEW_KEYS[step.act])]

        def decide(registry: Registry) -> Change:
            if self._due(registry, reached) != step:
                return Change(())  # another worker took it; our fresh keys are forgotten
            keys = tuple(registry.signing_keys.values())
            return Change(apply(step, keys, fresh, int(self._clock())))

        caller = {"kind": "server"}
        command = f"keys: {step.act}"
        # Where this raises, the commit may have been made all the same: nothing is destroyed then.
        _, change = await administer(self._store, self._replica, decide, caller, command, now)
        self._keyring.forget(fresh, change.entities)
        if change.entities:
            _log.info("signing keys: %s %s", step.act, step.kid)
            if step.act is Act.REMOVE:
                self._keyring.destroy(self._replica.registry.signing_keys[step.kid])
        return bool(change.entities)

    def _due(self, registry: Registry, reached: int) -> Step | None:
        keys = tuple(registry.signing_keys.values())
        return next_step(keys, self._policy, int(self._clock()), reached)
