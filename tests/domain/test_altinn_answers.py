"""Altinn's answers read by themselves: what does not say what was asked is no answer."""

import json
from typing import Any

import pytest

from maskinporten.domain.altinn import (
    ConsentQuestion,
    DelegationQuestion,
    Question,
    SystemUserQuestion,
    Unusable,
    Yes,
    read_answer,
)
from maskinporten.domain.details import ConsentWish, SystemUserWish
from tests.test_altinn import CONSENT_ID, PERSON, SCOPE, consent, delegation, system_user
from tests.world import CONSUMER, STRANGER, SUPPLIER

DELEGATED = DelegationQuestion(CONSUMER, SUPPLIER, SCOPE)  # type: ignore[arg-type]
USER = SystemUserQuestion(SystemUserWish(STRANGER), "vendor", SUPPLIER)  # type: ignore[arg-type]
CONSENTED = ConsentQuestion(ConsentWish(CONSENT_ID, PERSON), SUPPLIER)  # type: ignore[arg-type]

UNUSABLE = [
    *(
        pytest.param(DELEGATED, body, id=f"delegation, {name}")
        for name, body in {
            "an object": delegation(),
            "a string": SCOPE,
            "null": None,
            "null within": [None],
            "consumer is null": [delegation(consumer_org=None)],
            "consumer is a number": [delegation(consumer_org=int(CONSUMER))],
            "scopes is a string": [delegation(scopes=SCOPE)],
            "scopes is null": [delegation(scopes=None)],
            "a scope is null": [delegation(scopes=[SCOPE, None])],
        }.items()
    ),
    *(
        pytest.param(USER, body, id=f"system user, {name}")
        for name, body in {
            "a list": [system_user()],
            "id is null": system_user(id=None),
            "id is no UUID": system_user(id="x"),
            "isDeleted is null": system_user(isDeleted=None),
            "isDeleted is a string": system_user(isDeleted="false"),
            "reportee is a number": system_user(reporteeOrgNo=int(STRANGER)),
            "supplier is null": system_user(supplierOrgno=None),
            "no system": system_user(productName=None, systemId=None),
            "a number for a system": system_user(productName=7),
        }.items()
    ),
    *(
        pytest.param(CONSENTED, body, id=f"consent, {name}")
        for name, body in {
            "a list": [consent()],
            "id is null": consent(id=None),
            "to is an object": consent(to={}),
            "no validTo": consent(validTo=None),
            "validTo is a number": consent(validTo=1_900_000_000),
            "validTo without a zone": consent(validTo="2030-01-01T00:00:00"),
            "validTo is no time": consent(validTo="soon"),
            "consented is no time": consent(consented="then"),
            "rights is an object": consent(consentRights={}),
            "a right is null": consent(consentRights=[None]),
            "an action is a number": consent(consentRights=[{"action": [1], "resource": []}]),
            "no resource": consent(consentRights=[{"action": ["x"]}]),
            "a resource without a value": consent(
                consentRights=[{"action": [], "resource": [{"type": "x"}]}]
            ),
            "metadata is a list": consent(
                consentRights=[{"action": [], "resource": [], "metadata": [1]}]
            ),
            "metadata is a number": consent(
                consentRights=[{"action": [], "resource": [], "metadata": {"a": 1}}]
            ),
            "metadata twice": consent(
                consentRights=[{"action": [], "resource": [], "metadata": {}, "metaData": {}}]
            ),
        }.items()
    ),
]


@pytest.mark.parametrize(("question", "body"), UNUSABLE)
def test_unusable(question: Question, body: Any) -> None:
    """Wrong types, nulls, what is missing."""
    with pytest.raises(Unusable):
        read_answer(question, 200, json.dumps(body).encode())


GOOD = [
    pytest.param(DELEGATED, [delegation()], id="delegation"),
    pytest.param(DELEGATED, [delegation(consumer_org=STRANGER), delegation()], id="the second"),
    pytest.param(DELEGATED, [delegation(more=1)], id="a member we do not know"),
    pytest.param(USER, system_user(), id="system user"),
    pytest.param(USER, system_user(productName=None), id="the system's id elsewhere"),
    pytest.param(USER, system_user(externalRef=None), id="no externalRef"),
    pytest.param(USER, system_user(externalRef=[]), id="externalRef is an array"),
    pytest.param(CONSENTED, consent(), id="consent"),
    pytest.param(CONSENTED, consent(id=CONSENT_ID.upper()), id="a UUID in capitals"),
    pytest.param(CONSENTED, consent(validTo="2027-02-03T10:13:27.8970021Z"), id="seven digits"),
    pytest.param(CONSENTED, consent(consentRights=[]), id="no rights"),
]


@pytest.mark.parametrize(("question", "body"), GOOD)
def test_yes(question: Question, body: Any) -> None:
    """Nothing is refused for what does not matter."""
    assert isinstance(read_answer(question, 200, json.dumps(body).encode()), Yes)
