"""Other people's vectors: NIST's PKITS (Public Key Interoperability Test Suite) 1.0.1.

Run against the path and the revocation rules, every certificate and every list of the suite at
once, as a store with foreign matter in it. Where we answer otherwise than NIST, the reason stands
beside the name.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Final

import pytest

from maskinporten.domain.link import Invalid, Link, read_link
from maskinporten.domain.path import Authorities, find_path
from maskinporten.domain.policies import PolicyInputs
from maskinporten.domain.revocation import (
    Evidence,
    RevocationList,
    RevocationPolicy,
    WhenStale,
    authority_id,
    read_crl,
    verify_not_revoked,
)
from maskinporten.errors import Refused

DATA: Final = files("cryptography_vectors") / "x509" / "PKITS_data"
NOW: Final = int(datetime(2015, 1, 1, tzinfo=UTC).timestamp())  # within every valid certificate
_OWN_KEY = "a list speaks for the certificates of the very key that signed it; keys are rolled over"
_INDIRECT = (
    "indirect lists (signed by another than the issuer) are refused; no issuer here uses any"
)
_REASONS = "lists of some reasons only are refused; no issuer here uses them"
_RELATIVE = "distribution points named relative to the issuer are not read; no issuer here uses any"
_DELTA = "delta lists are not used: the complete list is fetched as often instead"
DIFFERENT: Final = {
    "ValidDSASignaturesTest4EE": "DSA and SHA-1 are not accepted anywhere in a path",
    "ValidDSAParameterInheritanceTest5EE": "a DSA key without its parameters is not read",
    "InvalidUnknownCriticalCertificateExtensionTest2EE":
        "a rule about the leaf, not the path: tests/domain/test_certificate.py, unknown critical",
    "ValidBasicSelfIssuedCRLSigningKeyTest6EE": _OWN_KEY,
    "ValidBasicSelfIssuedNewWithOldTest4EE": _OWN_KEY,
    "ValidBasicSelfIssuedOldWithNewTest1EE": _OWN_KEY,
    "ValidDNnameConstraintsTest19EE": _OWN_KEY,
    "ValidSelfIssuedinhibitAnyPolicyTest7EE": _OWN_KEY,
    "ValidSelfIssuedinhibitAnyPolicyTest9EE": _OWN_KEY,
    "ValidSelfIssuedinhibitPolicyMappingTest7EE": _OWN_KEY,
    "ValidSelfIssuedpathLenConstraintTest15EE": _OWN_KEY,
    "ValidSelfIssuedpathLenConstraintTest17EE": _OWN_KEY,
    "ValidSelfIssuedrequireExplicitPolicyTest6EE": _OWN_KEY,
    "ValidSeparateCertificateandCRLKeysTest19EE": _OWN_KEY,
    "ValidIDPwithindirectCRLTest22EE": _INDIRECT,
    "ValidIDPwithindirectCRLTest24EE": _INDIRECT,
    "ValidIDPwithindirectCRLTest25EE": _INDIRECT,
    "ValidcRLIssuerTest28EE": _INDIRECT,
    "ValidcRLIssuerTest29EE": _INDIRECT,
    "ValidcRLIssuerTest30EE": _INDIRECT,
    "ValidcRLIssuerTest33EE": _INDIRECT,
    "ValidonlySomeReasonsTest18EE": _REASONS,
    "ValidonlySomeReasonsTest19EE": _REASONS,
    "ValiddistributionPointTest4EE": _RELATIVE,
    "ValiddistributionPointTest5EE": _RELATIVE,
    "ValiddistributionPointTest7EE": _RELATIVE,
    "InvaliddeltaCRLTest4EE": _DELTA,
    "ValiddeltaCRLTest5EE": _DELTA,
}  # fmt: skip
# The suite names those otherwise whose answer depends on the inputs; by default (any policy):
BY_DEFAULT: Final = {
    "AllCertificatesNoPoliciesTest2EE": True,
    "AllCertificatesSamePoliciesTest10EE": True,
    "AllCertificatesSamePoliciesTest13EE": True,
    "AllCertificatesanyPolicyTest11EE": True,
    "AnyPolicyTest14EE": True,
    "CPSPointerQualifierTest20EE": True,
    "DifferentPoliciesTest3EE": True,
    "DifferentPoliciesTest4EE": False,
    "DifferentPoliciesTest5EE": False,
    "DifferentPoliciesTest7EE": False,
    "DifferentPoliciesTest8EE": False,
    "DifferentPoliciesTest9EE": False,
    "DifferentPoliciesTest12EE": False,
    "OverlappingPoliciesTest6EE": True,
    "UserNoticeQualifierTest15EE": True,
    "UserNoticeQualifierTest16EE": True,
    "UserNoticeQualifierTest17EE": True,
    "UserNoticeQualifierTest18EE": True,
    "UserNoticeQualifierTest19EE": True,
    "inhibitAnyPolicyTest3EE": True,
}


def _policy(number: int) -> str:
    return f"2.16.840.1.101.3.2.1.48.{number}"


def _only(*numbers: int) -> PolicyInputs:
    accepted = {_policy(number) for number in numbers}
    return PolicyInputs(accepted.__contains__, explicit=True)


EXPLICIT: Final = PolicyInputs(explicit=True)
# Sections 4.8, 4.10 and 4.12: the same paths under other inputs.
WITH_INPUTS: Final = [
    ("ValidCertificatePathTest1EE", EXPLICIT, True),
    ("ValidCertificatePathTest1EE", _only(1), True),
    ("ValidCertificatePathTest1EE", _only(2), False),
    ("ValidCertificatePathTest1EE", _only(1, 2), True),
    ("AllCertificatesNoPoliciesTest2EE", EXPLICIT, False),
    ("DifferentPoliciesTest3EE", EXPLICIT, False),
    ("DifferentPoliciesTest3EE", _only(1, 2), False),
    ("OverlappingPoliciesTest6EE", _only(1), True),
    ("OverlappingPoliciesTest6EE", _only(2), False),
    ("AllCertificatesSamePoliciesTest10EE", _only(1), True),
    ("AllCertificatesSamePoliciesTest10EE", _only(2), True),
    ("AllCertificatesanyPolicyTest11EE", _only(1), True),
    ("AllCertificatesSamePoliciesTest13EE", _only(1), True),
    ("AllCertificatesSamePoliciesTest13EE", _only(2), True),
    ("AllCertificatesSamePoliciesTest13EE", _only(3), True),
    ("AnyPolicyTest14EE", _only(1), True),
    ("AnyPolicyTest14EE", _only(2), False),
    ("UserNoticeQualifierTest17EE", _only(1), True),
    ("UserNoticeQualifierTest17EE", _only(2), False),
    ("ValidPolicyMappingTest1EE", _only(1), True),
    ("ValidPolicyMappingTest1EE", _only(2), False),
    ("ValidPolicyMappingTest1EE", PolicyInputs(explicit=True, inhibit_mapping=True), False),
    ("ValidPolicyMappingTest3EE", _only(1), False),
    ("ValidPolicyMappingTest3EE", _only(2), True),
    ("ValidPolicyMappingTest5EE", _only(1), True),
    ("ValidPolicyMappingTest5EE", _only(6), False),
    ("ValidPolicyMappingTest6EE", _only(1), True),
    ("ValidPolicyMappingTest6EE", _only(6), False),
    ("inhibitAnyPolicyTest3EE", PolicyInputs(explicit=True, inhibit_any=True), False),
]


def _names() -> Iterator[str]:
    for entry in sorted((DATA / "certs").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith("EE.crt"):
            yield entry.name.removesuffix(".crt")


@cache
def _der(name: str) -> bytes:
    return (DATA / "certs" / f"{name}.crt").read_bytes()


@cache
def _authorities() -> tuple[Authorities, tuple[Link, ...]]:
    """Every certificate of the suite that is not an end, though half of them are bad."""
    found: list[Link] = []
    anchors: list[Link] = []
    for entry in (DATA / "certs").iterdir():
        if not entry.name.endswith("EE.crt"):
            try:
                link = read_link(entry.read_bytes())
            except Invalid:
                continue
            (anchors if entry.name.startswith("TrustAnchor") else found).append(link)
    return Authorities(tuple(anchors), tuple(found)), (*anchors, *found)


@cache
def _evidence() -> Evidence:
    """Every list of the suite that holds against an authority of it."""
    _, links = _authorities()
    lists: defaultdict[bytes, list[RevocationList]] = defaultdict(list)
    for entry in (DATA / "crls").iterdir():
        der = entry.read_bytes()
        for link in {authority_id(link): link for link in links if link.is_ca}.values():
            try:
                found = read_crl(der, link, NOW)
            except Invalid:
                continue
            lists[found.authority].append(found)
    sources = frozenset(map(authority_id, links))
    return Evidence({name: tuple(found) for name, found in lists.items()}, {}, sources)


def _holds(name: str, inputs: PolicyInputs | None = None) -> bool:
    authorities, _ = _authorities()
    policy = RevocationPolicy(WhenStale.REFUSE, 0, accept_without_source=False)
    try:
        path = find_path(read_link(_der(name)), authorities, NOW, inputs)
        verify_not_revoked(path, _evidence(), policy, NOW)
    except (Invalid, Refused):
        return False
    return True


@pytest.mark.parametrize("name", list(_names()))
def test_path(name: str) -> None:
    """The suite's own verdict under its default inputs, or the opposite for a stated reason."""
    expected = BY_DEFAULT[name] if name in BY_DEFAULT else name.startswith("Valid")

    assert _holds(name) is (expected if name not in DIFFERENT else not expected)


@pytest.mark.parametrize(("name", "inputs", "expected"), WITH_INPUTS)
def test_path_under_other_policy_inputs(name: str, inputs: PolicyInputs, *, expected: bool) -> None:
    """What a relying party asks for decides, where the authorities leave it open."""
    assert _holds(name, inputs) is expected


def test_no_difference_is_stale() -> None:
    """Every name in the tables is a certificate of the suite."""
    assert {*DIFFERENT, *BY_DEFAULT} <= set(_names())
