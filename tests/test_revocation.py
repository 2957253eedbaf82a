"""Revocation: attack 22 and 36, the policies on both sides of their bounds, and the background."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx

from maskinporten import pki
from maskinporten.domain.certificate import read_leaf, verify_enterprise
from maskinporten.domain.link import Invalid, read_link
from maskinporten.domain.path import Path as CertificatePath
from maskinporten.domain.revocation import (
    Evidence,
    RevocationList,
    RevocationPolicy,
    WhenStale,
    authority_id,
    read_crl,
    read_ocsp,
    verify_not_revoked,
)
from maskinporten.errors import Reason, Refused
from maskinporten.pki import DAY, Issued
from maskinporten.revocation import Revocation
from maskinporten.trust import Authority
from tests.chains import enterprise, issuing, root, trust, trust_folder, x5c
from tests.conftest import Starter
from tests.web.test_token import refused
from tests.world import ABSENT, NOW, Clock, assertion, private_key

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


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]"])
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
