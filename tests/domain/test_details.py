"""What may stand in `authorization_details`, one wrong thing at a time."""

from typing import Any

import pytest

from maskinporten.domain.details import ConsentWish, SystemUserWish, read_wish
from maskinporten.domain.grant import Grant
from maskinporten.errors import Reason, Refused
from tests.world import CONSUMER, STRANGER

OWNER = {"authority": "iso6523-actorid-upis", "ID": f"0192:{STRANGER}"}
USER = {"type": "urn:altinn:systemuser", "systemuser_org": OWNER}
CONSENT = {
    "type": "urn:altinn:consent",
    "id": "f70542a8-1b3f-4a5e-9d5a-0a4d6f6f1a11",
    "from": "urn:altinn:person:identifier-no:25922947409",
}


def grant(*details: Any, **claims: Any) -> Grant:
    """A verified grant that asks for these."""
    made = {"client_id": "c", "client_amr": "private_key_jwt", "spend_key": b"", "spent_until": 0}
    return Grant(**made, scopes=("a:b",), authorization_details=details, **claims)  # type: ignore[arg-type]


GOOD = [
    pytest.param(USER, SystemUserWish(STRANGER), id="a system user"),  # type: ignore[arg-type]
    pytest.param(USER | {"externalRef": "Kunde_1-æØå"}, "Kunde_1-æØå", id="with a reference"),
    pytest.param(USER | {"externalRef": "x" * 255}, "x" * 255, id="of 255 characters"),
    pytest.param(USER | {"externalRef": ""}, None, id="an empty reference is none"),
    pytest.param(USER | {"externalRef": None}, None, id="null is none"),
    pytest.param(CONSENT, ConsentWish(CONSENT["id"], CONSENT["from"]), id="a consent"),
    pytest.param(
        CONSENT | {"from": f"urn:altinn:organization:identifier-no:{STRANGER}"},
        ConsentWish(CONSENT["id"], f"urn:altinn:organization:identifier-no:{STRANGER}"),
        id="of an organisation",
    ),
    pytest.param(
        CONSENT | {"id": CONSENT["id"].upper()},
        ConsentWish(CONSENT["id"], CONSENT["from"]),
        id="a UUID is one in capitals too",
    ),
]


@pytest.mark.parametrize(("element", "wanted"), GOOD)
def test_reads(element: dict[str, Any], wanted: Any) -> None:
    """The documented requests."""
    wish = read_wish(grant(element))

    assert wish == wanted or (isinstance(wish, SystemUserWish) and wish.external_ref == wanted)


def without(element: dict[str, Any], name: str) -> dict[str, Any]:
    """All but one."""
    return {key: value for key, value in element.items() if key != name}


UNKNOWN, MALFORMED = Reason.DETAILS_TYPE_UNKNOWN, Reason.DETAILS_MALFORMED
WRONG = [
    pytest.param([{"type": "urn:altinn:else"}], UNKNOWN, id="another type"),
    pytest.param([USER, {"type": "x"}], UNKNOWN, id="another type beside a good one"),
    pytest.param([without(USER, "type")], UNKNOWN, id="no type"),
    pytest.param([USER | {"type": ["urn:altinn:consent"]}], UNKNOWN, id="type is a list"),
    pytest.param([USER | {"type": "URN:altinn:systemuser"}], UNKNOWN, id="type in capitals"),
    pytest.param([], MALFORMED, id="an empty array"),
    pytest.param([USER, USER], MALFORMED, id="two"),
    pytest.param([USER | {"x": 1}], MALFORMED, id="an unknown member"),
    pytest.param([without(USER, "systemuser_org")], MALFORMED, id="no organisation"),
    pytest.param([USER | {"systemuser_org": f"0192:{STRANGER}"}], MALFORMED, id="a string for it"),
    pytest.param([USER | {"systemuser_org": OWNER | {"x": 1}}], MALFORMED, id="a member within"),
    pytest.param([USER | {"systemuser_org": without(OWNER, "ID")}], MALFORMED, id="no ID"),
    pytest.param(
        [USER | {"systemuser_org": OWNER | {"ID": "0192:310000018"}}], MALFORMED, id="check digit"
    ),
    pytest.param([USER | {"systemuser_org": OWNER | {"ID": STRANGER}}], MALFORMED, id="no 0192"),
    pytest.param(
        [USER | {"systemuser_org": OWNER | {"ID": f"0184:{STRANGER}"}}], MALFORMED, id="not 0192"
    ),
    pytest.param(
        [USER | {"systemuser_org": OWNER | {"ID": int(STRANGER)}}], MALFORMED, id="ID is a number"
    ),
    pytest.param(
        [USER | {"systemuser_org": OWNER | {"authority": "x"}}], MALFORMED, id="authority"
    ),
    pytest.param([USER | {"externalRef": "systembruker #1"}], MALFORMED, id="the docs' example"),
    pytest.param([USER | {"externalRef": "x" * 256}], MALFORMED, id="256 characters"),
    pytest.param([USER | {"externalRef": "x\n"}], MALFORMED, id="a line break"),
    pytest.param([USER | {"externalRef": 1}], MALFORMED, id="a number"),
    pytest.param([CONSENT | {"to": "x"}], MALFORMED, id="consent, an unknown member"),
    pytest.param([without(CONSENT, "id")], MALFORMED, id="consent, no id"),
    pytest.param([CONSENT | {"id": "x"}], MALFORMED, id="consent, id is no UUID"),
    pytest.param([CONSENT | {"id": CONSENT["id"] + "\n"}], MALFORMED, id="consent, id and more"),
    pytest.param([without(CONSENT, "from")], MALFORMED, id="consent, from nobody"),
    pytest.param([CONSENT | {"from": "25922947409"}], MALFORMED, id="consent, a bare number"),
    pytest.param([CONSENT | {"from": ["x"]}], MALFORMED, id="consent, from a list"),
    pytest.param(
        [CONSENT | {"from": "urn:altinn:person:identifier-no:25922947408"}],
        MALFORMED,
        id="consent, control digit",
    ),
    pytest.param(
        [CONSENT | {"from": "urn:altinn:organization:identifier-no:310000018"}],
        MALFORMED,
        id="consent, check digit",
    ),
]


@pytest.mark.parametrize(("details", "reason"), WRONG)
def test_refuses(details: list[Any], reason: Reason) -> None:
    """MP-301 for the type, before MP-302 for the fields."""
    with pytest.raises(Refused) as refused:
        read_wish(grant(*details))
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("element", "claims"),
    [
        pytest.param(USER, {"consumer_org": CONSUMER}, id="a system user has no supplier"),
        pytest.param(USER, {"iss_onbehalfof": "kunde"}, id="a system user of one's own entry"),
        pytest.param(CONSENT, {"iss_onbehalfof": "kunde"}, id="a consent to one's own entry"),
    ],
)
def test_the_client_cannot_make_itself_the_receiver(
    element: dict[str, Any], claims: dict[str, Any]
) -> None:
    """Who writes an onbehalfof entry would get what others gave to its organisation."""
    with pytest.raises(Refused) as refused:
        read_wish(grant(element, **claims))
    assert refused.value.reason is Reason.DETAILS_REFUSED
    assert next(iter(claims)) in refused.value.description


def test_a_consent_beside_consumer_org() -> None:
    """As documented: it must then have been given to that consumer."""
    assert isinstance(read_wish(grant(CONSENT, consumer_org=CONSUMER)), ConsentWish)


def test_nothing_asked_for() -> None:
    """No claim, no wish."""
    plain = Grant("c", "private_key_jwt", ("a:b",), b"", 0)  # type: ignore[arg-type]
    assert read_wish(plain) is None
