"""Revocation: attack 22 and 36, the policies on both sides of their bounds, and the background."""

import asyncio
import gzip
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from cryptography import x509
from cryptography.x509.ocsp import load_der_ocsp_response
from cryptography.x509.oid import ExtendedKeyUsageOID

from maskinporten import pki
from maskinporten.domain.certificate import read_leaf, verify_enterprise
from maskinporten.domain.link import Invalid, read_link
from maskinporten.domain.path import Path as CertificatePath
from maskinporten.domain.revocation import (
    RETRY,
    CertificateStatus,
    Evidence,
    RevocationList,
    RevocationPolicy,
    WhenStale,
    authority_id,
    next_fetch,
    read_crl,
    read_ocsp,
    verify_not_revoked,
)
from maskinporten.errors import Reason, Refused
from maskinporten.issuer_folder import make_issuer_folder, serve_issuer_folder
from maskinporten.pki import DAY, Issued
from maskinporten.revocation import Revocation
from maskinporten.revocation_folder import folder_of_evidence
from maskinporten.trust import Authority
from tests.chains import enterprise, issuing, root, trust, trust_folder, x5c
from tests.conftest import Starter
from tests.web.test_token import refused
from tests.world import (
    ABSENT,
    CONSUMER,
    NOW,
    Clock,
    assertion,
    private_key,
    running,
    settings,
)

LIST = "http://crl.example.no/issuing.crl"
RESPONDER = "http://ocsp.example.no/"
STRICT = RevocationPolicy(WhenStale.REFUSE, 0, accept_without_source=False)
LINK = read_link(issuing().der)
ISSUING = authority_id(LINK)


def serial(issued: Issued) -> int:
    """The certificate's serial number."""
    return issued.certificate.serial_number


def crl(*revoked: Issued, at: int = NOW, by: Issued | None = None, lifetime: int = DAY) -> bytes:
    """The issuing authority's list."""
    entries = [(serial(issued), at) for issued in revoked]
    return pki.sign_crl(by or issuing(), entries, at, lifetime=lifetime)


def path() -> CertificatePath:
    """From the world's leaf to its root."""
    return verify_enterprise(read_leaf((enterprise().der,)), trust(), NOW).path


def evidence(*lists: bytes) -> Evidence:
    """Fresh lists of the root, and these of the issuing authority."""
    root_link = read_link(root().der)
    of_root = read_crl(pki.sign_crl(root(), [], NOW, lifetime=3650 * DAY), root_link, NOW)
    found: dict[bytes, tuple[RevocationList, ...]] = {authority_id(root_link): (of_root,)}
    found[ISSUING] = tuple(read_crl(der, LINK, NOW) for der in lists)
    return Evidence(found, {}, frozenset(found))


def test_silence_of_a_fresh_list_holds_until_its_promise() -> None:
    """And names the evidence, for the audit."""
    standing = verify_not_revoked(path(), evidence(crl()), STRICT, NOW)

    assert standing.until == NOW + DAY
    assert [name.partition(":")[0] for name in standing.evidence] == ["crl", "crl"]


def test_revoked() -> None:
    """Attack 22: refused under every policy, however old the list that says so."""
    for when in WhenStale:
        policy = RevocationPolicy(when, 10 * DAY, accept_without_source=True)
        for now in (NOW, NOW + 9 * DAY):
            with pytest.raises(Refused, match="revoked") as caught:
                verify_not_revoked(path(), evidence(crl(enterprise())), policy, now)
            assert caught.value.reason is Reason.CERTIFICATE_INVALID


def test_a_revoked_intermediate() -> None:
    """An authority may be revoked like anyone else."""
    root_link = read_link(root().der)
    of_root = read_crl(pki.sign_crl(root(), [(serial(issuing()), NOW)], NOW), root_link, NOW)
    known = Evidence({authority_id(root_link): (of_root,)})
    with pytest.raises(Refused, match="revoked"):
        verify_not_revoked(path(), known, RevocationPolicy(accept_without_source=True), NOW)


GRACE = RevocationPolicy(WhenStale.GRACE, 100)
BOUNDS = [
    pytest.param(STRICT, NOW + DAY, True, id="refuse: at the promised second"),
    pytest.param(STRICT, NOW + DAY + 1, False, id="refuse: a second after"),
    pytest.param(GRACE, NOW + DAY + 100, True, id="grace: at its end"),
    pytest.param(GRACE, NOW + DAY + 101, False, id="grace: a second after"),
    pytest.param(RevocationPolicy(WhenStale.ACCEPT), NOW + 99 * DAY, True, id="accept: years"),
]


@pytest.mark.parametrize(("policy", "now", "holds"), BOUNDS)
def test_stale_list(policy: RevocationPolicy, now: int, *, holds: bool) -> None:
    """Attack 22: a stale list is the operator's policy, on both sides of its bound."""
    if holds:
        verify_not_revoked(path(), evidence(crl()), policy, now)
    else:
        with pytest.raises(Refused, match="stale"):
            verify_not_revoked(path(), evidence(crl()), policy, now)


@pytest.mark.parametrize("accepted", [True, False])
def test_an_authority_that_publishes_nothing_we_know_of(*, accepted: bool) -> None:
    """That is the operator's decision too, apart from staleness."""
    policy = RevocationPolicy(WhenStale.REFUSE, 0, accept_without_source=accepted)
    if accepted:
        verify_not_revoked(path(), Evidence(), policy, NOW)
    else:
        with pytest.raises(Refused, match="no source"):
            verify_not_revoked(path(), Evidence(), policy, NOW)


LISTS: list[Any] = [
    pytest.param(lambda: b"\x30\x00", "unreadable", id="not a list"),
    pytest.param(lambda: crl(by=root()), "another issuer", id="list of another issuer"),
    pytest.param(
        lambda: crl(by=Issued(issuing().certificate, private_key("thief"))),
        "signature does not hold",
        id="list signed by another key",
    ),
    pytest.param(lambda: crl(at=NOW + DAY), "future", id="list of the future"),
]


@pytest.mark.parametrize(("make", "detail"), LISTS)
def test_refuses_a_list(make: Any, detail: str) -> None:
    """Attack 22: only the issuer's own word counts."""
    with pytest.raises(Invalid, match=detail):
        read_crl(make(), LINK, NOW)


def ocsp_answer(*revoked: Issued, by: Issued | None = None) -> Any:
    """A responder for the world's leaf."""

    def answer(request: httpx.Request) -> httpx.Response:
        entries = [(serial(issued), NOW) for issued in revoked]
        certificates = [enterprise().certificate]
        der = pki.answer_ocsp(by or issuing(), request.content, certificates, entries, NOW)
        return httpx.Response(200, content=der)

    return answer


RESPONDING: list[Any] = [(pki.key_usage("digital_signature"), True)]


def delegate(
    *extensions: Any, by: Issued | None = None, dated: tuple[int, int] = (NOW - DAY, NOW + DAY)
) -> Issued:
    """A responder's certificate; the right to answer is in `extensions`."""
    by = by or issuing()
    key = private_key("responder")
    certificate = pki.certify(
        pki.ca_name("responder"), key, (by.certificate.subject, by.key), dated, list(extensions)
    )
    return Issued(certificate, key)


MAY_ANSWER = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False)
DELEGATES: list[Any] = [
    pytest.param(lambda: delegate(MAY_ANSWER, *RESPONDING), None, id="with the right to answer"),
    pytest.param(lambda: delegate(*RESPONDING), "without the right", id="without it"),
    pytest.param(
        lambda: delegate((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)),
        "without the right",
        id="for other purposes",
    ),
    pytest.param(
        lambda: delegate(MAY_ANSWER, (pki.key_usage("key_encipherment"), True)),
        "without the right",
        id="a key that may not sign",
    ),
    pytest.param(lambda: delegate(MAY_ANSWER, dated=(NOW - DAY, NOW - 1)), "expired", id="expired"),
    pytest.param(lambda: delegate(MAY_ANSWER, dated=(NOW - DAY, NOW)), None, id="last second"),
    pytest.param(lambda: delegate(MAY_ANSWER, by=root()), "another issuer", id="of the root"),
    pytest.param(
        lambda: delegate(MAY_ANSWER, by=Issued(issuing().certificate, private_key("thief"))),
        "does not hold",
        id="certified by another key",
    ),
]


@pytest.mark.parametrize(("make", "detail"), DELEGATES)
def test_a_delegated_responder(make: Any, detail: str | None) -> None:
    """RFC 6960 section 4.2.2.2: only whom the issuer itself gave that right."""
    found, responder = [enterprise().certificate], make()
    der = pki.answer_ocsp(issuing(), _ocsp_request(), found, [], NOW, delegate=responder)
    if detail is None:
        answer = read_ocsp(der, read_link(enterprise().der), LINK, NOW)
        assert (answer.revoked, answer.responder) == (False, serial(responder))
        signature = load_der_ocsp_response(der).signature
        forged = der.replace(signature, signature[::-1])
        with pytest.raises(Invalid, match="does not hold"):
            read_ocsp(forged, read_link(enterprise().der), LINK, NOW)
    else:
        with pytest.raises(Invalid, match=detail):
            read_ocsp(der, read_link(enterprise().der), LINK, NOW)


@pytest.mark.parametrize("revoked", [False, True])
def test_a_revoked_responder_vouches_for_nobody(*, revoked: bool) -> None:
    """Its silence is worth nothing; what it says against someone still counts."""
    responder = delegate(MAY_ANSWER)
    leaf, entries = enterprise(), [(serial(enterprise()), NOW)]
    found = [leaf.certificate]

    def known(entries: list[tuple[int, int]]) -> Evidence:
        der = pki.answer_ocsp(issuing(), _ocsp_request(), found, entries, NOW, delegate=responder)
        status = read_ocsp(der, read_link(leaf.der), LINK, NOW)
        stale = crl(*[responder] * revoked, at=NOW - 2 * DAY)
        lists = evidence(stale).lists
        return Evidence(lists, {(status.authority, status.serial): status}, frozenset(lists))

    if revoked:
        with pytest.raises(Refused, match="stale"):
            verify_not_revoked(path(), known([]), STRICT, NOW)
    else:
        assert verify_not_revoked(path(), known([]), STRICT, NOW).evidence[0][:4] == "ocsp"
    with pytest.raises(Refused, match="revoked"):
        verify_not_revoked(path(), known(entries), STRICT, NOW)


OCSP_BOUNDS = [
    pytest.param(NOW - pki.DAY + 1, NOW, True, id="a second before its promise"),
    pytest.param(NOW - pki.DAY, NOW, True, id="at its promise"),
    pytest.param(NOW - pki.DAY - 1, NOW, False, id="a second after"),
]


@pytest.mark.parametrize(("at", "now", "holds"), OCSP_BOUNDS)
def test_a_stale_answer(at: int, now: int, *, holds: bool) -> None:
    """An old answer, played again, is worth what it promised and no more."""
    found = [enterprise().certificate]
    der = pki.answer_ocsp(issuing(), _ocsp_request(), found, [], at)
    status = read_ocsp(der, read_link(enterprise().der), LINK, now)
    lists = {k: v for k, v in evidence().lists.items() if k != ISSUING}
    known = Evidence(lists, {(ISSUING, status.serial): status}, frozenset({*lists, ISSUING}))
    if holds:
        verify_not_revoked(path(), known, STRICT, now)
    else:
        with pytest.raises(Refused, match="stale"):
            verify_not_revoked(path(), known, STRICT, now)


def test_an_answer_of_the_future() -> None:
    """Within the issuer's skew, and a second beyond it."""
    found = [enterprise().certificate]
    for at, holds in ((NOW + 300, True), (NOW + 301, False)):
        der = pki.answer_ocsp(issuing(), _ocsp_request(), found, [], at)
        if holds:
            assert not read_ocsp(der, read_link(enterprise().der), LINK, NOW).revoked
        else:
            with pytest.raises(Invalid, match="future"):
                read_ocsp(der, read_link(enterprise().der), LINK, NOW)


def test_an_answer_for_a_namesake_of_the_issuer() -> None:
    """RFC 6960 section 4.1.1: the issuer is named by its key as well; a serial alone is nobody."""
    namesake = Issued(issuing().certificate, private_key("namesake"))
    twin = pki.make_issuing_authority(root(), "Issuing", NOW - DAY, private_key("namesake"))
    assert twin.certificate.subject == namesake.certificate.subject
    found = [enterprise().certificate]
    der = pki.answer_ocsp(twin, _ocsp_request(), found, [], NOW, delegate=issuing())
    with pytest.raises(Invalid, match="another certificate"):
        read_ocsp(der, read_link(enterprise().der), LINK, NOW)


NEXT = [
    pytest.param(0, 1000, 100, 100, id="the interval comes first"),
    pytest.param(0, 1000, 799, 799, id="a second before the last fifth"),
    pytest.param(0, 1000, 800, 800, id="both at once"),
    pytest.param(0, 1000, 900, 800, id="the last fifth comes first"),
    pytest.param(0, 300, 900, 240, id="a list of five minutes"),
    pytest.param(0, 75, 900, RETRY, id="never more often than each minute"),
    pytest.param(-1000, 100, 900, RETRY, id="within the last fifth: each minute"),
    pytest.param(-1000, -10, 900, RETRY, id="past its promise: each minute"),
    pytest.param(0, -10, 30, 30, id="unless the interval is shorter"),
]


@pytest.mark.parametrize(("this", "following", "refresh", "due"), NEXT)
def test_when_to_fetch_again(this: int, following: int, refresh: int, due: int) -> None:
    """Fetched at second zero of this table: by interval, and well before the promised update."""
    status = CertificateStatus(b"", 1, False, NOW + this, NOW + following, "")

    assert next_fetch(NOW, status, refresh) == NOW + due
    assert next_fetch(NOW, None, refresh) == NOW + refresh


@pytest.mark.usefixtures("public")
async def test_a_list_is_fetched_well_before_its_next_update(
    tmp_path: Path, web: respx.MockRouter
) -> None:
    """With an interval of a week, a list of a day is fetched anew after 19 hours."""
    route = web.get(LIST).respond(content=crl())
    clock = Clock()
    worker = Revocation((publisher(),), tmp_path, clock, lambda _: None, 7 * DAY)
    await worker.refresh()
    clock.now = NOW + DAY * 4 // 5 - 1
    await worker.refresh()
    assert route.call_count == 1
    clock.now += 1
    await worker.refresh()
    assert route.call_count == 2
    clock.now += RETRY
    await worker.refresh()
    assert route.call_count == 3
    worker.close()


@pytest.mark.parametrize(
    "url", ["http://[", "http://", "http://127.0.0.1:99999/", f"http://{'a' * 300}/", "http:///x"]
)
async def test_an_address_that_is_none_disturbs_no_other(tmp_path: Path, url: str) -> None:
    """Addresses are learned from certificates, and some certificates hold strange ones."""
    issuers = make_issuer_folder(tmp_path / "pki", NOW)
    at = serve_issuer_folder(issuers, ("127.0.0.1", 0), lambda: NOW)
    link = read_link(issuers.issuing.der)
    urls = (url, f"http://127.0.0.1:{at.server_port}/issuing.crl")
    place = Authority(Path("issuing.pem"), link, False, None, urls)
    worker = follower(tmp_path, [], Clock(), authority=place, private_addresses=True)
    await worker.refresh()
    at.shutdown()
    at.server_close()

    odd, good = worker.report()
    assert odd["last_error"]
    assert good["last_error"] is None
    assert worker.evidence.lists[authority_id(link)]
    worker.close()


@pytest.mark.usefixtures("public")
async def test_the_next_responder_is_asked_where_the_first_is_down(
    tmp_path: Path, web: respx.MockRouter
) -> None:
    """An unreadable or strange answer is no answer; nor does it disturb the rest."""
    first = web.post("http://down.example.no/").respond(content=b"<html>")
    second = web.post(RESPONDER).mock(side_effect=ocsp_answer())
    place = publisher(ocsp=("http://down.example.no/", RESPONDER))
    web.get(LIST).respond(content=crl())
    worker = follower(tmp_path, [], Clock(), authority=place)
    worker.watch(path())
    await worker.refresh()

    assert (first.call_count, second.call_count) == (1, 1)
    assert not worker.evidence.statuses[ISSUING, serial(enterprise())].revoked
    assert worker.evidence.lists[ISSUING]
    worker.close()


async def test_ocsp_of_the_test_pki_end_to_end(start: Starter, tmp_path: Path) -> None:
    """`pki serve` answers, a server under the strictest policy believes it, then revokes by it."""
    issuers = make_issuer_folder(tmp_path / "pki", NOW)
    at = serve_issuer_folder(issuers, ("127.0.0.1", 0), lambda: NOW)
    url = f"http://127.0.0.1:{at.server_port}"
    issued = issuers.issue(CONSUMER, NOW, url=url, key=private_key("ocsp"))
    other = issuers.issue(CONSUMER, NOW, url=url, key=private_key("other ocsp"))
    folder = tmp_path / "trust" / "test"
    issuers.write_trust(folder, url)
    text = (folder / "trust.toml").read_text()
    without_list = text.replace(f'crl = ["{url}/issuing.crl"]\n', "")
    strict = without_list.replace('"accept"', '"refuse"')
    assert "/ocsp" in strict
    assert "issuing.crl" not in strict
    (folder / "trust.toml").write_text(strict)
    server = await start(trust=folder, revocation=tmp_path / "lists", revocation_refresh=1)
    revocation = server.services.revocation

    def grant(key: str, certificate: Issued) -> str:
        header = {"kid": ABSENT, "x5c": x5c(certificate)}
        return assertion("keyless", signed_by=key, header=header, scope="skatt:open")

    await refused(server, grant("ocsp", issued), Reason.CERTIFICATE_INVALID)
    await refused(server, grant("other ocsp", other), Reason.CERTIFICATE_INVALID)
    await revocation.refresh()
    for key, certificate in (("ocsp", issued), ("other ocsp", other)):
        answer = await server.post(grant(key, certificate))
        assert answer.status_code == 200, answer.text
    entry = json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])
    assert [name.partition(":")[0] for name in entry["revocation_evidence"]] == ["ocsp", "crl"]
    issuers.revoke(issued.certificate, NOW)
    server.clock.now = NOW + 2
    await revocation.refresh()
    await refused(server, grant("ocsp", issued), Reason.CERTIFICATE_INVALID)
    assert (await server.post(grant("other ocsp", other))).is_success
    at.shutdown()
    at.server_close()


def test_openssl_understands_the_test_responder(tmp_path: Path) -> None:
    """Another program asks, in its own way, and finds its own question answered."""
    issuers = make_issuer_folder(tmp_path / "pki", int(time.time()))
    at = serve_issuer_folder(issuers, ("127.0.0.1", 0), time.time)
    issued = issuers.issue(CONSUMER, int(time.time()), key=private_key("ocsp"))
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(pki.chain_pem(issued.certificate))
    chain = tmp_path / "chain.pem"
    chain.write_bytes(pki.chain_pem(issuers.issuing.certificate, issuers.root.certificate))

    def ask() -> str:
        done = subprocess.run(
            ["openssl", "ocsp", "-issuer", tmp_path / "pki/issuing.pem", "-cert", leaf, "-CAfile",
             chain, "-url", f"http://127.0.0.1:{at.server_port}/ocsp"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    said = ask()
    assert "Response verify OK" in said
    assert "leaf.pem: good" in said
    issuers.revoke(issued.certificate, int(time.time()))
    assert "leaf.pem: revoked" in ask()
    at.shutdown()
    at.server_close()


@pytest.mark.usefixtures("public")
async def test_the_page_tells_how_fresh_everything_is(
    start: Starter, tmp_path: Path, web: respx.MockRouter
) -> None:
    """For each list: this and next update, the last fetch, the last error; on every worker."""
    fingerprint = publisher().sha256
    toml = {"authority": f'[[authority]]\nsha256 = "{fingerprint}"\ncrl = ["{LIST}"]\n'}
    changes: dict[str, Any] = {
        "trust": trust_folder(tmp_path, toml=toml),
        "revocation": tmp_path / "lists",
    }
    route = web.get(LIST).respond(503)
    servers = [await start(**changes), await start(**changes)]

    async def pages() -> list[dict[str, Any]]:
        for server in servers:
            await server.services.revocation.refresh()
        answers = [await server.http.get("/revocation") for server in servers]
        assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}
        return [answer.json()["sources"][0] for answer in answers]

    first, second = await pages()
    assert first == second
    assert first["authority_sha256"] == fingerprint
    assert (first["kind"], first["url"]) == ("crl", LIST)
    assert (first["this_update"], first["next_update"], first["last_fetch"]) == (None, None, None)
    assert (first["last_error"], first["last_error_at"]) == ("Unfetched: status 503", NOW)
    assert first["next_fetch"] == NOW + RETRY
    route.respond(content=crl())
    for server in servers:
        server.clock.now = NOW + RETRY
    for row in await pages():
        assert (row["this_update"], row["next_update"]) == (NOW, NOW + DAY)
        assert (row["last_fetch"], row["last_error"]) == (NOW + RETRY, None)
        assert row["next_fetch"] == NOW + RETRY + 900


async def test_evidence_lies_beside_a_sqlite_database(
    start: Starter, tmp_path: Path, web: respx.MockRouter
) -> None:
    """So that a restart without network changes nothing, though nobody set a folder."""
    fingerprint = publisher().sha256
    toml = {
        "private_addresses": "true",
        "authority": f'[[authority]]\nsha256 = "{fingerprint}"\ncrl = ["{LIST}"]\n',
    }
    folder = trust_folder(tmp_path, toml=toml)
    web.get(LIST).respond(content=crl())
    async with running(tmp_path, trust=folder) as server:
        await server.services.revocation.refresh()
    web.get(LIST).mock(side_effect=httpx.ConnectError("down"))
    again = await start(trust=folder)

    assert again.services.revocation.evidence.lists[ISSUING]
    assert (tmp_path / "registry.db-revocation").is_dir()
    assert folder_of_evidence(settings(tmp_path, trust=None)) is None
    postgres = settings(tmp_path, trust=folder, database_url="postgresql://u:p@h/d")
    assert folder_of_evidence(postgres) is None


def test_ocsp_answers_are_the_issuer_s_or_nobody_s() -> None:
    """RFC 6960: signed by the issuer, about this certificate, good or revoked."""
    leaf = read_link(enterprise().der)
    body = _ocsp_request()
    good = ocsp_answer()(httpx.Request("POST", RESPONDER, content=body)).content
    bad = ocsp_answer(enterprise())(httpx.Request("POST", RESPONDER, content=body)).content
    forged = good[:-2] + bytes([good[-2] ^ 1]) + good[-1:]
    of_root = ocsp_answer(by=root())(httpx.Request("POST", RESPONDER, content=body)).content

    assert not read_ocsp(good, leaf, LINK, NOW).revoked
    assert read_ocsp(bad, leaf, LINK, NOW).revoked
    with pytest.raises(Invalid, match="signature does not hold"):
        read_ocsp(forged, leaf, LINK, NOW)
    with pytest.raises(Invalid, match="signature does not hold"):
        read_ocsp(of_root, leaf, LINK, NOW)
    with pytest.raises(Invalid, match="another certificate"):
        read_ocsp(good, read_link(enterprise(name="other").der), LINK, NOW)


def _ocsp_request() -> bytes:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - for this test only
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415
    from cryptography.x509 import ocsp  # noqa: PLC0415

    builder = ocsp.OCSPRequestBuilder().add_certificate(
        enterprise().certificate, issuing().certificate, hashes.SHA256()
    )
    return builder.build().public_bytes(Encoding.DER)


def publisher(*, crl_urls: tuple[str, ...] = (LIST,), ocsp: tuple[str, ...] = ()) -> Authority:
    """The issuing authority, and where it publishes."""
    return Authority(Path("issuing.pem"), LINK, False, None, crl_urls, ocsp)


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name leads to one public address."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("198.41.0.4", 80))]

    async def lookup(*_: object, **__: object) -> object:
        return found

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", lookup)


@pytest.fixture
def web() -> Iterator[respx.MockRouter]:
    """The network, played."""
    with respx.mock(assert_all_called=False) as router:
        yield router


def follower(folder: Path, heard: list[Evidence], clock: Clock, **changes: Any) -> Revocation:
    """One worker's part."""
    authority = changes.pop("authority", None) or publisher()
    return Revocation((authority,), folder, clock, heard.append, 900, **changes)


@pytest.mark.usefixtures("public")
async def test_a_list_is_fetched_once_for_the_node_and_read_by_all(
    tmp_path: Path, web: respx.MockRouter
) -> None:
    """One worker holds the lock and fetches; the next list is fetched when it is due."""
    route = web.get(LIST).respond(content=crl())
    clock = Clock()
    heard: tuple[list[Evidence], list[Evidence]] = [], []
    workers = [follower(tmp_path, each, clock) for each in heard]
    for worker in workers:
        await worker.refresh()

    assert route.call_count == 1
    assert all(each[-1].lists[ISSUING][0].revoked == frozenset() for each in heard)
    clock.now += 899
    await workers[0].refresh()
    assert route.call_count == 1
    clock.now += 1
    route.respond(content=crl(enterprise(), at=NOW + 900))
    for worker in workers:
        await worker.refresh()
    for each in heard:
        assert each[-1].lists[ISSUING][0].revoked == {serial(enterprise())}
    for worker in workers:
        worker.close()


@pytest.mark.usefixtures("public")
async def test_what_was_fetched_survives_a_restart_without_network(
    tmp_path: Path, web: respx.MockRouter
) -> None:
    """The folder is the memory."""
    web.get(LIST).respond(content=crl())
    first = follower(tmp_path, [], Clock())
    await first.refresh()
    first.close()
    web.get(LIST).mock(side_effect=httpx.ConnectError("down"))
    second = follower(tmp_path, [], Clock())
    second.load()

    assert second.evidence.lists[ISSUING]
    second.close()


BAD_ANSWERS: list[Any] = [
    pytest.param(httpx.Response(500), id="500"),
    pytest.param(
        httpx.Response(302, headers={"location": "http://169.254.169.254/"}), id="a redirect"
    ),
    pytest.param(httpx.Response(200, content=b"<html>"), id="a web page"),
    pytest.param(httpx.ReadTimeout("slow"), id="slow"),
    pytest.param(httpx.Response(200, content=crl(by=root())), id="list of another issuer"),
    pytest.param(httpx.Response(200, content=crl(at=NOW - 60)), id="an older list"),
    pytest.param(
        httpx.Response(
            200,
            headers={"content-encoding": "gzip, gzip"},
            content=gzip.compress(gzip.compress(crl())),
        ),
        id="compressed twice, as a few octets that fill the memory",
    ),
]


@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("bad", BAD_ANSWERS)
async def test_a_bad_answer_does_not_replace_a_good_list(
    tmp_path: Path, web: respx.MockRouter, bad: Any
) -> None:
    """Attack 22: responder down, slow or lying; what we had stays, and we try again soon."""
    route = web.get(LIST).respond(content=crl(enterprise()))
    clock = Clock()
    worker = follower(tmp_path, [], clock)
    await worker.refresh()
    route.mock(**({"side_effect": bad} if isinstance(bad, Exception) else {"return_value": bad}))
    clock.now += 900
    await worker.refresh()
    await worker.refresh()

    assert worker.evidence.lists[ISSUING][0].revoked == {serial(enterprise())}
    assert route.call_count == 2
    clock.now += 60
    await worker.refresh()
    assert route.call_count == 3
    worker.close()


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.0.0.1", "169.254.169.254", "224.0.0.1", "[::1]"),
        *("[::ffff:10.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[2002:a00:1::1]"),
    ],
)
async def test_no_private_address_is_called(
    tmp_path: Path, web: respx.MockRouter, host: str
) -> None:
    """Attack 36: even a configured name may not lead inside, unless the profile says so."""
    url = f"http://{host}/list.crl"
    route = web.get(url).respond(content=crl())
    place = publisher(crl_urls=(url,))
    worker = follower(tmp_path, [], Clock(), authority=place)
    await worker.refresh()
    assert route.call_count == 0
    worker.close()
    allowed = follower(tmp_path, [], Clock(), authority=place, private_addresses=True)
    await allowed.refresh()
    assert route.call_count == 1
    allowed.close()


@pytest.mark.usefixtures("public")
async def test_responders_are_asked_about_certificates_in_use(
    tmp_path: Path, web: respx.MockRouter
) -> None:
    """OCSP, where an authority offers it: asked beforehand and again, never during a request."""
    route = web.post(RESPONDER).mock(side_effect=ocsp_answer())
    clock = Clock()
    heard: list[Evidence] = []
    place = publisher(crl_urls=(), ocsp=(RESPONDER,))
    worker = follower(tmp_path, heard, clock, authority=place)
    await worker.refresh()
    assert route.call_count == 0
    worker.watch(path())
    await worker.refresh()
    assert not heard[-1].statuses[ISSUING, serial(enterprise())].revoked
    route.mock(side_effect=ocsp_answer(enterprise()))
    clock.now += 900
    await worker.refresh()

    assert heard[-1].statuses[ISSUING, serial(enterprise())].revoked
    with pytest.raises(Refused, match="revoked"):
        verify_not_revoked(
            path(), heard[-1], RevocationPolicy(accept_without_source=True), int(clock())
        )
    worker.close()


async def test_a_revoked_certificate_stops_on_every_worker(
    start: Starter, tmp_path: Path, web: respx.MockRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load: every answer is a token or MP-120, and after a refresh only MP-120."""
    monkeypatch.setattr("maskinporten.revocation.POLL", 0.02)
    route = web.get(LIST).respond(content=crl())
    fingerprint = Authority(Path(), LINK, False, None).sha256
    toml = {
        "private_addresses": "true",
        "authority": f'[[authority]]\nsha256 = "{fingerprint}"\ncrl = ["{LIST}"]\n',
    }
    folder = trust_folder(tmp_path, toml=toml)
    changes: dict[str, Any] = {
        "trust": folder,
        "revocation": tmp_path / "lists",
        "revocation_refresh": 1,
    }
    workers = [await start(**changes), await start(**changes)]
    header = {"kid": ABSENT, "x5c": x5c(enterprise())}

    def grant() -> str:
        return assertion("keyless", signed_by="leaf", header=header, scope="skatt:open")

    await asyncio.sleep(0.1)
    for worker in workers:
        answer = await worker.post(grant())
        assert answer.status_code == 200, answer.text
    route.respond(content=crl(enterprise(), at=NOW + 1))
    for worker in workers:
        worker.clock.now = NOW + 2
    seen: list[set[int]] = []
    for _ in range(10):
        answers = await asyncio.gather(*(worker.post(grant()) for worker in workers * 4))
        seen.append({answer.status_code for answer in answers})
        await asyncio.sleep(0.02)

    assert set().union(*seen) <= {200, 400}
    for worker in workers:
        await refused(worker, grant(), Reason.CERTIFICATE_INVALID)
        metric = "maskinporten_revocation_list_until_seconds"
        worker.services.measure()
        label = f'authority="{fingerprint[:16]}"'
        assert worker.services.metrics.value(metric, label) == NOW + 1 + DAY
