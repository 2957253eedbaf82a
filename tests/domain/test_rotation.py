"""Rotation by property: no provider meets an unknown key, no living token loses its key."""

from dataclasses import replace
from itertools import count, product
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskinporten.domain.canary import call_back, put_on_canary
from maskinporten.domain.client import MAX_TOKEN_LIFETIME
from maskinporten.domain.keystep import ByHand, plan, spares_needed
from maskinporten.domain.rotation import (
    DAY,
    HOUR,
    NEW_KEYS,
    SETTLE,
    Act,
    RotationPolicy,
    Step,
    activation_at,
    apply,
    max_age,
    next_key,
    next_step,
    ready_at,
    removal_at,
)
from maskinporten.domain.signing import PUBLISHED, SealedKey, Stage
from tests.world import NOW

POLICY = RotationPolicy()
_kids = count()


def fresh(number: int = 1) -> list[SealedKey]:
    """New keys; what is inside them is nothing to the rules."""
    return [
        SealedKey(kid=f"k{next(_kids)}", stage=Stage.PREPARED, n="", e="", sealed="sealed")
        for _ in range(number)
    ]


def moved(keys: dict[str, SealedKey], step: Step, now: int) -> dict[str, SealedKey]:
    """The keys after the step."""
    written = apply(step, list(keys.values()), fresh(NEW_KEYS[step.act]), now)
    return keys | {key.kid: key for key in written}


def settled(
    keys: dict[str, SealedKey], policy: RotationPolicy, now: int, reached: int = 0
) -> dict[str, SealedKey]:
    """The keys after every step that is due."""
    while (step := next_step(list(keys.values()), policy, now, reached)) is not None:
        keys = moved(keys, step, now)
    return keys


def staged(keys: dict[str, SealedKey], stage: Stage) -> list[str]:
    """The kids in a stage."""
    return [key.kid for key in keys.values() if key.stage is stage]


REFUSED = [
    pytest.param({"lead": DAY + SETTLE - 1}, "has not seen", id="lead a second under the cache"),
    pytest.param({"max_age": 2 * DAY}, "has not seen", id="we allow more than the lead"),
    pytest.param({"period": 2 * DAY - 1}, "not be ready", id="period a second under the lead"),
    pytest.param({"margin": SETTLE - 1}, "hears late", id="margin a second under the settling"),
    pytest.param({"period": 600 * DAY}, "certificate", id="two periods outlive the certificate"),
    pytest.param({"cache": -1}, "negative", id="a negative time"),
    pytest.param({"ramp": -1}, "negative", id="a negative ramp"),
    pytest.param({"canary": (0, 10)}, "rising", id="a canary of nobody"),
    pytest.param({"canary": (10, 100)}, "rising", id="a canary of all"),
    pytest.param({"canary": (10, 5)}, "rising", id="a canary that falls"),
    pytest.param({"canary": (5, 5)}, "rising", id="a canary that stands"),
    pytest.param({"canary": (1, 2), "ramp": 119}, "60 s", id="a step under the settling"),
    pytest.param(
        {"canary": (1,), "period": 3 * DAY - 1}, "not be ready", id="period a second under both"
    ),
    pytest.param({"patience": -1}, "negative", id="a negative patience"),
    pytest.param({"evidence": -1}, "0 to 100", id="evidence below nothing"),
    pytest.param({"evidence": 101}, "0 to 100", id="evidence of more than all"),
    pytest.param({"evidence": 1, "patience": 500 * DAY}, "certificate", id="endless patience"),
]


@pytest.mark.parametrize(("numbers", "sentence"), REFUSED)
def test_a_policy_that_could_fail_a_validation_is_refused(
    numbers: dict[str, Any], sentence: str
) -> None:
    """One number wrong at a time; the sentence says why."""
    with pytest.raises(ValueError, match=sentence):
        RotationPolicy(**numbers)


def test_the_boundaries_are_allowed() -> None:
    """A second more on each side, and by hand alone."""
    RotationPolicy(lead=DAY + SETTLE, period=DAY + SETTLE, margin=SETTLE)
    RotationPolicy(period=0)
    RotationPolicy(canary=(1, 99), ramp=2 * SETTLE, period=2 * DAY + 2 * SETTLE)
    RotationPolicy(evidence=100, patience=0)
    RotationPolicy(patience=500 * DAY)  # of no meaning without evidence


def test_an_empty_registry_begins_with_a_key_and_its_spare() -> None:
    """One commit makes both; there is a spare from the first moment."""
    keys = moved({}, Step(Act.BEGIN), NOW)

    assert next_step([], POLICY, NOW) == Step(Act.BEGIN)
    assert [key.stage for key in keys.values()] == [Stage.ACTIVE, Stage.PREPARED]
    assert next_step(list(keys.values()), POLICY, NOW) is None


def test_a_life() -> None:
    """Prepared, active, retired, removed: each to the second, and the private half goes last."""
    keys = settled({}, POLICY, NOW)
    (old,), (new,) = staged(keys, Stage.ACTIVE), staged(keys, Stage.PREPARED)
    due = NOW + POLICY.period
    assert activation_at(list(keys.values()), POLICY) == due
    assert settled(keys, POLICY, due - 1) == keys

    keys = settled(keys, POLICY, due)
    assert staged(keys, Stage.ACTIVE) == [new]
    assert staged(keys, Stage.RETIRED) == [old]
    assert len(staged(keys, Stage.PREPARED)) == 1
    gone = removal_at(keys[old], POLICY)
    assert gone == due + MAX_TOKEN_LIFETIME + POLICY.margin
    assert settled(keys, POLICY, gone - 1) == keys

    keys = settled(keys, POLICY, gone)
    assert (keys[old].stage, keys[old].removed, keys[old].sealed) == (Stage.REMOVED, gone, "")


def test_by_hand_alone_the_spare_is_still_prepared() -> None:
    """Period 0: nothing is activated by itself, and /jwk may be kept as long as ever."""
    policy = RotationPolicy(period=0)
    keys = settled({}, policy, NOW)

    assert settled(keys, policy, NOW + 1000 * DAY) == keys
    assert max_age(list(keys.values()), policy, NOW + 1000 * DAY) == HOUR


def test_without_an_active_key_the_prepared_one_signs() -> None:
    """At once: the alternative is no tokens at all."""
    keys = settled({}, POLICY, NOW)
    (old,), (spare,) = staged(keys, Stage.ACTIVE), staged(keys, Stage.PREPARED)
    keys[old] = replace(keys[old], stage=Stage.REMOVED)

    assert next_step(list(keys.values()), POLICY, NOW) == Step(Act.ACTIVATE, spare)


AGES = [
    pytest.param(-HOUR - 1, HOUR, id="far away"),
    pytest.param(-HOUR + 1, HOUR - 1, id="within the hour"),
    pytest.param(-61, 61, id="a minute and a second"),
    pytest.param(-1, 60, id="a second"),
    pytest.param(SETTLE - 1, 60, id="overdue by less than it takes to settle"),
    pytest.param(SETTLE, HOUR, id="overdue by more: nobody rotates"),
]


@pytest.mark.parametrize(("from_due", "expected"), AGES)
def test_the_key_set_may_be_kept_shorter_as_an_activation_nears(
    from_due: int, expected: int
) -> None:
    """Cache-Control follows the schedule."""
    keys = list(settled({}, POLICY, NOW).values())

    assert max_age(keys, POLICY, NOW + POLICY.period + from_due) == expected


POLICIES = st.builds(
    lambda cache, period, margin, ramp, canary, evidence, patience: RotationPolicy(
        period=max(period, cache + SETTLE + ramp),
        lead=cache + SETTLE,
        cache=cache,
        max_age=min(cache, HOUR),
        margin=margin,
        ramp=ramp,
        canary=canary,
        evidence=evidence,
        patience=patience,
    ),
    cache=st.integers(0, DAY),
    period=st.integers(0, 40 * DAY),
    margin=st.sampled_from([SETTLE, HOUR, DAY]),
    ramp=st.integers(3 * SETTLE, 3 * DAY),
    canary=st.sampled_from([(), (50,), (1, 10, 50)]),
    evidence=st.sampled_from([0, 50, 100]),
    patience=st.integers(0, 9 * DAY),
)
PAUSES = st.one_of(st.integers(1, 2 * HOUR), st.integers(HOUR, 3 * DAY), st.integers(DAY, 45 * DAY))
DEEDS = st.sampled_from(
    ["look", *ByHand, *3 * ["canary", "call back", ByHand.RETIRE, ByHand.REMOVE]]
)


@settings(max_examples=400, deadline=None)
@given(
    policy=POLICIES,
    life=st.lists(st.tuples(PAUSES, DEEDS, st.integers(0, 99)), min_size=20, max_size=40),
    ages=st.lists(st.integers(0, DAY), max_size=4),
)
def test_no_provider_meets_an_unknown_key_and_no_living_token_loses_its_key(
    policy: RotationPolicy, life: list[tuple[int, str, int]], ages: list[int]
) -> None:
    """Whatever happens at whatever moment; caches and tokens live as long as they may.

    At each moment some worker looks, or an operator does what the rules allow; each is followed by
    every step that is due. Between two moments the key set stands still. Each key that signs then
    (the active one, and one on canary) signs a token at the first and the last second of that
    stretch. Each token is shown at its birth and its death to providers whose copies are of every
    age they may have. Revoked keys are excused from then on, and a key that had to sign in the
    place of one is until it is ready.
    """
    now = NOW
    keys = settled({}, policy, now)
    excused: dict[str, int] = {}  # since when a kid is revoked
    early: dict[str, int] = {}  # when a kid that signs in place of a revoked one is ready
    stretches: list[tuple[int, int, frozenset[str], list[str]]] = []
    for pause, deed, number in life:
        shown = frozenset(k.kid for k in keys.values() if k.stage in PUBLISHED)
        signers = [k.kid for k in keys.values() if k.stage is Stage.ACTIVE or k.canary]
        assert len(staged(keys, Stage.ACTIVE)) == 1
        assert next_key(keys.values()) is not None, "there is always a spare"
        assert len(signers) <= 2
        stretches.append((now, now + pause, shown, signers))
        now += pause
        before, keys = keys, done(keys, policy, now, deed, number)
        if gone := [kid for kid, key in keys.items() if key.revoked and kid not in excused]:
            excused[gone[0]] = now
            for kid in set(staged(keys, Stage.ACTIVE)) - set(staged(before, Stage.ACTIVE)):
                early[kid] = ready_at(keys[kid], policy)
        keys = settled(keys, policy, now, number)

    def published(at: int) -> frozenset[str]:
        return next(shown for begin, end, shown, _ in stretches if begin <= at < end)

    for begin, end, _, signers in stretches:
        for signer, signed in product(signers, {begin, end - 1}):
            for lived in (0, MAX_TOKEN_LIFETIME):
                for age in {min(a, policy.cache) for a in ages} | {0, policy.cache}:
                    fetched = signed + lived - age
                    living = early.get(signer, 0) <= signed + lived < excused.get(signer, inf)
                    if living and NOW <= fetched < now:
                        assert signer in published(fetched)


def done(
    keys: dict[str, SealedKey], policy: RotationPolicy, now: int, deed: str, number: int
) -> dict[str, SealedKey]:
    """The keys after an operator has done what is safe; as they were, where it is not.

    Only a key is revoked whatever it does to others.
    """
    held = list(keys.values())
    try:
        if deed == "canary":
            return keys | {key.kid: key for key in put_on_canary(held, number, policy, now)}
        if deed == "call back":
            return keys | {key.kid: key for key in call_back(held, now)}
        if deed not in list(ByHand):
            return keys
        act = ByHand(deed)
        standing = [key.kid for key in held if key.stage in PUBLISHED]
        kid = standing[number % len(standing)]
        planned = plan(act, kid, held, fresh(spares_needed(act, kid, held)), policy, now)
    except ValueError:
        return keys
    if planned.hazards and act is not ByHand.REVOKE:
        return keys
    return keys | {key.kid: key for key in planned.keys}
