"""Rotation by property: no provider meets an unknown key, no living token loses its key."""

from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskinporten.domain.client import MAX_TOKEN_LIFETIME
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
    next_step,
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


def settled(keys: dict[str, SealedKey], policy: RotationPolicy, now: int) -> dict[str, SealedKey]:
    """The keys after every step that is due."""
    while (step := next_step(list(keys.values()), policy, now)) is not None:
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


@given(
    period=st.integers(DAY + SETTLE, 40 * DAY),
    cache=st.integers(0, DAY),
    looks=st.lists(st.integers(1, 15 * DAY), min_size=1, max_size=60),
    fetches=st.lists(st.integers(0, DAY), min_size=1, max_size=8),
)
def test_no_provider_meets_an_unknown_key_and_no_living_token_loses_its_key(
    period: int, cache: int, looks: list[int], fetches: list[int]
) -> None:
    """Rotation runs at arbitrary moments; caches and tokens live as long as they may.

    Each look is a moment at which some worker wakes. Between two looks the key set stands still.
    A token is signed at the first and at the last second of each stretch, and is shown at its
    birth and at its death to providers whose copies are of every age they may have.
    """
    policy = RotationPolicy(
        period=max(period, cache + SETTLE),
        lead=cache + SETTLE,
        cache=cache,
        max_age=min(cache, HOUR),
    )
    now = NOW
    keys = settled({}, policy, now)
    begins: list[int] = []  # each stretch's first second
    sets: list[frozenset[str]] = []  # what was published in it
    signers: list[str] = []
    for pause in looks:
        begins.append(now)
        sets.append(frozenset(k.kid for k in keys.values() if k.stage in PUBLISHED))
        (signer,) = staged(keys, Stage.ACTIVE)
        signers.append(signer)
        assert staged(keys, Stage.PREPARED), "there is always a spare"
        now += pause
        keys = settled(keys, policy, now)

    def published(at: int) -> frozenset[str]:
        return next(s for b, s in reversed(list(zip(begins, sets, strict=True))) if b <= at)

    for number, signer in enumerate(signers):
        ends = begins[number + 1] if number + 1 < len(begins) else now
        for signed in {begins[number], ends - 1}:
            for shown in (signed, signed + MAX_TOKEN_LIFETIME):
                for age in {min(fetch, cache) for fetch in fetches} | {0, cache}:
                    if NOW <= shown - age < now:
                        assert signer in published(shown - age)
