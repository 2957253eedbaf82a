"""A canary by hand: the next key signs for some of the clients, and may be called back at once."""

from collections.abc import Sequence
from dataclasses import replace

from maskinporten.domain.keystep import instant
from maskinporten.domain.rotation import SHARES, RotationPolicy, of_stage, ready_at
from maskinporten.domain.signing import SealedKey, Stage


def put_on_canary(
    keys: Sequence[SealedKey], share: int, policy: RotationPolicy, now: int, kid: str = ""
) -> tuple[SealedKey, ...]:
    """What to write so that a prepared key signs for `share` percent of the clients.

    Without `kid` it is the key that is on canary, or the one published first. Another that was on
    canary is called back. Raises ValueError with a sentence.
    """
    if share not in SHARES:
        raise ValueError("the share must be a percentage from 1 to 99; `activate` gives the rest")
    prepared = of_stage(keys, Stage.PREPARED)
    running = [key for key in prepared if key.canary]
    found = [key for key in prepared if key.kid == kid] if kid else (running or prepared)[:1]
    if not found:
        raise ValueError(f"no prepared key is named {kid}" if kid else "no key is prepared")
    (chosen,) = found
    if (ready := ready_at(chosen, policy)) > now:
        raise ValueError(
            f"{chosen.kid} may not sign before {instant(ready)}: "
            "providers may hold a key set from before it was published"
        )
    others = tuple(key for key in running if key is not chosen)
    return (*call_back(others, now), replace(chosen, canary=share, canary_at=now))


def call_back(keys: Sequence[SealedKey], now: int) -> tuple[SealedKey, ...]:
    """What to write so that the active key signs for everyone again.

    The key stays in /jwk, so that what it signed stays valid; it is not activated by itself.
    """
    running = (key for key in of_stage(keys, Stage.PREPARED) if key.canary)
    return tuple(replace(key, canary=0, canary_at=now) for key in running)
