"""What a grant is entitled to: access, delegation, internal delegation, all or nothing."""

from dataclasses import replace
from typing import Any

import pytest

from maskinporten.domain.authorization import (
    Delegation,
    LifetimeRule,
    authorize,
    entitle,
    token_lifetime,
    with_detail,
)
from maskinporten.domain.client import Client, OnBehalfOf
from maskinporten.domain.grant import Grant
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.registry import Registry, Revision
from maskinporten.domain.token import access_token_claims
from maskinporten.errors import Reason, Refused
from tests.world import CONSUMER, ISSUER, NOW, PROVIDER, SOURCE, STRANGER, SUPPLIER, registry

WORLD = registry()
DELEGABLE = "skatt:delegert"


def client(name: str, **changes: Any) -> Client:
    """A client of the world, with changes."""
    found: Client = WORLD.clients[name]  # type: ignore[index]
    return replace(found, **changes)


def grant(*scopes: str, **claims: Any) -> Grant:
    """A grant that was verified."""
    made = {"client_id": "c", "client_amr": "private_key_jwt", "spend_key": b"", "spent_until": 0}
    return Grant(**made, scopes=scopes, **claims)  # type: ignore[arg-type]


def delegation(**changes: Any) -> Delegation:
    """The delegation that answers a supplier's grant exactly."""
    answer = Delegation(SOURCE, CONSUMER, SUPPLIER, frozenset({DELEGABLE}))  # type: ignore[arg-type]
    return replace(answer, **changes)


def reason(refused: "pytest.ExceptionInfo[Refused]") -> Reason:
    """Why."""
    return refused.value.reason


def test_a_delegated_grant_names_consumer_supplier_and_source() -> None:
    """The consumer has the access, the supplier the client, Altinn the delegation."""
    entitlement = entitle(grant(DELEGABLE, consumer_org=CONSUMER), client("vendor"), WORLD)
    assert entitlement.delegation_source == SOURCE

    claims = access_token_claims(authorize(entitlement, delegation()), ISSUER, NOW, "j")

    assert list(claims) == [
        "scope", "supplier", "iss", "client_amr", "token_type", "exp", "delegation_source", "iat",
        "client_id", "jti", "consumer",
    ]  # fmt: skip
    assert claims["supplier"]["ID"] == f"0192:{SUPPLIER}"
    assert claims["consumer"]["ID"] == f"0192:{CONSUMER}"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="none"),
        pytest.param(delegation(consumer=STRANGER), id="of another consumer"),
        pytest.param(delegation(supplier=STRANGER), id="to another supplier"),
        pytest.param(delegation(source="https://x/"), id="from another source"),
        pytest.param(delegation(scopes=frozenset({"skatt:x"})), id="of another scope"),
    ],
)
def test_a_delegation_must_answer_exactly_what_was_asked(answer: Delegation | None) -> None:
    """A lying or mistaken source opens nothing (attack 31)."""
    entitlement = entitle(grant(DELEGABLE, consumer_org=CONSUMER), client("vendor"), WORLD)

    with pytest.raises(Refused) as refused:
        authorize(entitlement, answer)
    assert reason(refused) is Reason.SCOPE_NOT_DELEGATED
    for part in (CONSUMER, SUPPLIER, DELEGABLE):
        assert part in refused.value.description


def test_the_consumer_must_have_the_access_that_is_delegated() -> None:
    """A delegation of nothing is nothing; the supplier's own access does not count."""
    with pytest.raises(Refused) as refused:
        entitle(grant(DELEGABLE, consumer_org=STRANGER), client("vendor"), WORLD)
    assert reason(refused) is Reason.SCOPE_NOT_GRANTED


def test_one_scope_that_cannot_be_delegated_refuses_them_all() -> None:
    """All or nothing."""
    wanted = grant(DELEGABLE, "skatt:open", consumer_org=CONSUMER)
    with pytest.raises(Refused) as refused:
        entitle(wanted, client("vendor"), WORLD)
    assert reason(refused) is Reason.SCOPE_NOT_DELEGATED


ENTRY = OnBehalfOf(onbehalfof="kunde", name="Kunde", orgno=STRANGER)  # type: ignore[arg-type]


def test_internal_delegation_names_the_entry_as_consumer() -> None:
    """`iss_onbehalfof`: the entry's organisation is the consumer, the client's the supplier."""
    acting = client("vendor", onbehalfof=(ENTRY,))
    authorization = authorize(entitle(grant("skatt:open", iss_onbehalfof="kunde"), acting, WORLD))

    assert (authorization.consumer, authorization.supplier) == (STRANGER, SUPPLIER)
    assert authorization.delegation_source is None


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(grant("skatt:open", iss_onbehalfof="annen"), id="an unknown entry"),
        pytest.param(
            grant("skatt:open", iss_onbehalfof="kunde", consumer_org=CONSUMER),
            id="two ways at once",
        ),
    ],
)
def test_internal_delegation_has_its_exclusions(wanted: Grant) -> None:
    """Not beside consumer_org, not for an entry that is not there."""
    with pytest.raises(Refused) as refused:
        entitle(wanted, client("vendor", onbehalfof=(ENTRY,)), WORLD)
    assert reason(refused) is Reason.ON_BEHALF_OF_INVALID


def test_internal_delegation_is_not_for_scopes_with_a_source() -> None:
    """What Altinn delegates, the client's owner cannot."""
    acting = client("vendor", onbehalfof=(replace(ENTRY, orgno=OrgNo(CONSUMER)),))
    with pytest.raises(Refused) as refused:
        entitle(grant(DELEGABLE, iss_onbehalfof="kunde"), acting, WORLD)
    assert reason(refused) is Reason.ON_BEHALF_OF_INVALID


def test_a_scope_for_other_clients_is_mp_201() -> None:
    """allowed_integration_types counts at issuance too."""
    with pytest.raises(Refused) as refused:
        entitle(grant("skatt:krr"), client("consumer", scopes=("skatt:krr",)), WORLD)
    assert reason(refused) is Reason.SCOPE_NOT_FOR_CLIENT_TYPE


@pytest.mark.parametrize("changes", [{"active": False}, {"integration_type": "idporten"}])
def test_a_client_that_may_not_ask(changes: dict[str, Any]) -> None:
    """Inactive, or of a kind that logs people in."""
    with pytest.raises(Refused) as refused:
        entitle(grant("skatt:open"), client("consumer", **changes), WORLD)
    assert reason(refused) is Reason.CLIENT_UNKNOWN


def changed(name: str, **changes: Any) -> Registry:
    """The world with one scope changed."""
    scope = WORLD.scopes[name]  # type: ignore[index]
    return WORLD.with_entities(Revision(2), [replace(scope, **changes)])


def test_a_deactivated_scope_is_gone() -> None:
    """As if it had never been registered."""
    with pytest.raises(Refused) as refused:
        entitle(grant("skatt:open"), client("consumer"), changed("skatt:open", active=False))
    assert reason(refused) is Reason.SCOPE_NOT_ON_CLIENT


def test_consumer_prefix_lists_what_the_consumer_owns() -> None:
    """Only on tokens for a scope that asks for it."""
    world = changed("skatt:open", consumer_prefix=True)
    owner = client("consumer", client_orgno=PROVIDER)
    shown = access_token_claims(
        authorize(entitle(grant("skatt:open"), owner, world)), ISSUER, NOW, "j"
    )
    plain = access_token_claims(
        authorize(entitle(grant("skatt:open"), owner, WORLD)), ISSUER, NOW, "j"
    )

    assert shown["consumer_prefix"] == ["skatt"]
    assert "consumer_prefix" not in plain


def test_details_and_pid_and_aud_have_their_places() -> None:
    """The order of the observed hash map."""
    wanted = grant("skatt:open", resources=("urn:a:b",), pid="25922947409")
    entitlement = entitle(wanted, client("consumer"), WORLD)
    right = with_detail(authorize(entitlement), {"type": "x"})
    claims = access_token_claims(right, ISSUER, NOW, "j")

    assert list(claims) == [
        "aud", "authorization_details", "scope", "iss", "client_amr", "pid", "token_type", "exp",
        "iat", "client_id", "jti", "consumer",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ages", "own", "override", "cap"),
    [
        ((), 120, 120, 120),
        ((0,), 120, 120, 120),
        ((600,), 120, 600, 120),
        ((30,), 120, 30, 30),
        ((0, 600, 30), 120, 30, 30),
        ((600, 700), 650, 600, 600),
    ],
)
def test_lifetime(ages: tuple[int, ...], own: int, override: int, cap: int) -> None:
    """Both readings of at_max_age."""
    base = WORLD.scopes["skatt:open"]  # type: ignore[index]
    scopes = tuple(replace(base, at_max_age=age) for age in ages)
    asking = client("consumer", access_token_lifetime=own)

    assert token_lifetime(asking, scopes, LifetimeRule.OVERRIDE) == override
    assert token_lifetime(asking, scopes, LifetimeRule.CAP) == cap


def test_internal_delegation_needs_the_access_of_the_entrys_organisation() -> None:
    """The owner of a client cannot give its customers what they have not."""
    acting = client("vendor", scopes=("skatt:inntekt.read",), onbehalfof=(ENTRY,))
    with pytest.raises(Refused) as refused:
        entitle(grant("skatt:inntekt.read", iss_onbehalfof="kunde"), acting, WORLD)
    assert reason(refused) is Reason.SCOPE_NOT_GRANTED
    assert STRANGER in refused.value.detail


def test_one_scope_with_a_source_refuses_internal_delegation_of_all() -> None:
    """In whatever order they are asked for."""
    entry = replace(ENTRY, orgno=OrgNo(CONSUMER))
    for names in (("skatt:open", DELEGABLE), (DELEGABLE, "skatt:open")):
        with pytest.raises(Refused) as refused:
            entitle(
                grant(*names, iss_onbehalfof="kunde"), client("vendor", onbehalfof=(entry,)), WORLD
            )
        assert reason(refused) is Reason.ON_BEHALF_OF_INVALID


def test_consumer_prefix_is_the_consumers_not_the_suppliers() -> None:
    """Altinn lets whoever owns a prefix look up its delegations: never the one who acts for it."""
    world = changed(DELEGABLE, consumer_prefix=True, accessible_for_all=True)
    acting = client("vendor", client_orgno=PROVIDER)
    for consumer, shown in ((CONSUMER, ()), (STRANGER, ())):
        entitlement = entitle(grant(DELEGABLE, consumer_org=consumer), acting, world)
        assert entitlement.consumer_prefixes == shown, "the supplier owns one, the consumer none"
    entitlement = entitle(grant(DELEGABLE, consumer_org=PROVIDER), client("vendor"), world)
    assert entitlement.consumer_prefixes == ("skatt",)


def test_consumer_prefix_of_nothing_is_absent() -> None:
    """No empty array for a consumer without prefixes."""
    world = changed("skatt:open", consumer_prefix=True)
    claims = access_token_claims(
        authorize(entitle(grant("skatt:open"), client("consumer"), world)), ISSUER, NOW, "j"
    )
    assert "consumer_prefix" not in claims
