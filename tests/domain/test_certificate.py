"""The enterprise certificate: attacks 18 to 21 and 23, one wrong thing at a time."""

import base64
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from maskinporten import pki
from maskinporten.domain import names as names_module
from maskinporten.domain import policies
from maskinporten.domain.certificate import (
    MAX_CERTIFICATE_LENGTH,
    EnterpriseCertificate,
    TrustStore,
    find_certified_orgno,
    read_leaf,
    read_x5c,
    verify_enterprise,
)
from maskinporten.domain.link import Invalid
from maskinporten.errors import Reason, Refused
from maskinporten.pki import DAY, Issued
from tests.chains import (
    SEID1,
    SEID2,
    Wrong,
    authority,
    enterprise,
    issuing,
    leaf,
    root,
    trust,
    x5c,
)
from tests.world import CONSUMER, NOW, PROVIDER, private_key

NO_SUCH_ORGNO = "991825828"  # the check digit is one off


def judge(issued: Issued, store: TrustStore | None = None, now: int = NOW) -> EnterpriseCertificate:
    """The verdict on a chain of this leaf alone."""
    return verify_enterprise(read_leaf((issued.der,)), store or trust(), now)


def refused(issued: Issued, store: TrustStore | None = None, now: int = NOW) -> str:
    """What our log says of the refusal with CERTIFICATE_INVALID."""
    with pytest.raises(Refused) as caught:
        judge(issued, store, now)
    assert caught.value.reason is Reason.CERTIFICATE_INVALID
    return caught.value.detail


@pytest.mark.parametrize("generation", [SEID1, SEID2])
def test_both_generations_prove_their_organisation(generation: pki.Generation) -> None:
    """The number stands in serialNumber or in organizationIdentifier."""
    issued = enterprise(generation=generation)
    found = judge(issued)

    assert found.orgno == CONSUMER
    assert found.client_amr == "virksomhetssertifikat"
    assert found.serial == issued.certificate.serial_number
    assert found.issuer == issuing().certificate.subject.rfc4514_string()
    assert found.key.public_numbers() == issued.key.public_key().public_numbers()


MALFORMED: list[Any] = [
    pytest.param("MIIB", id="a string instead of an array"),
    pytest.param([], id="an empty array"),
    pytest.param({}, id="an object"),
    pytest.param([1], id="a number in the array"),
    pytest.param([""], id="an empty element"),
    pytest.param(["-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"], id="PEM"),
    pytest.param(["MI\nIB"], id="a line break"),
    pytest.param(["TUlJ_-A="], id="base64url"),
    pytest.param(["MIIBA"], id="truncated base64"),
    pytest.param(["AAAA"] * 7, id="seven certificates"),
    pytest.param(["AAAA"] * 10_000, id="ten thousand certificates"),
    pytest.param(
        [base64.b64encode(bytes(MAX_CERTIFICATE_LENGTH + 1)).decode()], id="one over 8 KiB"
    ),
    pytest.param(["AAAA"], id="not a certificate"),
]


@pytest.mark.parametrize("header", MALFORMED)
def test_malformed(header: object) -> None:
    """Attack 18: what is no array of certificates is MP-123."""
    with pytest.raises(Refused) as caught:
        read_leaf(read_x5c(header))

    assert caught.value.reason is Reason.X5C_MALFORMED


def test_eight_kib_and_six_certificates_are_read() -> None:
    """The limits include their ends."""
    der = bytes(MAX_CERTIFICATE_LENGTH)

    assert read_x5c([base64.b64encode(der).decode()] * 6) == (der,) * 6


def test_the_order_of_the_rest_is_nothing_to_us() -> None:
    """Attack 18: the path is built from our own authorities; of the chain only the leaf counts."""
    stranger = pki.make_root("Stranger", NOW - DAY, private_key("stranger"))
    chain = read_x5c(x5c(enterprise(), stranger, root(), issuing()))

    assert verify_enterprise(read_leaf(chain), trust(), NOW).orgno == CONSUMER


def usage(*names: str) -> list[tuple[x509.ExtensionType, bool]]:
    """A critical key usage."""
    return [(pki.key_usage(*names), True)]


UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
SUBTREE = x509.NameConstraints([x509.DNSName("example.no")], None)
LEAVES = [
    pytest.param(
        Wrong(add=[(x509.BasicConstraints(ca=True, path_length=None), True)]),
        "an authority as the leaf",
        id="CA as leaf",
    ),
    pytest.param(Wrong(without=[x509.KeyUsage]), "no key usage", id="no key usage"),
    pytest.param(
        Wrong(add=[(pki.key_usage("digital_signature"), False)]),
        "no key usage, or not critical",
        id="key usage not critical",
    ),
    pytest.param(Wrong(add=usage("key_encipherment")), "may not sign", id="encipherment only"),
    pytest.param(
        Wrong(add=usage("digital_signature", "key_cert_sign")),
        "may sign certificates",
        id="keyCertSign in the leaf",
    ),
    pytest.param(
        Wrong(add=usage("digital_signature", "crl_sign")),
        "may sign certificates",
        id="cRLSign in the leaf",
    ),
    pytest.param(Wrong(add=[(UNKNOWN, True)]), "critical extension", id="unknown critical"),
    pytest.param(Wrong(add=[(SUBTREE, False)]), "authority's extension", id="name constraints"),
    pytest.param(
        Wrong(add=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)]),
        "other purposes",
        id="a responder's certificate",
    ),
    pytest.param(Wrong(policies=["1.2.3"]), "no certificate policy", id="wrong policy OID"),
    pytest.param(
        Wrong(without=[x509.CertificatePolicies]), "no certificate policy", id="no policy"
    ),
    pytest.param(Wrong(policies=["2.5.29.32.0"]), "no certificate policy", id="anyPolicy"),
    pytest.param(Wrong(dated=(NOW - DAY, NOW - 1)), "expired", id="expired a second ago"),
    pytest.param(Wrong(dated=(NOW + 1, NOW + DAY)), "not yet valid", id="valid in a second"),
    pytest.param(Wrong(signer=private_key("thief")), "no path", id="leaf signed by another key"),
    pytest.param(Wrong(issuer=pki.ca_name("Nobody")), "no path", id="issuer is nobody we know"),
    pytest.param(
        Wrong(subject=pki.enterprise_name(NO_SUCH_ORGNO, "Test AS", SEID1)),
        "wrong check digit",
        id="orgno with a wrong check digit",
    ),
    pytest.param(Wrong(subject=pki.ca_name("No number")), "no organisation number", id="no orgno"),
]


@pytest.mark.parametrize(("wrong", "detail"), LEAVES)
def test_refuses_a_leaf(wrong: Wrong, detail: str) -> None:
    """Attacks 18, 19 and 21: each rule about the leaf refuses what it is there for."""
    assert detail in refused(leaf(wrong))


def test_validity_includes_both_its_ends() -> None:
    """RFC 5280 section 4.1.2.5."""
    assert judge(leaf(Wrong(dated=(NOW, NOW + DAY)))).orgno == CONSUMER
    assert judge(leaf(Wrong(dated=(NOW - DAY, NOW)))).orgno == CONSUMER


def test_non_repudiation_alone_will_do() -> None:
    """Some issuers deliver their seal so."""
    assert judge(leaf(Wrong(add=usage("content_commitment")))).orgno == CONSUMER


def test_self_signed() -> None:
    """Attack 18: an organisation does not vouch for itself."""
    subject = pki.enterprise_name(CONSUMER, "Test AS", SEID2)
    own = Wrong(subject=subject, issuer=subject, signer=private_key("leaf"))

    assert refused(leaf(own)) == "self-signed"


WEAK = [
    pytest.param(
        lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - to be refused
        "2048 to 4096",
        id="1024 bits",
    ),
    pytest.param(lambda: rsa.generate_private_key(3, 2048), "exponent", id="exponent 3"),
    pytest.param(lambda: ec.generate_private_key(ec.SECP256R1()), "not an RSA key", id="P-256"),
]


@pytest.mark.parametrize(("make", "detail"), WEAK)
def test_weak_keys(make: Any, detail: str) -> None:
    """Attack 23: a certificate's key is held to the measure of a registered one."""
    assert detail in refused(leaf(Wrong(key=make())))


def test_an_expired_issuer() -> None:
    """Attack 21: every certificate of the path must be valid now."""
    old = authority("old", root(), dated=(NOW - 2 * DAY, NOW - 1))

    assert "expired" in refused(leaf(Wrong(by=old)), trust(old))


def test_cross_signed_and_the_old_root_gone() -> None:
    """Attack 21 (AddTrust 2020): an expired root does not spoil the other path."""
    old_root = Issued(
        pki.certify(
            pki.ca_name("Old"), private_key("old root"),
            (pki.ca_name("Old"), private_key("old root")),
            (NOW - 9 * DAY, NOW - DAY), pki.authority_extensions(None),
        ),
        private_key("old root"),
    )  # fmt: skip
    by_old = authority("crossed", old_root, dated=(NOW - 2 * DAY, NOW + DAY))
    by_new = authority("crossed", root(), dated=(NOW - 2 * DAY, NOW + DAY))
    issued = leaf(Wrong(by=by_new))

    assert "expired" in refused(issued, trust(by_old, anchors=[old_root]))
    assert judge(issued, trust(by_old, by_new, anchors=[old_root, root()])).orgno == CONSUMER


def test_an_authority_that_issues_authorities_it_may_not() -> None:
    """The issuing authority's path length is zero."""
    below = authority("below", issuing())

    assert "longer" in refused(leaf(Wrong(by=below)), trust(below))


def test_a_leaf_that_issued_a_leaf() -> None:
    """CVE-2021-3450: an organisation's certificate is no authority, whoever calls it one."""
    organisation = enterprise(name="organisation")
    forged = leaf(Wrong(by=organisation))

    assert "no authority" in refused(forged, trust(organisation))


def test_names_outside_the_authority_s_constraints() -> None:
    """An authority for one name may not certify another."""
    only = x509.NameConstraints([x509.DirectoryName(pki.ca_name("Only"))], None)
    narrow = authority("narrow", root(), add=[(only, True)])

    assert "not among those permitted" in refused(leaf(Wrong(by=narrow)), trust(narrow))


@dataclass
class Steps:
    """Lines of a module that were run."""

    count: int = 0


@contextmanager
def steps_in(module: ModuleType) -> Iterator[Steps]:
    """Counts work by lines and not by time, which says more of the machine than of us."""
    steps = Steps()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != module.__file__:
            return None
        steps.count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield steps
    finally:
        sys.settrace(before)


def test_name_constraint_bomb() -> None:
    """Attack 20: thousands of names against thousands of constraints end quickly."""
    subtrees = [x509.DNSName(f"x{n}.example") for n in range(300)]
    add = [(x509.NameConstraints(subtrees, subtrees), True)]
    bomb = authority("bomb", root(), add=add)
    names = x509.SubjectAlternativeName([x509.DNSName(f"y{n}.example") for n in range(300)])
    issued = leaf(Wrong(by=bomb, add=[(names, False)]))
    store = trust(bomb)
    with steps_in(names_module) as steps:
        assert "without end" in refused(issued, store)
    assert steps.count < 10_000


def test_policy_bomb() -> None:
    """Attack 20: the graph of policies does not grow as the tree did (RFC 9618)."""
    oids = [f"1.2.{n}" for n in range(64)]
    information = [x509.PolicyInformation(ObjectIdentifier(oid), None) for oid in oids]
    mapping = b"".join(_der(0x30, _oid(a) + _oid(b)) for a in oids[:8] for b in oids[:8])
    mappings = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.33"), _der(0x30, mapping))
    add = [(x509.CertificatePolicies(information), False), (mappings, False)]
    one = authority("one", root(), add=add)
    two = authority("two", one, add=add)
    three = authority("three", two, add=add)
    issued, store = leaf(Wrong(by=three)), trust(one, two, three)
    with steps_in(policies) as steps:
        assert judge(issued, store).orgno == CONSUMER
    # A tree would hold 64 * 64 * 64 nodes at its third level.
    assert steps.count < 20_000


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    head = bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2, "big")
    return bytes([tag]) + head + content


def _oid(dotted: str) -> bytes:
    _, _, last = dotted.split(".")
    return _der(6, bytes([42, int(last)]))


def name(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    """A subject of these."""
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


ID, ORG, SERIAL = NameOID.ORGANIZATION_IDENTIFIER, NameOID.ORGANIZATION_NAME, NameOID.SERIAL_NUMBER
NUMBERS = [
    pytest.param(name((SERIAL, CONSUMER)), id="SEID 1"),
    pytest.param(name((ID, f"NTRNO-{CONSUMER}")), id="SEID 2.0"),
    pytest.param(name((ID, f"PSDNO-FSA-{CONSUMER}")), id="a payment institution"),
    pytest.param(name((ID, CONSUMER)), id="a bare identifier"),
    pytest.param(name((ORG, f"TEST AS - {CONSUMER}")), id="in the organisation's name"),
    pytest.param(name((SERIAL, CONSUMER), (ID, f"NTRNO-{CONSUMER}")), id="both, and the same"),
    pytest.param(name((SERIAL, "UN:NO-1"), (ID, f"NTRNO-{CONSUMER}")), id="another serialNumber"),
    pytest.param(name((SERIAL, CONSUMER), (ORG, f"X - {PROVIDER}")), id="serialNumber before O"),
]


@pytest.mark.parametrize("subject", NUMBERS)
def test_finds_the_organisation_number(subject: x509.Name) -> None:
    """Digdir's order: serialNumber, the end of O, organizationIdentifier."""
    assert find_certified_orgno(subject) == CONSUMER


NO_NUMBERS = [
    pytest.param(name((SERIAL, CONSUMER), (ID, f"NTRNO-{PROVIDER}")), id="two organisations"),
    pytest.param(name((SERIAL, CONSUMER), (SERIAL, PROVIDER)), id="two serial numbers"),
    pytest.param(name((ID, f"NTRSE-{CONSUMER}")), id="a Swedish identifier"),
    pytest.param(name((ID, f"NTRNO-{NO_SUCH_ORGNO}")), id="a wrong check digit"),
    pytest.param(name((ORG, CONSUMER)), id="a name that is a number"),
    pytest.param(name((SERIAL, f"{CONSUMER} ")), id="a space after it"),
    pytest.param(name((ORG, "TEST AS")), id="none"),
]


@pytest.mark.parametrize("subject", NO_NUMBERS)
def test_finds_no_organisation_number(subject: x509.Name) -> None:
    """Attack 19: none, two, or one that nobody has."""
    with pytest.raises(Invalid):
        find_certified_orgno(subject)


def test_policy_wildcards() -> None:
    """A trailing star stands for all that begin so; without it the policy must be the same."""
    store = TrustStore(trust().authorities, ("1.2.3.*", "1.2.4"))

    assert store.accepts("1.2.3.9.9")
    assert store.accepts("1.2.4")
    assert not store.accepts("1.2.4.1")
    assert not store.accepts("1.2.33.1")
