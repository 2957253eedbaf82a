"""`keys canary`, and what `keys status` says of the canary and of who has fetched the next key."""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from maskinporten.domain.canary import call_back, put_on_canary
from maskinporten.domain.evidence import DAY, WINDOW, Fetch, behind, reach
from maskinporten.domain.keystep import StepRefused, find_kid, instant
from maskinporten.domain.registry import Change, Registry
from maskinporten.domain.rotation import RotationPolicy, activation_at, next_key, of_stage
from maskinporten.domain.signing import SealedKey, Stage
from maskinporten.errors import Fault, InvalidInput

if TYPE_CHECKING:
    from maskinporten.commands.keys import Bench

_SHOWN = 10  # callers that lack the next key


def add_canary_part(parts: Any, bench: "Callable[[], AbstractAsyncContextManager[Bench]]") -> None:
    """Declare `keys canary`."""
    part = parts.add_parser(
        "canary",
        help="let the next key sign for a share of the clients, or go back",
        description="To let a prepared key sign for a share of the clients, the same ones on every "
        "server, within a second. `off` goes back as fast: the key stays in /jwk, so that what it "
        "signed stays valid, and is not activated by itself any more.",
    )
    part.add_argument("share", metavar="SHARE", help="a percentage from 1 to 99, or `off`")
    part.add_argument("--key", default="", metavar="KID", help="its name, or its beginning")
    part.set_defaults(run=lambda arguments: asyncio.run(_canary(arguments, bench)))


async def _canary(
    arguments: argparse.Namespace, bench: "Callable[[], AbstractAsyncContextManager[Bench]]"
) -> int:
    off = arguments.share == "off"
    text = arguments.share.removesuffix("%")
    if not off and not (text.isascii() and text.isdecimal() and len(text) <= 2):  # noqa: PLR2004
        raise InvalidInput((Fault("keys canary", "the share must be 1 to 99, or `off`"),))
    async with bench() as at:
        written: list[SealedKey] = []

        def decide(registry: Registry) -> Change:
            keys, now = tuple(registry.signing_keys.values()), int(time.time())
            if off:
                written[:] = call_back(keys, now)
            else:
                kid = find_kid(keys, arguments.key)
                written[:] = put_on_canary(keys, int(text), at.policy, now, kid)
            return Change(tuple(written))

        try:
            await at.write(decide, f"keys: canary {arguments.share}")
        except (StepRefused, ValueError) as fault:
            raise InvalidInput((Fault("keys canary", str(fault)),)) from fault
        for key in written:
            print(*_standing(key), sep="\n")
            if key.canary:
                print("`maskinporten keys canary off` goes back")
        if not written:
            print("no key was on canary")
    return 0


def canary_lines(keys: Sequence[SealedKey]) -> list[str]:
    """For `keys status`: which key is on canary, and which was called back."""
    return [line for key in of_stage(keys, Stage.PREPARED) for line in _standing(key)]


def _standing(key: SealedKey) -> list[str]:
    if key.canary:
        since = instant(key.canary_at)
        return [f"{key.kid} signs for {key.canary} % of the clients since {since}"]
    if key.called_back:
        told = f"{key.kid} was called back at {instant(key.canary_at)}"
        return [f"{told}, and is not activated by itself; `keys retire` ends it"]
    return []


def evidence_lines(
    fetches: Sequence[Fetch], keys: Sequence[SealedKey], policy: RotationPolicy, now: int
) -> list[str]:
    """For `keys status`: which share of the callers of /jwk has fetched the next key."""
    coming, since = next_key(keys), now - WINDOW
    if coming is None:
        return []
    found = reach(fetches, coming.kid, since)
    share = f"{found.fetched} of {found.callers} callers of /jwk seen in {WINDOW // DAY} days"
    lines = [f"{share} ({found.percent} %) have fetched {coming.kid}"]
    missing = list(behind(fetches, coming.kid, since).items())
    lines += [
        f"  not yet: {who.library} from {who.network}, last seen {instant(at)}"
        for who, at in missing[:_SHOWN]
    ]
    if len(missing) > _SHOWN:
        lines.append(f"  and {len(missing) - _SHOWN} more")
    due = activation_at(keys, policy)
    if policy.evidence and due is not None and found.percent < policy.evidence:
        lines.append(
            f"it waits for {policy.evidence} % of them before it signs by itself, for at most "
            f"{policy.patience} s (MASKINPORTEN_ROTATION_EVIDENCE)"
        )
    return lines
