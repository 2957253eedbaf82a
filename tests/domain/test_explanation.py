"""Why a grant would be refused or granted: the explanation and the token endpoint agree."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskinporten.certificates import enterprise_verdicts
from maskinporten.domain.altinn import (
    Answer,
    Confirmation,
    How,
    No,
    Yes,
    delegation_questions,
)
from maskinporten.domain.client import Client, ClientId, ClientKey, OnBehalfOf
from maskinporten.domain.explanation import Explanation, explain, with_answers
from maskinporten.domain.grant import Assertion
from maskinporten.domain.registry import Registry, Revision
from maskinporten.domain.revocation import Evidence, RevocationPolicy
from maskinporten.domain.scope import AccessState, IntegrationType, Scope, ScopeAccess, Visibility
from maskinporten.domain.weighing import Question, Verdict
from maskinporten.errors import Reason, Refused
from maskinporten.issuance import Issuance, issue_token
from tests.chains import enterprise, issuing, trust, x5c
from tests.world import (
    ABSENT,
    CONSUMER,
    ISSUER,
    NOW,
    PROVIDER,
    SOURCE,
    STRANGER,
    SUPPLIER,
    assertion,
    jwk,
    registry,
)

WORLD = registry()
CERTIFICATES = enterprise_verdicts(
    trust(), RevocationPolicy(accept_without_source=True), Evidence()
)
SCOPES = ("a:one", "a:two", "a:three")


class _Key:
    """Signs nothing worth reading; the rules are what is asked about."""

    kid = "k"

    def sign(self, signing_input: bytes) -> bytes:
        """As many octets as asked for."""
        return signing_input[:1]


async def _spend(key: bytes, until: int) -> None:
    del key, until


def issuance(world: Registry) -> Issuance:
    """The use case as the token endpoint runs it, over that registry."""
    return Issuance(
        issuer=ISSUER,
        audiences=frozenset({ISSUER}),
        registry=lambda: world,
        signing_key=lambda _client_id: _Key(),
        spend=_spend,
        certificates=CERTIFICATES,
    )


def asked(question: Question, world: Registry) -> str:
    """The assertion that the question means."""
    found = world.clients.get(ClientId(question.client_id))
    kid = question.kid
    if kid is None and found is not None and found.keys:
        kid = max(found.keys, key=lambda key: key.exp).kid
    header: dict[str, Any] = {"kid": kid}
    signed_by = kid or "nobody"
    if kid is None:
        owner = found.client_orgno if found else CONSUMER
        header = {"kid": ABSENT, "x5c": x5c(enterprise(owner), issuing())}
        signed_by = "leaf"
    claims = {
        name: getattr(question, name)
        for name in ("consumer_org", "iss_onbehalfof")
        if getattr(question, name) is not None
    }
    return assertion(
        question.client_id, signed_by=signed_by, header=header, scope=question.scope, **claims
    )


def answered(question: Question, world: Registry) -> Reason | None:
    """What the token endpoint says: the reason, or None for a token."""
    try:
        asyncio.run(issue_token(issuance(world), Assertion(asked(question, world)), NOW))
    except Refused as refused:
        return refused.reason
    return None


KEYS = st.lists(
    st.builds(
        lambda kid, exp, locked: ClientKey(
            kid=kid,
            n=jwk(kid)["n"],
            e=jwk(kid)["e"],
            exp=exp,
            x5c=tuple(x5c(enterprise(name=kid))) if locked else (),
        ),
        st.sampled_from(["key-1", "key-2"]),
        st.sampled_from([NOW - 1, NOW, NOW + 1, NOW + 2]),
        st.booleans(),
    ),
    max_size=2,
    unique_by=(lambda key: key.kid, lambda key: key.exp),
)
CLIENTS = st.builds(
    lambda **fields: Client(client_id="c", **fields),  # type: ignore[arg-type]
    client_orgno=st.sampled_from([CONSUMER, SUPPLIER]),
    active=st.sampled_from([True, True, True, False]),
    integration_type=st.sampled_from([*IntegrationType, *[IntegrationType.MASKINPORTEN] * 5]),
    scopes=st.lists(st.sampled_from(SCOPES), min_size=1, unique=True).map(tuple),
    keys=KEYS.map(tuple),
    onbehalfof=st.sampled_from(
        [(), (OnBehalfOf(onbehalfof="kunde", name="K", orgno=STRANGER),)]  # type: ignore[arg-type]
    ),
)


def scope(name: str) -> "st.SearchStrategy[Scope | None]":
    """A scope of that name in one of its states, or none."""
    made = st.builds(
        lambda **fields: Scope(name=name, owner_orgno=PROVIDER, description="", **fields),  # type: ignore[arg-type]
        active=st.sampled_from([True, True, True, False]),
        accessible_for_all=st.booleans(),
        allowed_integration_types=st.sampled_from(
            [(), (), (IntegrationType.MASKINPORTEN,), (IntegrationType.KRR,)]
        ),
        delegation_source=st.sampled_from([None, SOURCE, "https://other/"]),
        visibility=st.sampled_from(list(Visibility)),
    )
    return st.one_of(made, made, made, st.none())


ACCESSES = st.lists(
    st.builds(
        lambda **fields: ScopeAccess(owner_orgno=PROVIDER, **fields),  # type: ignore[arg-type]
        scope=st.sampled_from(SCOPES),
        consumer_orgno=st.sampled_from([CONSUMER, SUPPLIER, STRANGER]),
        state=st.sampled_from([AccessState.APPROVED, AccessState.APPROVED, *AccessState]),
    ),
    max_size=9,
)
WORLDS = st.builds(
    lambda client, scopes, accesses: Registry().with_entities(
        Revision(1), [client, *filter(None, scopes), *accesses]
    ),
    CLIENTS,
    st.tuples(*map(scope, SCOPES)),
    ACCESSES,
)
QUESTIONS = st.builds(
    Question,
    client_id=st.sampled_from(["c", "c", "c", "c", "nobody"]),
    scope=st.one_of(
        st.lists(st.sampled_from([*SCOPES, *SCOPES, "a:none"]), min_size=1, max_size=3).map(
            " ".join
        ),
        st.sampled_from(["", '"', "a:one\ta:two"]),
    ),
    consumer_org=st.sampled_from([None, None, CONSUMER, SUPPLIER, STRANGER, "123", ""]),
    iss_onbehalfof=st.sampled_from([None, None, None, "kunde", "annen", ""]),
    kid=st.sampled_from([None, None, "key-1", "key-2", ""]),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow],
          derandomize=True)  # fmt: skip
@given(world=WORLDS, question=QUESTIONS)
def test_the_explanation_is_what_the_token_endpoint_does(
    world: Registry, question: Question
) -> None:
    """In any registry, for any grant: the same reason, and the first failing rule names it."""
    told = explain(question, world, NOW, CERTIFICATES)
    real = answered(question, world)

    if told.delegation is not None:
        assert (told.reason, told.outcome) == (None, "depends")
        assert real is Reason.SCOPE_NOT_DELEGATED  # nobody is there to be asked
    else:
        assert told.reason is real
    failing = [rule for rule in told.weighed if rule.verdict is Verdict.FAILS]
    assert (failing[0].reason if failing else None) is told.reason
    assert all(rule.remedy and rule.by and rule.sentence for rule in failing)


def verdicts(told: Explanation) -> list[tuple[str, str]]:
    """Each rule that does not hold, and its verdict."""
    return [(w.rule, w.verdict) for w in told.weighed if w.verdict is not Verdict.HOLDS]


def test_every_fault_is_named_not_only_the_first() -> None:
    """One look shows all that must be mended, and by whom."""
    question = Question(client_id="consumer", scope="skatt:hemmelig skatt:krr", kid="lost")
    told = explain(question, WORLD, NOW)

    assert told.reason is Reason.KEY_ID_UNKNOWN
    assert verdicts(told) == [
        ("the grant's key speaks for the client", "fails"),
        ("skatt:hemmelig: exists, is active, and stands on the client", "fails"),
        ("skatt:krr: exists, is active, and stands on the client", "fails"),
        ("skatt:krr: is for clients of this kind", "fails"),
        ("skatt:hemmelig: is open to the consumer", "fails"),
    ]
    last = told.weighed[-2]
    assert last.remedy == f"give {CONSUMER} access to the scope"
    assert last.by == f"the scope's owner, {PROVIDER}"


def test_a_delegation_is_a_question_to_its_source() -> None:
    """What Altinn will be asked stands there; the answer is not ours."""
    question = Question(client_id="vendor", scope="skatt:delegert", consumer_org=CONSUMER)
    told = explain(question, WORLD, NOW)

    assert told.outcome == "depends"
    assert told.delegation is not None
    assert (told.delegation.source, told.delegation.consumer, told.delegation.supplier) == (
        SOURCE, CONSUMER, SUPPLIER,
    )  # fmt: skip
    assert told.weighed[-1].sentence.startswith(f"{SOURCE} is asked")


SAID = [
    pytest.param(Yes("ref-1"), How.ASKED, "granted", "confirms it (asked): ref-1.", id="yes"),
    pytest.param(Yes("r"), How.REMEMBERED, "granted", "(remembered)", id="yes, moments ago"),
    pytest.param(No("x"), How.ASKED, "refused", "does not confirm it (asked).", id="no"),
    pytest.param(No("x", mismatch=True), How.ASKED, "refused", "spoke of others", id="others"),
    pytest.param(None, How.ASKED, "refused", "no line", id="nobody to ask"),
]


@pytest.mark.parametrize(("answer", "how", "outcome", "words"), SAID)
def test_the_delegation_source_decides_once_asked(
    answer: Answer | None, how: How, outcome: str, words: str
) -> None:
    """The verdict is that of the token endpoint; the rule says what was answered."""
    question = Question(client_id="vendor", scope="skatt:delegert", consumer_org=CONSUMER)
    told = explain(question, WORLD, NOW)
    assert told.entitlement is not None
    (asked,) = delegation_questions(told.entitlement)
    said = () if answer is None else (Confirmation(asked, answer, SOURCE, how),)

    decided = with_answers(told, said)

    assert decided.outcome == outcome
    assert decided.reason is (Reason.SCOPE_NOT_DELEGATED if outcome == "refused" else None)
    assert words in decided.weighed[-1].sentence
    plain = explain(Question(client_id="consumer", scope="skatt:open"), WORLD, NOW)
    assert with_answers(plain, said) == plain


def test_what_altinn_says_settles_nothing_about_a_certificate() -> None:
    """A supplier without a registered key: the certificate stays open, whatever Altinn answers."""
    vendor = replace(WORLD.clients["vendor"], keys=())  # type: ignore[index]
    world = WORLD.with_entities(Revision(2), [vendor])
    question = Question(client_id="vendor", scope="skatt:delegert", consumer_org=CONSUMER)
    told = explain(question, world, NOW)

    decided = with_answers(told, ())

    open_rules = [w.rule for w in decided.weighed if w.verdict is Verdict.OPEN]
    assert open_rules == ["the grant's key speaks for the client"]
    assert decided.reason is Reason.SCOPE_NOT_DELEGATED


@pytest.mark.parametrize(("later", "outcome"), [(-1, "granted"), (0, "refused")])
def test_a_key_is_weighed_at_the_time_asked_about(later: int, outcome: str) -> None:
    """The last second of a key, and the next."""
    expires = WORLD.clients["consumer"].keys[0].exp  # type: ignore[index]
    told = explain(Question(client_id="consumer", scope="skatt:open"), WORLD, expires + later)

    assert told.outcome == outcome


def hidden() -> Registry:
    """The world, where one scope is private to its owner."""
    secret = replace(WORLD.scopes["skatt:hemmelig"], visibility=Visibility.PRIVATE)  # type: ignore[index]
    return WORLD.with_entities(Revision(2), [secret])


def test_a_private_scope_and_a_missing_one_look_alike_to_others() -> None:
    """An organisation cannot find out what others keep to themselves (attack 30)."""
    told = [
        explain(Question(client_id="consumer", scope=name), hidden(), NOW, viewer=CONSUMER)  # type: ignore[arg-type]
        for name in ("skatt:hemmelig", "skatt:finnes-ikke")
    ]
    seen = [
        [(w.rule.replace(name, "x"), w.verdict, w.sentence) for w in answer.weighed]
        for answer, name in zip(told, ("skatt:hemmelig", "skatt:finnes-ikke"), strict=True)
    ]
    assert seen[0] == seen[1]
    operator = explain(told[1].question, hidden(), NOW)
    assert "There is no such scope." in [w.sentence for w in operator.weighed]
    owner = explain(told[0].question, hidden(), NOW, viewer=PROVIDER)  # type: ignore[arg-type]
    assert "has not given" in owner.weighed[-1].sentence


def test_the_owner_of_a_scope_is_not_told_about_keys() -> None:
    """The client's keys are its own owner's business; what the provider decides is told."""
    question = Question(client_id="consumer", scope="skatt:inntekt.read", kid="lost")
    told = explain(question, WORLD, NOW, viewer=PROVIDER)  # type: ignore[arg-type]

    assert told.outcome == "granted"
    assert not [w for w in told.weighed if "key" in w.rule]


def test_others_accesses_are_not_told_by_way_of_a_scope_that_is_not_on_the_client() -> None:
    """Whether some other organisation has access is not the asker's business."""
    question = Question(client_id="slow", scope="skatt:kort", consumer_org=STRANGER)
    told = explain(question, WORLD, NOW, viewer=CONSUMER)  # type: ignore[arg-type]

    assert ("skatt:kort: is open to the consumer", "untold") in verdicts(told)
