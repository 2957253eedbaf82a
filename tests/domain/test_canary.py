"""The canary: who may be on it, whom it signs for, how it goes on and how it goes back."""

from dataclasses import replace
from typing import Any

import pytest

from maskinporten.domain.canary import call_back, put_on_canary
from maskinporten.domain.rotation import (
    DAY,
    HOUR,
    Act,
    RotationPolicy,
    Step,
    activation_at,
    next_key,
    next_step,
    ready_at,
)
from maskinporten.domain.signing import SealedKey, Stage, takes_part
from tests.domain.test_rotation import moved, settled, staged
from tests.world import NOW

POLICY = RotationPolicy()
RAMP = RotationPolicy(canary=(1, 10, 50), ramp=3 * HOUR)
READY = NOW + POLICY.lead


@pytest.fixture
def keys() -> dict[str, SealedKey]:
    """A first key and its spare."""
    return settled({}, POLICY, NOW)


def written(keys: dict[str, SealedKey], change: tuple[SealedKey, ...]) -> dict[str, SealedKey]:
    """The keys after the change."""
    return keys | {key.kid: key for key in change}


REFUSED = [
    pytest.param({"share": 0}, "1 to 99", id="nobody"),
    pytest.param({"share": 100}, "1 to 99", id="everybody"),
    pytest.param(
        {"now": READY - 1}, "may not sign before 2027-01-17", id="a second before it is ready"
    ),
    pytest.param({"kid": "stranger"}, "no prepared key is named stranger", id="an unknown key"),
]


@pytest.mark.parametrize(("wrong", "sentence"), REFUSED)
def test_what_may_not_be_on_canary(
    keys: dict[str, SealedKey], wrong: dict[str, Any], sentence: str
) -> None:
    """One thing wrong at a time."""
    right = {"share": 1, "policy": POLICY, "now": READY}
    with pytest.raises(ValueError, match=sentence):
        put_on_canary(list(keys.values()), **{**right, **wrong})


def test_an_active_key_or_none_may_not_be_on_canary(keys: dict[str, SealedKey]) -> None:
    """It signs already."""
    (active,) = staged(keys, Stage.ACTIVE)
    with pytest.raises(ValueError, match="named"):
        put_on_canary(list(keys.values()), 1, POLICY, READY, active)
    with pytest.raises(ValueError, match="no key is prepared"):
        put_on_canary([keys[active]], 1, POLICY, READY)


def test_on_and_back(keys: dict[str, SealedKey]) -> None:
    """A key called back stays published and inactive, and another takes its place."""
    (spare,) = staged(keys, Stage.PREPARED)
    keys = written(keys, put_on_canary(list(keys.values()), 10, POLICY, READY))
    assert (keys[spare].canary, keys[spare].canary_at) == (10, READY)
    assert settled(keys, POLICY, READY + 9) == keys

    keys = written(keys, call_back(list(keys.values()), READY + 20))
    assert keys[spare].called_back
    assert call_back(list(keys.values()), READY + 30) == ()
    assert next_key(keys.values()) is None
    keys = settled(keys, POLICY, READY + 20)
    found = next_key(keys.values())
    assert found is not None
    assert found.kid != spare
    assert staged(keys, Stage.PREPARED) == [spare, found.kid]

    later = settled(keys, POLICY, NOW + POLICY.period)
    assert staged(later, Stage.ACTIVE) == [found.kid]
    assert keys[spare].stage is Stage.PREPARED
    again = written(keys, put_on_canary(list(keys.values()), 5, POLICY, READY + 30))
    assert next_key(again.values()) == again[spare]


def test_only_one_key_is_on_canary(keys: dict[str, SealedKey]) -> None:
    """Choosing another calls the first back; without a name it is the one that is on it."""
    keys = moved(keys, Step(Act.PREPARE), NOW)
    first, second = sorted(staged(keys, Stage.PREPARED))
    keys = written(keys, put_on_canary(list(keys.values()), 10, POLICY, READY, second))
    keys = written(keys, put_on_canary(list(keys.values()), 20, POLICY, READY))
    assert (keys[first].canary, keys[second].canary) == (0, 20)
    keys = written(keys, put_on_canary(list(keys.values()), 30, POLICY, READY, first))
    assert (keys[first].canary, keys[second].canary) == (30, 0)
    assert keys[second].called_back


def test_in_an_emergency_a_key_that_was_called_back_signs_last(keys: dict[str, SealedKey]) -> None:
    """It is known to be wrong for someone; yet better than no tokens at all."""
    (old,), (spare,) = staged(keys, Stage.ACTIVE), staged(keys, Stage.PREPARED)
    keys[old] = replace(keys[old], stage=Stage.REMOVED)
    keys[spare] = replace(keys[spare], canary_at=READY)
    assert next_step(list(keys.values()), POLICY, READY) == Step(Act.ACTIVATE, spare)
    keys = moved(keys, Step(Act.PREPARE), READY)
    (fresh,) = set(staged(keys, Stage.PREPARED)) - {spare}
    assert next_step(list(keys.values()), POLICY, READY) == Step(Act.ACTIVATE, fresh)


def test_the_same_clients_take_part_and_ever_more() -> None:
    """Who takes part in a share takes part in each larger one; each key begins with others."""
    clients = [f"client-{n}" for n in range(2000)]
    chosen = [{c for c in clients if takes_part("k", share, c)} for share in (0, 10, 50, 100)]

    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]
    assert not chosen[0]
    assert len(chosen[3]) == 2000
    assert 140 < len(chosen[1]) < 260
    assert 880 < len(chosen[2]) < 1120
    assert chosen[1] != {c for c in clients if takes_part("other", 10, c)}


def test_a_ramp_goes_step_by_step_to_the_activation() -> None:
    """Each step to the second; the activation is when it would have been."""
    keys = settled({}, RAMP, NOW)
    (spare,) = staged(keys, Stage.PREPARED)
    due = NOW + RAMP.period
    assert activation_at(list(keys.values()), RAMP) == due
    for at, share in ((due - 3 * HOUR, 1), (due - 2 * HOUR, 10), (due - HOUR, 50)):
        assert settled(keys, RAMP, at - 1) == keys
        assert next_step(list(keys.values()), RAMP, at) == Step(Act.CANARY, spare, share)
        keys = settled(keys, RAMP, at)
        assert (keys[spare].canary, keys[spare].canary_at) == (share, at)
        assert activation_at(list(keys.values()), RAMP) == due
    assert settled(keys, RAMP, due - 1) == keys
    keys = settled(keys, RAMP, due)
    assert staged(keys, Stage.ACTIVE) == [spare]
    assert keys[spare].canary == 0


def test_a_ramp_that_begins_late_skips_no_step() -> None:
    """Nobody rotated for a year: the steps still last as long as they should."""
    keys = settled({}, RAMP, NOW)
    (spare,) = staged(keys, Stage.PREPARED)
    late = NOW + 300 * DAY
    keys = settled(keys, RAMP, late)
    assert keys[spare].canary == 1
    assert activation_at(list(keys.values()), RAMP) == late + 3 * HOUR
    assert settled(keys, RAMP, late + HOUR - 1) == keys


def test_a_ramp_begins_no_sooner_than_the_key_is_ready() -> None:
    """However short the period is."""
    policy = RotationPolicy(canary=(50,), ramp=DAY, period=3 * DAY)
    keys = settled({}, policy, NOW)
    (spare,) = staged(keys, Stage.PREPARED)
    keys[spare] = replace(keys[spare], prepared=NOW + DAY)
    ready = ready_at(keys[spare], policy)
    assert settled(keys, policy, ready - 1) == keys
    assert settled(keys, policy, ready)[spare].canary == 50


@pytest.mark.parametrize(("reached", "wait"), [(49, 7 * DAY), (50, 0)])
def test_a_ramp_waits_for_evidence_before_its_first_step_and_the_activation(
    reached: int, wait: int
) -> None:
    """Not between, where going on slowly helps nobody; and never longer than patience."""
    policy = replace(RAMP, evidence=50)
    keys = settled({}, policy, NOW)
    (spare,) = staged(keys, Stage.PREPARED)
    at = NOW + policy.period - policy.ramp + wait
    for share in policy.canary:
        assert next_step(list(keys.values()), policy, at - 1, reached) is None
        keys = settled(keys, policy, at, reached)
        assert keys[spare].canary == share
        at += HOUR
    assert next_step(list(keys.values()), policy, at + wait - 1, reached) is None
    assert next_step(list(keys.values()), policy, at + wait, reached) == Step(Act.ACTIVATE, spare)


def test_by_hand_alone_there_is_no_ramp() -> None:
    """Period 0: what an operator put on canary stays there."""
    policy = replace(RAMP, period=0)
    keys = settled({}, policy, NOW)
    assert settled(keys, policy, NOW + 900 * DAY) == keys
    keys = written(keys, put_on_canary(list(keys.values()), 10, policy, READY))
    assert settled(keys, policy, READY + 900 * DAY) == keys
