"""POST /token with a European electronic seal: the token, the leaf, what is refused."""

import asyncio
import http.server
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from maskinporten import pki
from maskinporten.domain.path import Authorities
from maskinporten.errors import Reason
from maskinporten.pki import DAY, Issued
from tests.chains import YEAR, authority, enterprise, issuing, root, x5c
from tests.conftest import Starter
from tests.seals import (
    COMPLIANCE,
    FOR_SEALS,
    FOR_SIGNATURES,
    FOR_WEB,
    IDENTIFIER,
    NAME,
    SCOPE,
    SealOf,
    der,
    eu_issuing,
    eu_root,
    european_trust,
    good_seal,
    oid,
    qc_statements,
    seal,
)
from tests.web.test_token import claims_of, refused
from tests.world import ABSENT, CONSUMER, NOW, Server, assertion, document

STRANGER_ISS = "whoever"


def sections() -> dict[str, Any]:
    """The world, and scopes that European businesses may have, or not any more."""
    retired = {**SCOPE, "name": "skatt:eu.old", "active": False}
    brief = {**SCOPE, "name": "skatt:eu.brief", "at_max_age": 30}
    return {"scopes": [*document()["scopes"], SCOPE, retired, brief]}


@pytest.fixture
def european(runner: asyncio.Runner, start: Starter, tmp_path: Path) -> Server:
    """A server that accepts seals, and the world's enterprise certificates."""
    folder = european_trust(tmp_path)
    return runner.run(start(sections=sections(), trust=folder))


def grant(
    *chain: Issued,
    iss: str = STRANGER_ISS,
    signed_by: str = "seal",
    header: dict[str, Any] | None = None,
    **claims: Any,
) -> str:
    """A sealed grant, right in every way but those named."""
    own = {"kid": ABSENT, "x5c": x5c(*(chain or (good_seal(), eu_issuing(), eu_root())))}
    return assertion(
        iss,
        signed_by=signed_by,
        header={**own, **(header or {})},
        **{"scope": "skatt:eu", **claims},
    )


async def test_a_business_without_registration(european: Server) -> None:
    """The token of the European pilot: who it is stands in `consumer`, as the seal says it."""
    response = await european.post(grant())

    assert response.status_code == 200, response.text
    claims = claims_of(response)
    assert claims["client_amr"] == "QCForESeal"
    assert claims["client_id"] == f"eidas-{good_seal().certificate.serial_number}"
    assert claims["scope"] == "skatt:eu"
    assert claims["exp"] - claims["iat"] == 120
    assert list(claims["consumer"].items()) == [
        ("commonName", "Beispiel Siegel"),
        ("organizationName", "Beispiel GmbH"),
        ("organizationalUnitName", "Zoll"),
        ("authority", "etsi-en-319-412"),
        ("ID", IDENTIFIER),
        ("countryName", "DE"),
    ]
    assert "supplier" not in claims


async def test_what_the_subject_does_not_say_the_token_does_not_say(european: Server) -> None:
    """Members that are not in the subject are absent, not empty."""
    bare = seal(SealOf(name=((NameOID.ORGANIZATION_IDENTIFIER, "NTRSE-5560000000"),)))
    claims = claims_of(await european.post(grant(bare, eu_issuing())))

    assert claims["consumer"] == {"authority": "etsi-en-319-412", "ID": "NTRSE-5560000000"}


@pytest.mark.parametrize("iss", [STRANGER_ISS, "consumer", "keyless", "retired", "æ" * 300])
async def test_iss_must_be_there_and_says_nothing(european: Server, iss: str) -> None:
    """Not even a registered client's name changes who the seal says is calling."""
    claims = claims_of(await european.post(grant(iss=iss)))

    assert claims["client_id"].startswith("eidas-")
    await refused(european, grant(iss=ABSENT), Reason.CLAIM_INVALID)  # type: ignore[arg-type]


KINDS = [
    pytest.param(qc_statements(FOR_SEALS), "QCForESeal", id="compliance and seal"),
    pytest.param(qc_statements(FOR_WEB, FOR_SEALS), "QCForESeal", id="seal among others"),
    pytest.param(qc_statements(FOR_SEALS, compliance=False), "CForESeal", id="seal alone"),
    pytest.param(qc_statements(), "CForESeal", id="compliance without a type"),
    pytest.param(None, "CForESeal", id="no statements"),
]


@pytest.mark.parametrize(("statements", "method"), KINDS)
async def test_qualified_or_not(
    european: Server, statements: x509.UnrecognizedExtension | None, method: str
) -> None:
    """ETSI EN 319 412-5: qualified is a certificate that says so, and that it is for seals."""
    issued = seal(SealOf(statements=statements, qualified=False))

    assert claims_of(await european.post(grant(issued, eu_issuing())))["client_amr"] == method


async def test_an_authority_that_is_not_qualified_issues_no_qualified_seals(
    start: Starter, tmp_path: Path
) -> None:
    """Whatever its certificates say of themselves."""
    folder = european_trust(tmp_path, root(), unqualified=[eu_root()])
    server = await start(sections=sections(), trust=folder)

    assert claims_of(await server.post(grant()))["client_amr"] == "CForESeal"


async def test_a_listed_issuing_authority_is_an_anchor_by_itself(
    start: Starter, tmp_path: Path
) -> None:
    """Trusted lists name issuing authorities; the root above may stand in x5c or not."""
    server = await start(sections=sections(), trust=european_trust(tmp_path, eu_issuing()))

    for chain in ((good_seal(), eu_issuing()), (good_seal(), eu_issuing(), eu_root())):
        assert (await server.post(grant(*chain))).is_success
    await refused(server, grant(good_seal()), Reason.CERTIFICATE_INVALID)
    await refused(server, grant(good_seal(), eu_root()), Reason.CERTIFICATE_INVALID)


def _statement(octets: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.5.5.7.1.3"), octets)


def _without(kind: ObjectIdentifier) -> tuple[tuple[ObjectIdentifier, str], ...]:
    return tuple(pair for pair in NAME if pair[0] != kind)


ORG_ID = NameOID.ORGANIZATION_IDENTIFIER
WRONG: list[Any] = [
    pytest.param(SealOf(name=_without(ORG_ID)), id="no organizationIdentifier"),
    pytest.param(SealOf(name=(*NAME, (ORG_ID, "VATFR-1"))), id="two organizationIdentifiers"),
    pytest.param(SealOf(name=(*_without(ORG_ID), (ORG_ID, "   "))), id="a blank identifier"),
    pytest.param(SealOf(name=(*NAME, (NameOID.COMMON_NAME, "Another"))), id="two common names"),
    pytest.param(SealOf(statements=qc_statements(FOR_WEB)), id="for a web site"),
    pytest.param(SealOf(statements=qc_statements(FOR_SIGNATURES)), id="for a person"),
    pytest.param(SealOf(statements=_statement(b"\x30\x05\x30")), id="truncated statements"),
    pytest.param(SealOf(statements=_statement(b"")), id="empty statements"),
    pytest.param(
        SealOf(statements=_statement(der(0x30, der(0x30, b"\x06\x00")))), id="an empty identifier"
    ),
    pytest.param(
        SealOf(statements=_statement(der(0x30, *[der(0x30, oid(COMPLIANCE))] * 2))),
        id="a statement twice",
    ),
    pytest.param(SealOf(usage=["key_encipherment"]), id="a key that may not sign"),
    pytest.param(SealOf(dated=(NOW - YEAR, NOW - 1)), id="expired"),
    pytest.param(SealOf(dated=(NOW + 1, NOW + YEAR)), id="not yet valid"),
    pytest.param(
        SealOf(by=Issued(eu_issuing().certificate, issuing().key)), id="signed by another key"
    ),
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_refuses_a_seal(european: Server, wrong: SealOf) -> None:
    """One wrong thing at a time; twice, for the second answer comes from memory."""
    chain = seal(wrong), eu_issuing(), eu_root()
    for _ in range(2):
        await refused(european, grant(*chain), Reason.CERTIFICATE_INVALID)


CHAINS: list[Any] = [
    pytest.param(lambda: (good_seal(),), id="the leaf alone"),
    pytest.param(lambda: (good_seal(), eu_root()), id="the issuer left out"),
    pytest.param(lambda: (eu_issuing(), good_seal(), eu_root()), id="order shuffled"),
    pytest.param(lambda: (seal(SealOf(by=issuing())), issuing(), root()), id="Norwegian anchor"),
    pytest.param(
        lambda: (seal(SealOf(by=authority("mixed", root()))), authority("mixed", root()), root()),
        id="a path of one's own to a Norwegian anchor",
    ),
    pytest.param(lambda: (seal(SealOf(by=eu_root())),), id="the leaf alone under the anchor"),
]


@pytest.mark.parametrize("chain", CHAINS)
async def test_refuses_a_chain(european: Server, chain: Callable[[], tuple[Issued, ...]]) -> None:
    """x5c must hold the whole chain, and lead to a European anchor."""
    await refused(european, grant(*chain()), Reason.CERTIFICATE_INVALID)


async def test_a_european_anchor_opens_no_norwegian_client(european: Server) -> None:
    """A certificate under a European anchor that names a Norwegian organisation stays a seal."""
    forged = seal(SealOf(name=(*_without(ORG_ID), (ORG_ID, f"NTRNO-{CONSUMER}"))))
    chain = forged, eu_issuing(), eu_root()
    claims = claims_of(await european.post(grant(*chain, iss="keyless")))

    assert claims["client_id"].startswith("eidas-")
    assert claims["consumer"]["authority"] == "etsi-en-319-412"
    await refused(
        european, grant(*chain, iss="keyless", scope="skatt:open"), Reason.SCOPE_NOT_ON_CLIENT
    )


async def test_a_norwegian_certificate_goes_the_norwegian_way(european: Server) -> None:
    """With a registered `iss` as always; without one there is no such client."""
    own: dict[str, Any] = {"scope": "skatt:open", "signed_by": "leaf"}
    claims = claims_of(await european.post(grant(enterprise(), iss="keyless", **own)))
    assert claims["client_amr"] == "virksomhetssertifikat"
    await refused(european, grant(enterprise(), issuing(), **own), Reason.CLIENT_UNKNOWN)
    await refused(european, grant(enterprise(), iss="consumer", **own), Reason.KEY_ID_MISSING)


async def test_an_authority_that_is_trusted_as_both(start: Starter, tmp_path: Path) -> None:
    """A registered `iss` makes it an enterprise certificate, any other a seal; never a mix."""
    folder = european_trust(tmp_path, issuing())
    server = await start(sections=sections(), trust=folder)
    chain, signed_by = (enterprise(), issuing()), "leaf"

    registered = await server.post(
        grant(*chain, iss="keyless", scope="skatt:open", signed_by=signed_by)
    )
    assert claims_of(registered)["client_amr"] == "virksomhetssertifikat"
    sealed = claims_of(await server.post(grant(*chain, signed_by=signed_by)))
    assert sealed["client_amr"] == "CForESeal"
    assert sealed["consumer"]["ID"] == f"NTRNO-{CONSUMER}"


CLAIMS = [
    pytest.param({"scope": "skatt:open"}, Reason.SCOPE_NOT_ON_CLIENT, id="not for Europeans"),
    pytest.param({"scope": "skatt:eu skatt:open"}, Reason.SCOPE_NOT_ON_CLIENT, id="one of two"),
    pytest.param({"scope": "skatt:eu.old"}, Reason.SCOPE_NOT_ON_CLIENT, id="not active"),
    pytest.param({"scope": "skatt:eu.none"}, Reason.SCOPE_NOT_ON_CLIENT, id="no such scope"),
    pytest.param({"consumer_org": CONSUMER}, Reason.CLAIM_INVALID, id="consumer_org"),
    pytest.param({"iss_onbehalfof": "x"}, Reason.ON_BEHALF_OF_INVALID, id="iss_onbehalfof"),
    pytest.param(
        {"authorization_details": [{"type": "urn:altinn:systemuser"}]},
        Reason.DETAILS_TYPE_UNKNOWN,
        id="authorization_details",
    ),
    pytest.param({"aud": "https://other.example/"}, Reason.AUDIENCE_INVALID, id="aud"),
    pytest.param({"exp": NOW}, Reason.GRANT_EXPIRED, id="expired"),
    pytest.param({"signed_by": "thief"}, Reason.SIGNATURE_INVALID, id="another key"),
    pytest.param({"header": {"kid": "x"}}, Reason.CLIENT_UNKNOWN, id="kid beside x5c"),
    pytest.param({"header": {"x5c": "MIIB"}}, Reason.X5C_MALFORMED, id="a string"),
    pytest.param({"header": {"x5c": ["AAAA"]}}, Reason.X5C_MALFORMED, id="no certificate"),
    pytest.param(
        {"header": {"x5c": [*x5c(good_seal()), "AAAA"]}}, Reason.X5C_MALFORMED, id="rest unreadable"
    ),
]


@pytest.mark.parametrize(("changes", "reason"), CLAIMS)
async def test_refuses_a_grant(european: Server, changes: dict[str, Any], reason: Reason) -> None:
    """The rest of the line is the same for everyone."""
    await refused(european, grant(**changes), reason)


async def test_the_owner_s_lifetime_counts(european: Server) -> None:
    """at_max_age of the scope, as for every client."""
    claims = claims_of(await european.post(grant(scope="skatt:eu.brief skatt:eu")))

    assert claims["exp"] - claims["iat"] == 30


async def test_a_sealed_grant_is_spent_whatever_iss_it_names(european: Server) -> None:
    """The certificate names the grant: the same jti under another iss is the same grant."""
    assert (await european.post(grant(jti="once"))).is_success
    await refused(european, grant(jti="once", iss="another"), Reason.GRANT_SPENT)
    other = seal(SealOf(key="other seal"))
    assert (
        await european.post(grant(other, eu_issuing(), jti="once", signed_by="other seal"))
    ).is_success


async def test_without_european_anchors_no_seal_is_accepted(start: Starter, tmp_path: Path) -> None:
    """An empty folder, or none, is the same: nobody but registered clients."""
    folder = european_trust(tmp_path)
    for pem in (folder / "eu").glob("*.pem"):
        pem.unlink()
    server = await start(sections=sections(), trust=folder)

    await refused(server, grant(), Reason.CLIENT_UNKNOWN)
    await refused(server, grant(iss="keyless"), Reason.CERTIFICATE_INVALID)


async def test_the_seal_is_in_the_audit(european: Server, tmp_path: Path) -> None:
    """Issuer, serial number, validity and fingerprint, as for every certificate."""
    assert (await european.post(grant())).is_success

    entry = json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])
    certificate = good_seal().certificate
    assert entry["consumer"] == IDENTIFIER
    assert entry["client_amr"] == "QCForESeal"
    assert entry["certificate_issuer"] == certificate.issuer.rfc4514_string()
    assert entry["certificate_serial_number"] == str(certificate.serial_number)
    assert len(entry["revocation_evidence"]) == 2


async def test_an_expired_seal_is_not_remembered_as_good(european: Server) -> None:
    """The verdict's life ends with the certificate's, to the second."""
    brief = seal(SealOf(dated=(NOW - DAY, NOW + 5)))
    times: dict[str, Any] = {"iat": NOW + 5, "exp": NOW + 60}
    assert (await european.post(grant(brief, eu_issuing()))).is_success
    european.clock.now = NOW + 5
    assert (await european.post(grant(brief, eu_issuing(), **times))).is_success
    european.clock.now = NOW + 6
    await refused(european, grant(brief, eu_issuing(), **times), Reason.CERTIFICATE_INVALID)


async def test_where_lists_lie_is_learned_from_the_seals(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody configures the lists of all of Europe: the first caller waits, then lists decide.

    A real list, over HTTP, under the strictest policy; and it is kept over a restart.
    """
    lists = {"revoked": [SEALED[1]]}
    at = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _publisher(lists))
    threading.Thread(target=at.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{at.server_port}"
    issuer = authority("learned", eu_root(), path_length=0, add=[(_points(f"{url}/root"), False)])
    good, bad = (seal(SealOf(by=issuer, crl=f"{url}/learned", serial=number)) for number in SEALED)
    folder = european_trust(tmp_path)
    strict = (folder / "trust.toml").read_text().replace('without_source = "accept"', "")
    (folder / "trust.toml").write_text(strict + "private_addresses = true\n")
    monkeypatch.setattr("maskinporten.revocation.POLL", 3600)
    server = await start(sections=sections(), trust=folder, revocation=tmp_path / "lists")

    await refused(server, grant(good, issuer), Reason.TEMPORARILY_AWAY)
    await server.services.revocation.refresh()
    assert (await server.post(grant(good, issuer))).is_success
    await refused(server, grant(bad, issuer), Reason.CERTIFICATE_INVALID)
    at.shutdown()
    at.server_close()
    again = await start(sections=sections(), trust=folder, revocation=tmp_path / "lists")
    assert (await again.post(grant(good, issuer))).is_success
    await refused(again, grant(bad, issuer), Reason.CERTIFICATE_INVALID)


async def test_a_list_that_cannot_be_had_is_not_awaited_for_ever(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a minute the caller hears 503, then what the policy says of silence."""
    nowhere = seal(SealOf(by=eu_issuing(), crl="http://127.0.0.1:1/nowhere"))
    folder = european_trust(tmp_path, eu_issuing())
    toml = folder / "trust.toml"
    toml.write_text(toml.read_text().replace('without_source = "accept"', ""))
    monkeypatch.setattr("maskinporten.revocation.POLL", 3600)
    server = await start(sections=sections(), trust=folder, revocation=tmp_path / "lists")

    await refused(server, grant(nowhere, eu_issuing()), Reason.TEMPORARILY_AWAY)
    await server.services.revocation.refresh()
    times: dict[str, Any] = {"iat": NOW + 59, "exp": NOW + 100}
    server.clock.now = NOW + 59
    await refused(server, grant(nowhere, eu_issuing(), **times), Reason.TEMPORARILY_AWAY)
    server.clock.now = NOW + 60
    await refused(server, grant(nowhere, eu_issuing(), **times), Reason.CERTIFICATE_INVALID)


SEALED = (1001, 1002)  # serial numbers: one in order, one revoked


def _points(url: str) -> x509.CRLDistributionPoints:
    names = [x509.UniformResourceIdentifier(url)]
    return x509.CRLDistributionPoints([x509.DistributionPoint(names, None, None, None)])


def _publisher(lists: dict[str, list[int]]) -> type[http.server.BaseHTTPRequestHandler]:
    made = {
        "/root": pki.sign_crl(eu_root(), [], NOW),
        "/learned": pki.sign_crl(
            authority("learned", eu_root()), [(n, NOW) for n in lists["revoked"]], NOW
        ),
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        """Two lists."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(made[self.path])

        def log_message(self, *_: Any) -> None:
            """Silence."""

    return Handler


def test_the_two_stores_share_nothing(tmp_path: Path) -> None:
    """The folder `eu` adds nothing to what an enterprise certificate may lead to."""
    from maskinporten.trust import read_trust  # noqa: PLC0415 - for this test only

    trust = read_trust(european_trust(tmp_path), "test")
    norwegian: Authorities = trust.store.authorities
    assert {link.der for link in norwegian.anchors} == {root().der}
    assert {link.der for link in trust.seals.authorities.anchors} == {eu_root().der}
    assert trust.seals.authorities.intermediates == ()
