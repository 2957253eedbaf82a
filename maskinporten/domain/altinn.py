"""What is asked of Altinn, and what its answers mean.

Three questions: has this consumer delegated this scope to this supplier; has this customer such a
system user; does this consent hold. An answer counts only if it is about what was asked: an
answer about anyone else is a no, whatever it says. An answer that cannot be read is no answer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from maskinporten.domain.authorization import Delegation, Entitlement
from maskinporten.domain.client import ClientId
from maskinporten.domain.details import (
    ORGANIZATION_URN,
    ConsentWish,
    SystemUserWish,
    Wish,
    consent_detail,
    is_uuid,
    system_user_detail,
)
from maskinporten.domain.jose import Malformed, read_json
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.scope import ScopeName
from maskinporten.errors import Reason, Refused

DELEGATIONS_PATH: Final = "accessmanagement/api/v1/maskinporten/delegations/"
SYSTEM_USER_PATH: Final = "authentication/api/v1/systemuser/byExternalId"
CONSENT_PATH: Final = "accessmanagement/api/v1/maskinporten/consent/lookup"
DELEGATIONS_SCOPE: Final = "altinn:maskinporten/delegations.admin"
SYSTEM_USER_SCOPE: Final = "altinn:maskinporten/systemuser.read"
CONSENT_SCOPE: Final = "altinn:maskinporten/consent.read"
MAX_ELEMENTS: Final = 1000  # of a list in an answer
_OK: Final = 200
_NOT_FOUND: Final = 404
# What Altinn's problem codes say of a consent. Anything else is no answer to the question.
_CONSENT_PROBLEMS: Final = {
    1: "The consent does not exist",
    11: "The consent is revoked",
    12: "The consent is between other parties",
    13: "The consent has expired",
    14: "The consent is not accepted",
}
_PROBLEM_CODE: Final = re.compile(r"AM[-.]([0-9]{1,9})", re.ASCII)


class Unusable(ValueError):
    """The answer does not say what was asked, in a form we know. The text is for our log."""


@dataclass(frozen=True, slots=True)
class Yes:
    """Altinn confirms. `reference` is its own name for what it confirms."""

    reference: str
    detail: Mapping[str, Any] | None = None  # the element of the token, where one was asked for
    until: float | None = None  # epoch seconds; from then on it is a no


@dataclass(frozen=True, slots=True)
class No:
    """Altinn does not confirm. `sentence` is for the caller, `mismatch`: it spoke of others."""

    sentence: str
    mismatch: bool = False


Answer = Yes | No


@dataclass(frozen=True, slots=True)
class DelegationQuestion:
    """Whether the consumer has delegated the scope to the supplier."""

    consumer: OrgNo
    supplier: OrgNo
    scope: ScopeName


@dataclass(frozen=True, slots=True)
class SystemUserQuestion:
    """Whether the customer has approved a system user for this client of a system's vendor."""

    wish: SystemUserWish
    client_id: ClientId
    vendor: OrgNo


@dataclass(frozen=True, slots=True)
class ConsentQuestion:
    """Whether the consent holds, and was given to this receiver."""

    wish: ConsentWish
    receiver: OrgNo


Question = DelegationQuestion | SystemUserQuestion | ConsentQuestion
QUESTIONS: Final[tuple[type[Question], ...]] = (
    DelegationQuestion,
    SystemUserQuestion,
    ConsentQuestion,
)


class How(StrEnum):
    """How fresh a confirmation is."""

    ASKED = "asked"  # for this grant, or for one that came at the same time
    REMEMBERED = "remembered"  # for an earlier grant, within the time answers are kept
    GRACE = "grace"  # for an earlier grant, while Altinn cannot be asked


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A question, its answer, and what the audit says of both."""

    question: Question
    answer: Answer
    source: str
    how: How

    def audited(self) -> Mapping[str, Any]:
        """For the audit line: no member tells who a person is."""
        kind = {
            DelegationQuestion: "delegation",
            SystemUserQuestion: "systemuser",
            ConsentQuestion: "consent",
        }[type(self.question)]
        shown: dict[str, Any] = {"kind": kind}
        if isinstance(self.question, DelegationQuestion):
            shown["scope"] = self.question.scope
        shown |= {"source": self.source, "how": self.how}
        if isinstance(self.answer, Yes):
            return {**shown, "confirmed": True, "reference": self.answer.reference}
        return {**shown, "confirmed": False}


@dataclass(frozen=True, slots=True)
class Call:
    """The question as a request; `scope` is what our own token must carry."""

    method: str
    path: str  # below the base address
    scope: str
    params: Mapping[str, str]
    body: Mapping[str, str] | None = None


def call_of(question: Question) -> Call:
    """The request that asks it (Altinn: delegations, system user and consent for Maskinporten)."""
    match question:
        case DelegationQuestion(consumer, supplier, scope):
            params = {"supplierorg": supplier, "consumerorg": consumer, "scope": scope}
            return Call("GET", DELEGATIONS_PATH, DELEGATIONS_SCOPE, params)
        case SystemUserQuestion(wish, client_id, vendor):
            params = {
                "clientId": client_id,
                "systemProviderOrgNo": vendor,
                "systemUserOwnerOrgNo": wish.owner,
            }
            if wish.external_ref is not None:
                params["externalRef"] = wish.external_ref
            return Call("GET", SYSTEM_USER_PATH, SYSTEM_USER_SCOPE, params)
        case ConsentQuestion(wish, receiver):
            body = {"id": wish.id, "from": wish.giver, "to": ORGANIZATION_URN + receiver}
            return Call("POST", CONSENT_PATH, CONSENT_SCOPE, {}, body)


def delegation_questions(entitlement: Entitlement) -> tuple[Question, ...]:
    """One question for each scope; none where the grant needs no delegation."""
    if entitlement.delegation_source is None or entitlement.supplier is None:
        return ()
    return tuple(
        DelegationQuestion(entitlement.consumer, entitlement.supplier, scope)
        for scope in entitlement.grant.scopes
    )


def delegation_of(
    entitlement: Entitlement, confirmations: Sequence[Confirmation]
) -> Delegation | None:
    """What was confirmed, in the form that `authorize` holds against the entitlement."""
    source, supplier = entitlement.delegation_source, entitlement.supplier
    if source is None or supplier is None or not confirmations:
        return None
    scopes = frozenset(
        confirmation.question.scope
        for confirmation in confirmations
        if isinstance(confirmation.question, DelegationQuestion)
        and isinstance(confirmation.answer, Yes)
        and confirmation.source == source
        and confirmation.question.consumer == entitlement.consumer
        and confirmation.question.supplier == supplier
    )
    hows = {
        f"{each.how}{', of others' if isinstance(each.answer, No) and each.answer.mismatch else ''}"
        for each in confirmations
    }
    return Delegation(source, entitlement.consumer, supplier, scopes, "; ".join(sorted(hows)))


def detail_question(wish: Wish, entitlement: Entitlement) -> Question:
    """A system user belongs to a system of the client's organisation; a consent to the consumer."""
    if isinstance(wish, SystemUserWish):
        return SystemUserQuestion(wish, entitlement.client_id, entitlement.consumer)
    return ConsentQuestion(wish, entitlement.consumer)


def read_answer(question: Question, status: int, octets: bytes) -> Answer:
    """What the answer says about the question. Raises Unusable.

    `octets` is the body, which has to be JSON with each name once.
    """
    try:
        found = read_json(octets) if octets else None
    except Malformed as fault:
        raise Unusable(f"status {status}, {fault}") from fault
    match question:
        case DelegationQuestion():
            return _read_delegations(question, status, found)
        case SystemUserQuestion():
            return _read_system_user(question, status, found)
        case ConsentQuestion():
            return _read_consent(question, status, found)


def at_time(answer: Answer, now: float) -> Answer:
    """The answer as it is at `now` (epoch seconds): a consent ends on its own."""
    if isinstance(answer, Yes) and answer.until is not None and answer.until <= now:
        return No(_CONSENT_PROBLEMS[13])
    return answer


def verify_detail(confirmation: Confirmation) -> Mapping[str, Any]:
    """The element for the token. Raises Refused: SYSTEM_USER_UNKNOWN, DETAILS_REFUSED."""
    answer = confirmation.answer
    if isinstance(answer, Yes):
        return answer.detail or {}
    asked_for_user = isinstance(confirmation.question, SystemUserQuestion)
    reason = Reason.SYSTEM_USER_UNKNOWN if asked_for_user else Reason.DETAILS_REFUSED
    detail = f"{answer.sentence}{' (the answer was about others)' if answer.mismatch else ''}"
    raise Refused(reason, f"{detail}, {confirmation.how}", named=(answer.sentence,))


def _read_delegations(question: DelegationQuestion, status: int, found: Any) -> Answer:
    if status != _OK or not isinstance(found, list) or len(found) > MAX_ELEMENTS:
        raise Unusable(f"status {status}, {type(found).__name__}")
    asked = question.consumer, question.supplier
    for element in found:
        parties = _text(element, "consumer_org"), _text(element, "supplier_org")
        scopes = _member(element, "scopes", list)
        if not all(isinstance(scope, str) for scope in scopes):
            raise Unusable("a scope is not a string")
        if parties == asked and question.scope in scopes:
            name = element.get("delegation_scheme_Id") or element.get("resourceid") or ""
            return Yes(str(name)[:80])
    return No("No delegation", mismatch=bool(found))


def _read_system_user(question: SystemUserQuestion, status: int, found: Any) -> Answer:
    none = No("There is no such approved system user for the client")
    if status == _NOT_FOUND:
        return none
    if status != _OK:
        raise Unusable(f"status {status}")
    user_id = _text(found, "id")
    if not is_uuid(user_id):
        raise Unusable("id is not a UUID")
    if _member(found, "isDeleted", bool):
        return none
    reference = found.get("externalRef")
    if (
        _text(found, "reporteeOrgNo") != question.wish.owner
        or _text(found, "supplierOrgno") != question.vendor
        or question.wish.external_ref not in (None, reference)
    ):
        return No(none.sentence, mismatch=True)
    # Altinn puts the system's id into productName, which is where Maskinporten reads it.
    system_id = found.get("productName") or found.get("systemId")
    if not isinstance(system_id, str):
        raise Unusable("no productName")
    return Yes(user_id, system_user_detail(question.wish, user_id, system_id))


def _read_consent(question: ConsentQuestion, status: int, found: Any) -> Answer:
    if status != _OK:
        return _read_consent_problem(status, found)
    wish = question.wish
    if (
        _text(found, "id").lower() != wish.id
        or _text(found, "from") != wish.giver
        or _text(found, "to") != ORGANIZATION_URN + question.receiver
    ):
        return No(_CONSENT_PROBLEMS[12], mismatch=True)
    consented, valid_to = _text(found, "consented"), _text(found, "validTo")
    _instant(consented)
    rights = [_read_right(right) for right in _member(found, "consentRights", list)]
    detail = consent_detail(wish, question.receiver, consented, valid_to, rights)
    return Yes(wish.id, detail, _instant(valid_to))


def _read_consent_problem(status: int, found: Any) -> No:
    """A problem document (RFC 9457) with a code of Altinn's, or with several problems within."""
    problems: list[Any] = [found]
    if isinstance(found, dict) and isinstance(found.get("problems"), list):
        problems = found["problems"] or problems
    codes = [
        code
        for problem in problems
        if isinstance(problem, dict)
        and (code := _PROBLEM_CODE.fullmatch(str(problem.get("code")))) is not None
    ]
    known = [n for n in (int(code[1]) for code in codes) if n in _CONSENT_PROBLEMS]
    if not known or len(known) != len(problems):
        raise Unusable(f"status {status} without a code we know")
    return No(_CONSENT_PROBLEMS[known[0]])


def _read_right(right: Any) -> dict[str, Any]:
    """A right as the token shows it. `metadata` stands there only where the consent has it."""
    if isinstance(right, dict) and {"metadata", "metaData"} <= right.keys():
        raise Unusable("metadata stands twice")
    shown: dict[str, Any] = {
        "action": _texts(_member(right, "action", list)),
        "resource": [
            {"type": _text(resource, "type"), "value": _text(resource, "value")}
            for resource in _member(right, "resource", list)
        ],
    }
    metadata = right.get("metadata") or right.get("metaData")
    if metadata:
        if not isinstance(metadata, dict):
            raise Unusable("metadata is not an object")
        _texts(list(metadata.values()))
        shown["metadata"] = metadata
    return shown


def _member(found: Any, name: str, kind: type) -> Any:
    value = found.get(name) if isinstance(found, dict) else None
    if not isinstance(value, kind) or (isinstance(value, list) and len(value) > MAX_ELEMENTS):
        raise Unusable(f"{name} is a {type(value).__name__}")
    return value


def _text(found: Any, name: str) -> str:
    value: str = _member(found, name, str)
    return value


def _texts(values: list[Any]) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        raise Unusable("a value is not a string")
    return values


def _instant(text: str) -> float:
    """Epoch seconds of an RFC 3339 instant. Raises Unusable; a time without a zone is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as fault:
        raise Unusable("not an instant") from fault
    if moment.tzinfo is None:
        raise Unusable("an instant without a zone")
    return moment.timestamp()
