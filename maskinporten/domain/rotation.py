"""When our signing keys move from stage to stage, and what each move leaves behind.

There is no leader: every worker asks `next_step` of what it sees and the clock, and the one whose
commit comes first is right. The others see another registry and ask again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from maskinporten.domain.client import MAX_TOKEN_LIFETIME
from maskinporten.domain.signing import CERTIFICATE_LIFE, SealedKey, Stage

HOUR: Final = 3600  # seconds
DAY: Final = 24 * HOUR
SHARES: Final = range(1, 100)  # percent of the clients that a canary may have
SETTLE: Final = 60  # seconds: a commit reaches every worker, and node clocks differ by less
_SHORTEST_MAX_AGE: Final = 60  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPolicy:
    """How long a key stands in each stage. Numbers that could fail a validation are refused.

    Raises ValueError with a sentence.
    """

    period: int = 90 * DAY  # seconds a key signs; 0: activation is by hand alone
    lead: int = 2 * DAY  # seconds a key stands in /jwk before it may sign
    max_age: int = HOUR  # seconds that we allow /jwk to be kept
    cache: int = DAY  # seconds that providers may keep it in fact, whatever we allow
    margin: int = DAY  # seconds from the death of the last token to the removal of its key
    evidence: int = 0  # percent of the callers of /jwk that must have fetched the next key
    patience: int = 7 * DAY  # seconds that a first signature and an activation wait for them
    canary: tuple[int, ...] = ()  # percent of the clients, step by step, before an activation
    ramp: int = DAY  # seconds that the steps of the canary take together

    def __post_init__(self) -> None:
        least = max(self.max_age, self.cache) + SETTLE
        times = (self.period, self.lead, self.max_age, self.cache, self.margin)
        if min(*times, self.patience, self.ramp) < 0:
            raise ValueError("no time of the rotation may be negative")
        if self.lead < least:
            raise ValueError(
                f"the lead is {self.lead} s, and must be at least {least} s: a provider that "
                "fetched /jwk just before a key was published would meet tokens of a key it "
                "has not seen"
            )
        if list(self.canary) != sorted(set(self.canary) & set(SHARES)):
            raise ValueError("the canary's shares must be rising percentages from 1 to 99")
        if self.ramp < SETTLE * len(self.canary):
            raise ValueError(f"each step of the canary must last at least {SETTLE} s")
        if 0 < self.period < self.lead + self.ramping:
            raise ValueError(
                f"the period is {self.period} s, and must be at least the lead and the canary, "
                f"{self.lead + self.ramping} s: "
                "the next key would not be ready in time"
            )
        if self.margin < SETTLE:
            raise ValueError(
                f"the margin is {self.margin} s, and must be at least {SETTLE} s: a worker that "
                "hears late of a retirement signs with the old key for that long"
            )
        if not 0 <= self.evidence <= 100:  # noqa: PLR2004 - percent
            raise ValueError(f"the evidence is {self.evidence} percent, and must be 0 to 100")
        # A spare waits while its predecessor signs; then it signs; then its tokens die.
        wait = 2 * self.patience if self.evidence else 0
        life = (
            2 * (self.period + self.ramping + wait) + self.lead + MAX_TOKEN_LIFETIME + self.margin
        )
        if life > CERTIFICATE_LIFE:
            raise ValueError(
                f"a key would live {life} s, longer than its certificate's {CERTIFICATE_LIFE} s; "
                "shorten the period"
            )

    @property
    def ramping(self) -> int:
        """Seconds from the first signature of a key on canary to its activation."""
        return self.ramp if self.canary else 0

    @property
    def pause(self) -> int:
        """Seconds that each step of the canary lasts."""
        return self.ramp // max(1, len(self.canary))

    def further(self, key: SealedKey) -> list[int]:
        """The shares of the canary that the key has not reached yet."""
        return [share for share in self.canary if share > key.canary]


class Act(StrEnum):
    """What a step does."""

    BEGIN = "begin"
    PREPARE = "prepare"
    CANARY = "canary"
    ACTIVATE = "activate"
    REMOVE = "remove"


NEW_KEYS: Final = {Act.BEGIN: 2, Act.PREPARE: 1, Act.CANARY: 0, Act.ACTIVATE: 0, Act.REMOVE: 0}
"""How many fresh keys a step needs; the first key comes with its spare."""


@dataclass(frozen=True, slots=True)
class Step:
    """One move; `kid` is the key that is moved, empty where a new one is made."""

    act: Act
    kid: str = ""
    share: int = 0  # percent of the clients; of the canary alone


def next_step(
    keys: Sequence[SealedKey], policy: RotationPolicy, now: int, reached: int = 0
) -> Step | None:
    """What is due now, the most urgent first; None when there is nothing to do.

    `reached` is the percentage of the callers of /jwk that have fetched the next key.
    """
    active = of_stage(keys, Stage.ACTIVE)
    prepared = of_stage(keys, Stage.PREPARED)
    if not active:
        # Nothing signs. What was published longest is known to the most providers.
        # One that an operator called back is the last to be tried.
        best = sorted(prepared, key=lambda key: key.called_back)
        return Step(Act.ACTIVATE, best[0].kid) if best else Step(Act.BEGIN)
    coming = next_key(keys)
    if coming is None:
        return Step(Act.PREPARE)
    due = activation_at(keys, policy)
    if due is not None:
        step = Step(Act.ACTIVATE, coming.kid)
        if further := policy.further(coming):
            step = Step(Act.CANARY, coming.kid, further[0])
            begun = coming.canary_at + policy.pause
            due = begun if coming.canary else due - policy.ramping
        waits = step.act is Act.ACTIVATE or not coming.canary
        if due <= now and not (waits and held_back(due, policy, now, reached)):
            return step
    for key in of_stage(keys, Stage.RETIRED):
        if removal_at(key, policy) <= now:
            return Step(Act.REMOVE, key.kid)
    return None


def apply(
    step: Step, keys: Sequence[SealedKey], fresh: Sequence[SealedKey], now: int
) -> tuple[SealedKey, ...]:
    """The keys that the step writes. `fresh` are as many as `NEW_KEYS` says."""
    if step.act is Act.BEGIN:
        first, spare = fresh
        return (
            replace(first, stage=Stage.ACTIVE, prepared=now, activated=now),
            replace(spare, stage=Stage.PREPARED, prepared=now),
        )
    if step.act is Act.PREPARE:
        return tuple(replace(key, stage=Stage.PREPARED, prepared=now) for key in fresh)
    (moved,) = (key for key in keys if key.kid == step.kid)
    if step.act is Act.REMOVE:
        # What nobody needs any more, nobody can steal: the private half is not kept.
        return (replace(moved, stage=Stage.REMOVED, removed=now, sealed="", canary=0),)
    if step.act is Act.CANARY:
        return (replace(moved, canary=step.share, canary_at=now),)
    old = (replace(k, stage=Stage.RETIRED, retired=now) for k in of_stage(keys, Stage.ACTIVE))
    return (*old, replace(moved, stage=Stage.ACTIVE, activated=now, canary=0))


def of_stage(keys: Iterable[SealedKey], stage: Stage) -> list[SealedKey]:
    """The keys in that stage, those first that were published first."""
    found = (key for key in keys if key.stage is stage)
    return sorted(found, key=lambda key: (key.prepared, key.kid))


def next_key(keys: Iterable[SealedKey]) -> SealedKey | None:
    """The key that signs next: the one on canary, or the prepared one published first.

    None where there is none but those that an operator called back.
    """
    coming = [key for key in of_stage(keys, Stage.PREPARED) if not key.called_back]
    return min(coming, key=lambda key: not key.canary, default=None)


def ready_at(key: SealedKey, policy: RotationPolicy) -> int:
    """When every provider that keeps /jwk no longer than allowed has had to fetch the key."""
    return key.prepared + policy.lead


def removal_at(key: SealedKey, policy: RotationPolicy) -> int:
    """When the last token of a retired key has died, and the margin has passed."""
    return key.retired + MAX_TOKEN_LIFETIME + policy.margin


def activation_at(keys: Sequence[SealedKey], policy: RotationPolicy) -> int | None:
    """When the next key becomes the active one by itself; None where an operator decides."""
    active = of_stage(keys, Stage.ACTIVE)
    coming = next_key(keys)
    if not policy.period or not active or coming is None:
        return None
    due = max(active[-1].activated + policy.period, ready_at(coming, policy) + policy.ramping)
    if policy.canary and coming.canary:
        due = max(due, coming.canary_at + (len(policy.further(coming)) + 1) * policy.pause)
    return due


def held_back(due: int, policy: RotationPolicy, now: int, reached: int) -> bool:
    """Whether a first signature or an activation that is due waits for more callers.

    Not for ever: anyone may fetch /jwk once under a new name, and must not stop rotation by that.
    """
    return reached < policy.evidence and now < due + policy.patience


def max_age(keys: Sequence[SealedKey], policy: RotationPolicy, now: int) -> int:
    """Seconds that /jwk may be kept, fewer as an activation nears.

    A cache that obeys looks again about when the next key begins to sign, and sees the one after.
    """
    if any(now < key.revoked + policy.max_age for key in keys if key.revoked):
        return min(policy.max_age, _SHORTEST_MAX_AGE)  # others may follow: /jwk is not settled
    due = activation_at(keys, policy)
    if due is None or now >= due + SETTLE:
        return policy.max_age
    return min(policy.max_age, max(_SHORTEST_MAX_AGE, due - now))
