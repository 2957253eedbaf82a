"""What an operator may do with our signing keys by hand, what it leaves, and when it is not safe.

Each act is planned before it is done: a `Plan` holds the keys it writes and its hazards, in
sentences. One with hazards is carried out only by an operator who has read them. What could not
be right at all raises `StepRefused`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from maskinporten.domain.client import MAX_TOKEN_LIFETIME
from maskinporten.domain.rotation import (
    Act,
    RotationPolicy,
    Step,
    apply,
    next_key,
    of_stage,
    ready_at,
    removal_at,
)
from maskinporten.domain.signing import SealedKey, Stage

MAX_REASON: Final = 200  # characters


class StepRefused(ValueError):
    """The act makes no sense with these keys; the text is a sentence for the operator."""


class ByHand(StrEnum):
    """What can be done by hand."""

    PREPARE = "prepare"
    ACTIVATE = "activate"
    RETIRE = "retire"
    REMOVE = "remove"
    ROTATE = "rotate"
    REVOKE = "revoke"


@dataclass(frozen=True, slots=True)
class Plan:
    """An act, worked out: what it writes, what follows from it, what may go wrong."""

    keys: tuple[SealedKey, ...]
    follows: tuple[str, ...]
    hazards: tuple[str, ...] = ()


def spares_needed(act: ByHand, kid: str, keys: Sequence[SealedKey]) -> int:
    """How many fresh keys the act needs, so that one to sign and a spare are left."""
    if act is ByHand.PREPARE:
        return 1
    if act is ByHand.REMOVE:
        return 0
    left = [key for key in of_stage(keys, Stage.PREPARED) if key.kid != kid]
    # An act without a name, or on the key that signs, lets the next one sign.
    takes_next = not kid or any(key.kid == kid for key in of_stage(keys, Stage.ACTIVE))
    return max(0, (2 if takes_next else 1) - len(left))


def plan(
    act: ByHand,
    kid: str,
    keys: Sequence[SealedKey],
    fresh: Sequence[SealedKey],
    policy: RotationPolicy,
    now: int,
    reason: str = "",
) -> Plan:
    """The act on the keys as they are. `fresh` are as many as `spares_needed` says.

    `kid` may be empty where the act chooses by itself. Raises StepRefused.
    """
    if act is ByHand.PREPARE:
        return _prepare(fresh, policy, now)
    if act is ByHand.REMOVE:
        return _remove(_named(keys, kid), policy, now)
    if act is ByHand.REVOKE:
        return _revoke(_named(keys, kid), keys, fresh, policy, now, reason)
    if act is ByHand.RETIRE and kid and _named(keys, kid).stage is not Stage.ACTIVE:
        return _retire_spare(_named(keys, kid), fresh, policy, now)
    if act is ByHand.RETIRE:
        kid = ""  # The active key retires by another taking its place.
    return _activate(kid, keys, fresh, policy, now)


def _named(keys: Iterable[SealedKey], kid: str) -> SealedKey:
    """The key of that name, or the only one whose name begins so."""
    if not kid:
        raise StepRefused("name a key; `maskinporten keys list` shows them")
    found = [key for key in keys if key.kid.startswith(kid)]
    exact = [key for key in found if key.kid == kid]
    if len(exact or found) != 1:
        raise StepRefused(f"{len(found) or 'no'} keys are named {kid}")
    return (exact or found)[0]


def find_kid(keys: Iterable[SealedKey], kid: str) -> str:
    """The whole name of a key, from its beginning; empty for empty. Raises StepRefused."""
    return _named(keys, kid).kid if kid else ""


def _spares(fresh: Iterable[SealedKey], now: int) -> tuple[SealedKey, ...]:
    return tuple(replace(key, stage=Stage.PREPARED, prepared=now) for key in fresh)


def _prepare(fresh: Sequence[SealedKey], policy: RotationPolicy, now: int) -> Plan:
    spares = _spares(fresh, now)
    told = [
        f"{k.kid} stands in /jwk; safe to sign from {instant(now + policy.lead)}" for k in spares
    ]
    return Plan(spares, tuple(told))


def _activate(
    kid: str,
    keys: Sequence[SealedKey],
    fresh: Sequence[SealedKey],
    policy: RotationPolicy,
    now: int,
) -> Plan:
    chosen = _named(keys, kid) if kid else _next(keys)
    spares = _spares(fresh, now)
    if chosen is None:
        chosen, spares = spares[0], spares[1:]
    if chosen.stage is Stage.ACTIVE:
        raise StepRefused(f"{chosen.kid} signs already")
    if chosen.stage is Stage.REMOVED:
        raise StepRefused(f"{chosen.kid} was removed, and its private half is gone")
    hazards = [*_unseen(chosen, policy, now), *_short_lived(chosen, policy, now)]
    others = (key for key in keys if key.kid != chosen.kid)
    written = apply(Step(Act.ACTIVATE, chosen.kid), (chosen, *others), (), now)
    written = tuple(replace(k, retired=0) if k.kid == chosen.kid else k for k in written)
    told = [f"{chosen.kid} signs every token from now on"]
    told += [
        f"{key.kid} stays in /jwk until {instant(removal_at(key, policy))}; "
        f"until then `keys activate {option(key.kid)}` goes back"
        for key in written
        if key.stage is Stage.RETIRED
    ]
    return Plan((*written, *spares), (*told, *_of_spares(spares, policy)), tuple(hazards))


def _next(keys: Sequence[SealedKey]) -> SealedKey | None:
    """The key whose turn it is; one that was called back from canary only if there is no other."""
    return next_key(keys) or next(iter(of_stage(keys, Stage.PREPARED)), None)


def _retire_spare(
    key: SealedKey, fresh: Sequence[SealedKey], policy: RotationPolicy, now: int
) -> Plan:
    if key.stage is not Stage.PREPARED:
        raise StepRefused(f"{key.kid} is {key.stage} already")
    retired = replace(key, stage=Stage.RETIRED, retired=now, canary=0)
    spares = _spares(fresh, now)
    told = (
        f"{key.kid} will not sign; it stays in /jwk until {instant(removal_at(retired, policy))}",
        *_of_spares(spares, policy),
    )
    return Plan((retired, *spares), told)


def _remove(key: SealedKey, policy: RotationPolicy, now: int) -> Plan:
    if key.stage is not Stage.RETIRED:
        wanted = "gone already" if key.stage is Stage.REMOVED else f"{key.stage}; retire it first"
        raise StepRefused(f"{key.kid} is {wanted}")
    hazards = []
    if (safe := removal_at(key, policy)) > now:
        hazards.append(
            f"tokens that {key.kid} signed may live until "
            f"{instant(key.retired + MAX_TOKEN_LIFETIME)}, and providers would refuse them; "
            f"safe from {instant(safe)}"
        )
    written = apply(Step(Act.REMOVE, key.kid), [key], (), now)
    return Plan(written, (f"{key.kid} leaves /jwk, and its private half is gone",), tuple(hazards))


def _revoke(
    key: SealedKey,
    keys: Sequence[SealedKey],
    fresh: Sequence[SealedKey],
    policy: RotationPolicy,
    now: int,
    reason: str,
) -> Plan:
    """Out of /jwk and out of use at once. What it signed is void wherever /jwk is read anew."""
    if key.stage is Stage.REMOVED:
        raise StepRefused(f"{key.kid} is gone already")
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise StepRefused(f"the reason must be at most {MAX_REASON} characters on one line")
    gone = replace(
        key, stage=Stage.REMOVED, removed=now, revoked=now, reason=reason, sealed="", canary=0
    )  # fmt: skip
    spares = _spares(fresh, now)
    told = [
        f"{key.kid} leaves /jwk now, and its private half is gone",
        (
            f"tokens it signed are void where /jwk is read anew; none lives beyond "
            f"{instant(now + MAX_TOKEN_LIFETIME)}"
        ),
        (
            f"a provider that does nothing takes what a thief signs until "
            f"{instant(now + max(policy.cache, policy.max_age))} at the latest"
        ),
        "tell every API provider to fetch /jwk now, and to forget the key set it keeps",
        "tell consumers to fetch new tokens; their clients do so by themselves at the next expiry",
    ]
    hazards = [f"every living token that {key.kid} signed stops to work"]
    if key.stage is not Stage.ACTIVE:
        return Plan((gone, *spares), (*told, *_of_spares(spares, policy)), tuple(hazards))
    chosen = _heir(keys, policy, now)
    if chosen is None:
        chosen, spares = spares[0], spares[1:]
    hazards += _unseen(chosen, policy, now)
    told.insert(1, f"{chosen.kid} signs every token from now on")
    heir = replace(chosen, stage=Stage.ACTIVE, activated=now, retired=0, canary=0)
    return Plan((gone, heir, *spares), (*told, *_of_spares(spares, policy)), tuple(hazards))


def _heir(keys: Sequence[SealedKey], policy: RotationPolicy, now: int) -> SealedKey | None:
    """Who signs when the active key must not: one that every provider knows, if there is any.

    A key that was withdrawn before it signed will do; one that has signed was retired for good.
    """
    spares = sorted(of_stage(keys, Stage.PREPARED), key=lambda key: key.called_back)
    withdrawn = [k for k in of_stage(keys, Stage.RETIRED) if not k.activated and not k.canary_at]
    known = [key for key in (*spares, *withdrawn) if ready_at(key, policy) <= now]
    return next(iter((*known, *spares)), None)


def adopt(key: SealedKey, keys: Sequence[SealedKey], now: int) -> tuple[SealedKey, ...]:
    """What an imported key's coming writes: it is next, and the spares before it will not sign.

    They stay in /jwk for a while, so that an emergency finds a key that every provider knows.
    """
    spares = of_stage(keys, Stage.PREPARED)
    withdrawn = (replace(k, stage=Stage.RETIRED, retired=now, canary=0) for k in spares)
    return (replace(key, prepared=now), *withdrawn)


def _unseen(key: SealedKey, policy: RotationPolicy, now: int) -> list[str]:
    """A key that some provider has had no chance to fetch; a retired one stands in every copy."""
    if key.stage is Stage.RETIRED or ready_at(key, policy) <= now:
        return []
    return [
        (
            f"{key.kid} was published at {instant(key.prepared)}; providers who keep /jwk have not "
            f"seen it, and would refuse its tokens; safe from {instant(ready_at(key, policy))}"
        )
    ]


def _short_lived(key: SealedKey, policy: RotationPolicy, now: int) -> list[str]:
    """A certificate that ends before the key's last token is dead."""
    needed = now + policy.period + MAX_TOKEN_LIFETIME + policy.margin
    if not key.certificate_end or key.certificate_end >= needed:
        return []
    end = instant(key.certificate_end)
    return [f"the certificate of {key.kid} ends at {end}, before the key would be removed"]


def _of_spares(spares: Iterable[SealedKey], policy: RotationPolicy) -> list[str]:
    return [
        f"{key.kid} is the new spare; safe to sign from {instant(ready_at(key, policy))}"
        for key in spares
    ]


def instant(at: int) -> str:
    """Epoch seconds as an operator reads them."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def option(kid: str) -> str:
    """The kid as a command takes it; one in sixty-four begins with a dash."""
    return f"-- {kid}" if kid.startswith("-") else kid


def standing(key: SealedKey, policy: RotationPolicy, now: int) -> str:
    """What a key is about to do, in a few words."""
    if key.stage is Stage.PREPARED:
        ready = ready_at(key, policy)
        return "may sign" if ready <= now else f"may sign from {instant(ready)}"
    if key.stage is Stage.ACTIVE:
        return f"signs since {instant(key.activated)}"
    if key.stage is Stage.RETIRED:
        return f"leaves /jwk at {instant(removal_at(key, policy))}"
    if key.revoked:
        return f"revoked at {instant(key.revoked)}" + (f": {key.reason}" if key.reason else "")
    return f"removed at {instant(key.removed)}"


def published_first(keys: Iterable[SealedKey]) -> list[SealedKey]:
    """In the order in which an operator looks for them."""
    order = [Stage.ACTIVE, Stage.PREPARED, Stage.RETIRED, Stage.REMOVED]
    return sorted(keys, key=lambda k: (order.index(k.stage), k.prepared, k.kid))
