"""Each act by hand: what it writes, when it is not safe, what it refuses."""

from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskinporten.domain.client import MAX_TOKEN_LIFETIME
from maskinporten.domain.keystep import (
    MAX_REASON,
    ByHand,
    Plan,
    StepRefused,
    find_kid,
    plan,
    published_first,
    spares_needed,
    standing,
)
from maskinporten.domain.rotation import RotationPolicy, max_age, next_step
from maskinporten.domain.signing import PUBLISHED, SealedKey, Stage
from tests.world import NOW

POLICY = RotationPolicy()
READY = NOW - POLICY.lead  # a key prepared then may sign now, to the second
DEAD = NOW - MAX_TOKEN_LIFETIME - POLICY.margin  # a key retired then may leave now
_kids = count()


def key(kid: str, stage: Stage, at: int = READY, **members: int) -> SealedKey:
    """A key in a stage, which it reached at `at`."""
    made = SealedKey(kid=kid, stage=stage, n="", e="", sealed="sealed", prepared=at)
    times: dict[str, Any] = {Stage.ACTIVE: {"activated": at}, Stage.RETIRED: {"retired": at}}.get(
        stage, {}
    )
    return replace(made, **{**times, **members})


def fresh(number: int) -> list[SealedKey]:
    """Keys just made."""
    return [key(f"fresh{next(_kids)}", Stage.PREPARED, NOW) for _ in range(number)]


USUAL = [
    key("active", Stage.ACTIVE),
    key("spare", Stage.PREPARED),
    key("young", Stage.PREPARED, READY + 1),
    key("old", Stage.RETIRED, DEAD),
    key("older", Stage.RETIRED, DEAD + 1),
    key("gone", Stage.REMOVED),
]
LONELY = [key("active", Stage.ACTIVE)]


def planned(act: str, kid: str = "", keys: list[SealedKey] = USUAL, reason: str = "") -> Plan:
    """The act, with the fresh keys that it asks for."""
    needed = spares_needed(ByHand(act), kid, keys)
    return plan(ByHand(act), kid, keys, fresh(needed), POLICY, NOW, reason)


def after(act: str, kid: str = "", keys: list[SealedKey] = USUAL) -> dict[str, str]:
    """The stage of each key once the act is done; fresh ones under one name."""
    written = {k.kid: k for k in keys} | {k.kid: k for k in planned(act, kid, keys).keys}
    return {kid.rstrip("0123456789"): k.stage.value for kid, k in written.items()}


OUTCOMES = [
    pytest.param("activate", "", {"active": "retired", "spare": "active"}, id="the next signs"),
    pytest.param("rotate", "", {"active": "retired", "spare": "active"}, id="rotate is the same"),
    pytest.param("retire", "", {"active": "retired", "spare": "active"}, id="the active retires"),
    pytest.param("retire", "active", {"active": "retired", "spare": "active"}, id="by its name"),
    pytest.param("activate", "young", {"active": "retired", "young": "active"}, id="a named one"),
    pytest.param("activate", "old", {"active": "retired", "old": "active"}, id="going back"),
    pytest.param("retire", "spare", {"spare": "retired"}, id="a spare that shall not sign"),
    pytest.param("remove", "old", {"old": "removed"}, id="an old one leaves"),
    pytest.param("prepare", "", {"fresh": "prepared"}, id="one more spare"),
    pytest.param("revoke", "active", {"active": "removed", "spare": "active"}, id="emergency"),
    pytest.param("revoke", "spare", {"spare": "removed"}, id="the next was compromised"),
    pytest.param("revoke", "old", {"old": "removed"}, id="an old one was compromised"),
]


@pytest.mark.parametrize(("act", "kid", "stages"), OUTCOMES)
def test_an_act_moves_these_keys_and_no_others(act: str, kid: str, stages: dict[str, str]) -> None:
    """Everything that is not named stays in its stage."""
    before = {k.kid: k.stage.value for k in USUAL}

    assert after(act, kid) == before | stages


@pytest.mark.parametrize(
    ("act", "kid", "needed", "stages"),
    [
        ("activate", "", 2, {"active": "retired"}),
        ("rotate", "", 2, {"active": "retired"}),
        ("revoke", "active", 2, {"active": "removed"}),
        ("prepare", "", 1, {"active": "active"}),
    ],
)
def test_without_a_spare_two_are_made(
    act: str, kid: str, needed: int, stages: dict[str, str]
) -> None:
    """Something signs afterwards, and something stands ready behind it."""
    assert spares_needed(ByHand(act), kid, LONELY) == needed
    written = planned(act, kid, LONELY).keys
    made = [k.stage for k in written if k.kid.startswith("fresh")]

    assert sorted(made) == sorted([Stage.PREPARED, *[Stage.ACTIVE] * (needed - 1)])
    assert {k.kid: k.stage.value for k in written if k.kid == "active"} in ({}, stages)


SAFE = [
    ("activate", "spare"), ("activate", ""), ("activate", "old"), ("retire", "young"),
    ("remove", "old"), ("prepare", ""), ("rotate", ""),
]  # fmt: skip
HAZARDS = [
    pytest.param("activate", "young", "have not seen it", id="a second before it is ready"),
    pytest.param("remove", "older", "providers would refuse", id="a second before it may leave"),
    pytest.param("revoke", "old", "stops to work", id="a revoked key's tokens are void"),
]


@pytest.mark.parametrize(("act", "kid"), SAFE)
def test_what_is_safe_needs_no_yes(act: str, kid: str) -> None:
    """To the second."""
    assert planned(act, kid).hazards == ()


@pytest.mark.parametrize(("act", "kid", "words"), HAZARDS)
def test_what_is_not_safe_says_why(act: str, kid: str, words: str) -> None:
    """A sentence with the time from which it is."""
    assert words in " ".join(planned(act, kid).hazards)


def test_a_revoked_active_key_says_that_its_successor_is_unseen() -> None:
    """With a young spare the emergency costs providers a fetch; the operator should know."""
    keys = [key("active", Stage.ACTIVE), key("young", Stage.PREPARED, NOW)]

    hazards = planned("revoke", "active", keys).hazards

    assert len(hazards) == 2
    assert "young was published" in hazards[1]


def test_a_certificate_that_ends_too_early_is_a_hazard() -> None:
    """It must hold until the key's last token is dead, to the second."""
    needed = NOW + POLICY.period + MAX_TOKEN_LIFETIME + POLICY.margin
    keys = [key("active", Stage.ACTIVE), key("spare", Stage.PREPARED, certificate_end=needed)]
    assert planned("activate", "spare", keys).hazards == ()

    keys[1] = replace(keys[1], certificate_end=needed - 1)
    assert "certificate" in planned("activate", "spare", keys).hazards[0]


REFUSED = [
    pytest.param("activate", "active", "signs already", id="what signs"),
    pytest.param("activate", "gone", "was removed", id="what is gone"),
    pytest.param("activate", "nobody", "no keys are named", id="what never was"),
    pytest.param("activate", "o", "2 keys are named", id="two names begin so"),
    pytest.param("remove", "spare", "retire it first", id="a spare"),
    pytest.param("remove", "active", "retire it first", id="what signs"),
    pytest.param("remove", "gone", "gone already", id="twice"),
    pytest.param("remove", "", "name a key", id="nothing"),
    pytest.param("retire", "old", "retired already", id="retired twice"),
    pytest.param("revoke", "gone", "gone already", id="revoked twice"),
    pytest.param("revoke", "", "name a key", id="revoke nothing"),
]


@pytest.mark.parametrize(("act", "kid", "words"), REFUSED)
def test_what_makes_no_sense_is_refused(act: str, kid: str, words: str) -> None:
    """With a sentence, and nothing written."""
    with pytest.raises(StepRefused, match=words):
        planned(act, kid)


@pytest.mark.parametrize("reason", ["x" * (MAX_REASON + 1), "two\nlines"])
def test_attack_a_reason_that_forges_a_log_line_is_refused(reason: str) -> None:
    """It stands in listings and in the audit."""
    with pytest.raises(StepRefused, match="on one line"):
        planned("revoke", "old", reason=reason)


def test_a_revoked_key_keeps_its_reason_and_loses_its_private_half() -> None:
    """Whoever reads the list later knows when and why."""
    gone = planned("revoke", "old", reason="laptop lost").keys[0]

    assert (gone.stage, gone.revoked, gone.sealed) == (Stage.REMOVED, NOW, "")
    assert standing(gone, POLICY, NOW).endswith("laptop lost")


@pytest.mark.parametrize(("at", "expected"), [(NOW, 60), (NOW + 3599, 60), (NOW + 3600, 3600)])
def test_the_key_set_is_kept_briefly_after_a_revocation(at: int, expected: int) -> None:
    """Providers who obey come back soon, until everything older has left their caches."""
    policy = RotationPolicy(period=0)
    gone = replace(key("gone", Stage.REMOVED), revoked=NOW)

    assert max_age([key("active", Stage.ACTIVE), gone], policy, at) == expected


@pytest.mark.parametrize(
    ("kid", "words"),
    [
        ("active", "signs since"),
        ("spare", "may sign"),
        ("young", "may sign from"),
        ("old", "leaves /jwk at"),
        ("gone", "removed at"),
    ],
)
def test_each_key_says_what_becomes_of_it(kid: str, words: str) -> None:
    """A few words for the listing."""
    assert standing(next(k for k in USUAL if k.kid == kid), POLICY, NOW).startswith(words)


def test_a_name_may_be_shortened_while_it_is_clear() -> None:
    """Thumbprints are long, and nights are dark."""
    assert find_kid(USUAL, "spa") == "spare"
    assert find_kid(USUAL, "old") == "old"
    assert find_kid(USUAL, "") == ""
    with pytest.raises(StepRefused):
        find_kid(USUAL, "o")


def test_the_listing_begins_with_what_signs() -> None:
    """Then what comes, what went, what is gone."""
    assert [k.kid for k in published_first(reversed(USUAL))] == [
        "active", "spare", "young", "old", "older", "gone",
    ]  # fmt: skip


@given(st.data())
def test_after_any_acts_one_key_signs_and_a_spare_stands_by(data: st.DataObject) -> None:
    """However an operator mixes the acts, in any order, at any time, with every --yes."""
    keys = {k.kid: k for k in USUAL}
    now = NOW
    for _ in range(data.draw(st.integers(1, 8))):
        now += data.draw(st.integers(0, 3 * 86_400))
        act = data.draw(st.sampled_from(ByHand))
        kid = data.draw(st.sampled_from(["", *keys]))
        standing_now = list(keys.values())
        made = [replace(k, prepared=now) for k in fresh(spares_needed(act, kid, standing_now))]
        before = {k.kid for k in standing_now if k.stage in PUBLISHED}
        try:
            found = plan(act, kid, standing_now, made, POLICY, now)
        except StepRefused:
            continue
        keys |= {k.kid: k for k in found.keys}
        stages = [k.stage for k in keys.values()]
        assert stages.count(Stage.ACTIVE) == 1
        assert stages.count(Stage.PREPARED) >= 1
        left = before - {k.kid for k in keys.values() if k.stage in PUBLISHED}
        assert left <= {kid}
        assert not left or act in {ByHand.REMOVE, ByHand.REVOKE}
        assert all(bool(k.sealed) is (k.stage is not Stage.REMOVED) for k in found.keys)
        step = next_step(list(keys.values()), POLICY, now)
        assert step is None or step.act.value not in {"begin", "prepare"}
