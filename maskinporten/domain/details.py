"""What a grant asks for in `authorization_details` (RFC 9396): a system user, or a consent.

Both are Altinn's to confirm; here stands what may be asked, and what the token says of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from maskinporten.domain.grant import Grant
from maskinporten.domain.orgno import AUTHORITY, ISO_6523_NORWAY, OrgNo, find_orgno, iso6523
from maskinporten.domain.person import is_well_formed_pid
from maskinporten.errors import Reason, Refused

SYSTEM_USER: Final = "urn:altinn:systemuser"
CONSENT: Final = "urn:altinn:consent"
DETAILS_TYPES: Final = (SYSTEM_USER, CONSENT)
ORGANIZATION_URN: Final = "urn:altinn:organization:identifier-no:"
PERSON_URN: Final = "urn:altinn:person:identifier-no:"
# Altinn's rule for externalRef; an empty one is as good as none.
_EXTERNAL_REF: Final = re.compile(r"[a-zA-Z0-9øØæÆåÅ_\-]{0,255}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SystemUserWish:
    """A system user that the customer has created for the client's system."""

    owner: OrgNo  # the customer
    external_ref: str | None = None  # tells several of one customer apart


@dataclass(frozen=True, slots=True)
class ConsentWish:
    """A consent that a person or an organisation has given."""

    id: str
    giver: str  # URN of the one who gave it, as asked


Wish = SystemUserWish | ConsentWish


def is_uuid(text: object) -> bool:
    """Whether `text` is a UUID in its usual spelling (RFC 9562 section 4)."""
    return isinstance(text, str) and _UUID.fullmatch(text) is not None


def read_wish(grant: Grant) -> Wish | None:
    """The one wish of the grant's `authorization_details`; None where it has none.

    A wish beside `iss_onbehalfof` is refused: the client's owner wrote that entry alone, and
    would get what others have given to the entry's organisation. So is a system user beside
    `consumer_org`, for its token has no supplier.

    Raises Refused: DETAILS_TYPE_UNKNOWN, DETAILS_MALFORMED, DETAILS_REFUSED.
    """
    details = grant.authorization_details
    if details is None:
        return None
    for element in details:
        if element.get("type") not in DETAILS_TYPES:
            raise Refused(Reason.DETAILS_TYPE_UNKNOWN, repr(element.get("type"))[:80])
    if len(details) != 1:
        raise Refused(Reason.DETAILS_MALFORMED, f"{len(details)} elements")
    (element,) = details
    is_user = element["type"] == SYSTEM_USER
    wish: Wish = _read_system_user(element) if is_user else _read_consent(element)
    if grant.iss_onbehalfof is not None:
        raise _uncombinable("iss_onbehalfof")
    if is_user and grant.consumer_org is not None:
        raise _uncombinable("consumer_org")
    return wish


def system_user_detail(wish: SystemUserWish, user_id: str, system_id: str) -> Mapping[str, Any]:
    """The element of the token, members in Maskinporten's order. `externalRef` is not echoed."""
    return {
        "type": SYSTEM_USER,
        "systemuser_org": iso6523(wish.owner),
        "systemuser_id": [user_id],
        "system_id": system_id,
    }


def consent_detail(
    wish: ConsentWish, receiver: OrgNo, consented: str, valid_to: str, rights: list[dict[str, Any]]
) -> Mapping[str, Any]:
    """The element of the token, members in Maskinporten's order. `to` is the token's consumer."""
    return {
        "type": CONSENT,
        "id": wish.id,
        "from": wish.giver,
        "to": iso6523(receiver),
        "consented": consented,
        "validTo": valid_to,
        "consentRights": rights,
    }


def _uncombinable(claim: str) -> Refused:
    sentence = f"They cannot stand beside {claim}"
    return Refused(Reason.DETAILS_REFUSED, sentence, named=(sentence,))


def _read_system_user(element: Mapping[str, Any]) -> SystemUserWish:
    _verify_members(element, {"type", "systemuser_org"}, {"externalRef"})
    owner = element["systemuser_org"]
    if not isinstance(owner, Mapping):
        raise _malformed("systemuser_org")
    _verify_members(owner, {"authority", "ID"}, set())
    scheme, _, number = str(owner["ID"]).partition(":")
    orgno = find_orgno(number)
    if owner["authority"] != AUTHORITY or scheme != ISO_6523_NORWAY or orgno is None:
        raise _malformed("systemuser_org")
    reference = element.get("externalRef")
    if reference is not None and not (
        isinstance(reference, str) and _EXTERNAL_REF.fullmatch(reference)
    ):
        raise _malformed("externalRef")
    return SystemUserWish(orgno, reference or None)


def _read_consent(element: Mapping[str, Any]) -> ConsentWish:
    _verify_members(element, {"type", "id", "from"}, set())
    if not is_uuid(element["id"]):
        raise _malformed("id")
    giver = element["from"]
    if not isinstance(giver, str) or not (
        (giver.startswith(PERSON_URN) and is_well_formed_pid(giver.removeprefix(PERSON_URN)))
        or (giver.startswith(ORGANIZATION_URN) and find_orgno(giver.removeprefix(ORGANIZATION_URN)))
    ):
        raise _malformed("from")
    return ConsentWish(element["id"].lower(), giver)


def _verify_members(element: Mapping[str, Any], needed: set[str], allowed: set[str]) -> None:
    if needed - element.keys() or element.keys() - needed - allowed:
        raise _malformed(repr(sorted(map(str, element)))[:200])


def _malformed(detail: str) -> Refused:
    return Refused(Reason.DETAILS_MALFORMED, detail)
