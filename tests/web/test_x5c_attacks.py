"""Attacks 18 to 23 of the list, from the outside: each row a test of that name, over HTTP."""

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import respx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.x509.oid import NameOID

from maskinporten import pki
from maskinporten.domain import link, names, path
from maskinporten.domain.link import read_link
from maskinporten.domain.names import MAX_COMPARISONS
from maskinporten.domain.path import MAX_SIGNATURES
from maskinporten.errors import Reason
from maskinporten.pki import DAY, Issued
from maskinporten.trust import fingerprint
from tests.chains import (
    YEAR,
    Wrong,
    authority,
    enterprise,
    issuing,
    leaf,
    root,
    trust_folder,
    x5c,
)
from tests.conftest import Starter
from tests.domain.test_jwk import roca
from tests.seals import SCOPE, SealOf, eu_root, european_trust, seal
from tests.web.test_token import refused
from tests.web.test_x5c import grant
from tests.world import (
    CONSUMER,
    NOW,
    PROVIDER,
    Server,
    assertion,
    client,
    document,
    jwk,
    private_key,
    sign,
)

LIST: Final = "http://crl.example.no/issuing.crl"


@pytest.fixture
def certified(runner: asyncio.Runner, start: Starter, tmp_path: Path) -> Server:
    """A server that accepts the world's certificates."""
    folder = trust_folder(tmp_path)
    return runner.run(start(trust=folder, revocation=tmp_path / "lists"))


def audited(folder: Path) -> dict[str, Any]:
    """The audit's last line."""
    found: dict[str, Any] = json.loads((folder / "audit.jsonl").read_text().splitlines()[-1])
    return found


# Attack 18: what x5c may be.


def test_the_order_of_what_follows_the_leaf(runner: asyncio.Runner, certified: Server) -> None:
    """Shuffled order: the leaf first, and the rest in any order and twice, is the leaf alone."""
    for chain in ((root(), issuing()), (issuing(), issuing()), (enterprise(PROVIDER), root())):
        header = {"x5c": x5c(enterprise(), *chain)}
        assert runner.run(certified.post(grant(header=header))).is_success


async def test_an_authority_or_a_stranger_first(certified: Server) -> None:
    """Shuffled order: what stands first must have signed, and be no authority."""
    for first, reason in ((root(), Reason.CERTIFICATE_INVALID), (issuing(), None)):
        header = {"x5c": x5c(first, enterprise())}
        await refused(certified, grant(header=header), reason or Reason.CERTIFICATE_INVALID)
    header = {"x5c": x5c(enterprise(name="another"), enterprise())}
    await refused(certified, grant(header=header), Reason.SIGNATURE_INVALID)


async def test_ten_thousand_certificates(certified: Server) -> None:
    """Refused by their number, before any of them is read."""
    header = json.dumps({"alg": "RS256", "x5c": ["A"] * 10_000}, separators=(",", ":")).encode()
    claims = {"iss": "keyless", "scope": "skatt:open"}
    await refused(certified, sign(header, claims, private_key("leaf")), Reason.X5C_MALFORMED)


async def test_more_than_a_request_may_hold(certified: Server) -> None:
    """The body's bound comes first."""
    await refused(certified, grant(header={"x5c": ["AAAA"] * 10_000}), Reason.REQUEST_MALFORMED)


PEM: Final = pki.chain_pem(enterprise().certificate).decode()
SHAPES: list[Any] = [
    pytest.param(x5c(enterprise())[0], id="a string instead of an array"),
    pytest.param([PEM], id="PEM instead of DER"),
    pytest.param(["".join(PEM.splitlines()[1:-1]) + "\n"], id="a line break"),
    pytest.param([x5c(enterprise())[0].rstrip("=") + "-"], id="base64url"),
    pytest.param([*x5c(enterprise()), None], id="null in the array"),
    pytest.param({"0": x5c(enterprise())[0]}, id="an object"),
    pytest.param(x5c(*[enterprise()] * 7), id="seven certificates"),
    pytest.param([x5c(enterprise())[0] + "AAAA"], id="octets after the certificate"),
]


@pytest.mark.parametrize("value", SHAPES)
async def test_shapes(certified: Server, value: Any) -> None:
    """A string, PEM, too many: MP-123."""
    await refused(certified, grant(header={"x5c": value}), Reason.X5C_MALFORMED)


async def test_an_empty_object_identifier_in_a_mapping(certified: Server) -> None:
    """What cannot be read is MP-123 and never a fault of ours."""
    octets = bytes.fromhex("30063004060006 00".replace(" ", ""))
    mapping = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.33"), octets)
    header = {"x5c": x5c(leaf(Wrong(add=[(mapping, False)])))}
    await refused(certified, grant(header=header), Reason.X5C_MALFORMED)


# Attack 19: what the leaf may be. Attack 21: when.


def _subject(*attributes: tuple[Any, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])


ID = NameOID.ORGANIZATION_IDENTIFIER
LEAVES: list[Any] = [
    pytest.param(
        Wrong(add=[(x509.BasicConstraints(ca=True, path_length=None), True)]), id="CA as leaf"
    ),
    pytest.param(Wrong(without=[x509.KeyUsage]), id="missing key usage"),
    pytest.param(Wrong(add=[(pki.key_usage("key_encipherment"), True)]), id="wrong key usage"),
    pytest.param(Wrong(policies=["1.2.3"]), id="wrong policy OID"),
    pytest.param(Wrong(subject=_subject((NameOID.COMMON_NAME, "X"))), id="no organisation number"),
    pytest.param(
        Wrong(subject=_subject((NameOID.SERIAL_NUMBER, CONSUMER), (ID, f"NTRNO-{PROVIDER}"))),
        id="two organisation numbers",
    ),
    pytest.param(Wrong(dated=(NOW - DAY, NOW - 1)), id="expired leaf"),
    pytest.param(Wrong(dated=(NOW + 1, NOW + DAY)), id="not yet valid"),
    pytest.param(Wrong(signer=private_key("thief")), id="not signed by its issuer"),
    pytest.param(Wrong(issuer=pki.ca_name("Nobody")), id="issuer unknown"),
]


@pytest.mark.parametrize("wrong", LEAVES)
async def test_leaves(certified: Server, tmp_path: Path, wrong: Wrong) -> None:
    """MP-120; and the audit names the certificate that was refused, each time."""
    issued = leaf(wrong)
    for _ in range(2):
        await refused(certified, grant(header={"x5c": x5c(issued)}), Reason.CERTIFICATE_INVALID)
        entry = audited(tmp_path)
        assert entry["certificate_sha256"] == fingerprint(issued.der)
        assert entry["certificate_serial_number"] == str(issued.certificate.serial_number)


async def test_somebody_else_s_number(certified: Server) -> None:
    """MP-122, once the signature holds."""
    header = {"x5c": x5c(enterprise(PROVIDER))}
    await refused(certified, grant(header=header), Reason.ORGNO_MISMATCH)


async def test_expired_issuer(start: Starter, tmp_path: Path) -> None:
    """A leaf does not outlive the authority above it, on both sides of the second."""
    old = authority("old issuer", root(), dated=(NOW - YEAR, NOW + 5))
    server = await start(trust=trust_folder(tmp_path, old))
    header = {"x5c": x5c(leaf(Wrong(by=old)))}
    times: dict[str, Any] = {"iat": NOW, "exp": NOW + 60}
    server.clock.now = NOW + 5
    assert (await server.post(grant(header=header, **times))).is_success
    server.clock.now = NOW + 6
    await refused(server, grant(header=header, **times), Reason.CERTIFICATE_INVALID)


async def test_cross_signed_and_the_old_root_gone(start: Starter, tmp_path: Path) -> None:
    """AddTrust 2020: the same authority under an expired root and a living one still stands."""
    gone = pki.make_root("Old root", NOW - YEAR, private_key("old root"))
    expired = pki.certify(
        gone.certificate.subject, gone.key, (gone.certificate.subject, gone.key),
        (NOW - YEAR, NOW - 1), pki.authority_extensions(None),
    )  # fmt: skip
    old_root = Issued(expired, gone.key)
    under_old, under_new = (authority("crossed", by) for by in (old_root, root()))
    header = {"x5c": x5c(leaf(Wrong(by=under_new)))}
    server = await start(trust=trust_folder(tmp_path, old_root, under_old, under_new))
    assert (await server.post(grant(header=header))).is_success


# Attack 20: what it may cost, counted in steps.


@dataclass
class Steps:
    """How often something was done."""

    count: int = 0

    def counting(self, do: Callable[..., Any]) -> Callable[..., Any]:
        """The same, counted."""

        def counted(*arguments: Any) -> Any:
            self.count += 1
            return do(*arguments)

        return counted


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Names compared with constraints."""
    steps = Steps()
    monkeypatch.setattr(names, "_within", steps.counting(names._within))
    return steps


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Signatures of certificates checked in search of a path."""
    steps = Steps()
    monkeypatch.setattr(path, "verify_signed", steps.counting(link.verify_signed))
    return steps


def bomb(by: Issued) -> tuple[Issued, x509.SubjectAlternativeName]:
    """An authority of many constraints, and many names that each must be held against them."""
    subtrees = [x509.DNSName(f"{n}.no") for n in range(400)]
    constraints = x509.NameConstraints(subtrees, None)
    many = x509.SubjectAlternativeName([x509.DNSName(f"a.{n}.no") for n in range(400)])
    return authority("bomb", by, add=[(constraints, True)]), many


async def test_a_name_constraint_bomb_of_an_authority_of_ours(
    start: Starter, tmp_path: Path, comparisons: Steps
) -> None:
    """Refused within the bound, and from memory the second time."""
    maker, many = bomb(root())
    server = await start(trust=trust_folder(tmp_path, maker))
    header = {"x5c": x5c(leaf(Wrong(by=maker, add=[(many, False)])))}
    await refused(server, grant(header=header), Reason.CERTIFICATE_INVALID)
    assert comparisons.count <= MAX_COMPARISONS
    once = comparisons.count
    await refused(server, grant(header=header), Reason.CERTIFICATE_INVALID)
    assert comparisons.count == once


async def test_a_search_bomb_that_a_caller_brings(
    start: Starter, tmp_path: Path, signatures: Steps
) -> None:
    """Seals bring their own authorities: five of one name and key, each signed by the others."""
    name, key = pki.ca_name("maze"), private_key("maze")
    maze = [
        Issued(
            pki.certify(
                name, key, (name, key), (NOW - DAY, NOW + YEAR - n), pki.authority_extensions(None)
            ),
            key,
        )
        for n in range(5)
    ]
    sections = {"scopes": [*document()["scopes"], SCOPE]}
    server = await start(sections=sections, trust=european_trust(tmp_path))
    chain = x5c(seal(SealOf(by=maze[0])), *maze)
    own: dict[str, Any] = {"header": {"x5c": chain}, "signed_by": "seal", "scope": "skatt:eu"}
    await refused(server, grant("nobody", **own), Reason.CERTIFICATE_INVALID)
    assert 0 < signatures.count <= MAX_SIGNATURES
    assert eu_root().der not in [issued.der for issued in maze]


# Attack 22: revoked, stale, of another issuer, away.


def toml(when: str) -> dict[str, str]:
    """The issuing authority's list, and what its staleness means."""
    quoted = f'[[authority]]\nsha256 = "{fingerprint(issuing().der)}"\ncrl = ["{LIST}"]\n'
    grace = {"grace": "100"} if when == "grace" else {}
    return {"when_stale": f'"{when}"', **grace, "private_addresses": "true", "authority": quoted}


@pytest.fixture
def web() -> Any:
    """The network, played."""
    with respx.mock(assert_all_called=False) as router:
        yield router


STALE = [
    pytest.param("refuse", 0, None, id="refuse: at the promised second"),
    pytest.param("refuse", 1, Reason.CERTIFICATE_INVALID, id="refuse: a second later"),
    pytest.param("grace", 100, None, id="grace: at its end"),
    pytest.param("grace", 101, Reason.CERTIFICATE_INVALID, id="grace: a second later"),
    pytest.param("accept", 3600, None, id="accept: an hour later"),
]


@pytest.mark.parametrize("state", ["silent", "revoked"])
@pytest.mark.parametrize(("when", "late", "reason"), STALE)
async def test_a_stale_list(
    start: Starter, tmp_path: Path, web: respx.MockRouter, when: str, late: int,
    reason: Reason | None, state: str,
) -> None:  # fmt: skip
    """Silence grows stale as the policy says; a certificate that is named never comes back."""
    named = [(enterprise().certificate.serial_number, NOW)] if state == "revoked" else []
    web.get(LIST).respond(content=pki.sign_crl(issuing(), named, NOW, lifetime=DAY))
    folder = trust_folder(tmp_path, toml=toml(when))
    server = await start(trust=folder, revocation=tmp_path / "lists")
    await server.services.revocation.refresh()
    web.get(LIST).mock(side_effect=httpx.ConnectError("down"))
    server.clock.now = now = NOW + DAY + late
    await server.services.replica.catch_up()
    asked = grant(iat=now, exp=now + 60)
    if state == "revoked":
        await refused(server, asked, Reason.CERTIFICATE_INVALID)
    elif reason is not None:
        await refused(server, asked, reason)
    else:
        assert (await server.post(asked)).is_success


FOREIGN: list[Any] = [
    pytest.param(lambda: pki.sign_crl(root(), [], NOW), id="of another issuer"),
    pytest.param(
        lambda: pki.sign_crl(Issued(issuing().certificate, private_key("thief")), [], NOW),
        id="in the issuer's name, by another key",
    ),
    pytest.param(lambda: b"<html>", id="a web page"),
]


@pytest.mark.parametrize("make", FOREIGN)
async def test_a_list_of_another_issuer(
    start: Starter, tmp_path: Path, web: respx.MockRouter, make: Callable[[], bytes]
) -> None:
    """It is no evidence: under a strict policy nobody gets in until the issuer's own has come."""
    route = web.get(LIST).respond(content=make())
    folder = trust_folder(tmp_path, toml=toml("refuse"))
    server = await start(trust=folder, revocation=tmp_path / "lists")
    await server.services.revocation.refresh()
    await refused(server, grant(), Reason.CERTIFICATE_INVALID)
    route.respond(content=pki.sign_crl(issuing(), [], NOW))
    server.clock.now = NOW + 60
    await server.services.revocation.refresh()
    assert (await server.post(grant(iat=NOW + 60, exp=NOW + 90))).is_success


async def test_a_slow_responder_slows_no_request(
    start: Starter, tmp_path: Path, web: respx.MockRouter
) -> None:
    """While a download hangs, callers are answered from what is known."""
    hanging, begun = asyncio.Event(), asyncio.Event()

    async def hang(_request: httpx.Request) -> httpx.Response:
        begun.set()
        await hanging.wait()
        return httpx.Response(200, content=pki.sign_crl(issuing(), [], NOW))

    web.get(LIST).mock(side_effect=hang)
    folder = trust_folder(tmp_path, toml=toml("accept"))
    server = await start(trust=folder, revocation=tmp_path / "lists")
    await begun.wait()
    assert (await server.post(grant())).is_success
    hanging.set()


# Attack 23: keys that are not fit.


@dataclass(frozen=True)
class Numbers:
    """Stands where a private key does, for a certificate of any public key."""

    n: int
    e: int = 65537

    def public_key(self) -> RSAPublicKey:
        """The key that the certificate is for."""
        return RSAPublicNumbers(self.e, self.n).public_key()


MODULUS: Final = private_key("leaf").public_key().public_numbers().n
KEYS: list[Any] = [
    pytest.param(Numbers((1 << 1023) | 1), id="RSA-1024"),
    pytest.param(Numbers((1 << 2046) | 1), id="RSA-2047"),
    pytest.param(Numbers((1 << 16383) | 1), id="RSA-16384"),
    pytest.param(Numbers((1 << 4096) | 1), id="RSA-4097"),
    pytest.param(Numbers(MODULUS, 3), id="exponent 3"),
    pytest.param(Numbers(MODULUS, (1 << 2047) | 1), id="a huge exponent"),
    pytest.param(Numbers(MODULUS, 65539), id="another exponent"),
    pytest.param(Numbers(roca()), id="ROCA"),
]


@pytest.mark.parametrize("key", KEYS)
async def test_weak_keys_in_x5c(certified: Server, key: Numbers) -> None:
    """Held to the same measure as registered ones, before any signature is checked with them."""
    header = {"x5c": x5c(leaf(Wrong(key=key)))}
    await refused(certified, grant(header=header), Reason.CERTIFICATE_INVALID)


# A registered key that its owner locked to a certificate.


async def test_a_locked_key_expires_with_its_certificate(start: Starter, tmp_path: Path) -> None:
    """To the second, though the key itself is registered for longer."""
    brief = leaf(Wrong(key=private_key("brief"), dated=(NOW - DAY, NOW + 5)))
    server = await _with_locked(start, tmp_path, brief)
    for now, reason in ((NOW + 5, None), (NOW + 6, Reason.CERTIFICATE_INVALID)):
        server.clock.now = now
        asked = assertion("brief", scope="skatt:open", iat=now, exp=now + 60)
        if reason is None:
            assert (await server.post(asked)).is_success
        else:
            await refused(server, asked, reason)
            assert audited(tmp_path)["certificate_not_after"] == NOW + 5


async def test_a_locked_key_is_revoked_with_its_certificate(
    start: Starter, tmp_path: Path, web: respx.MockRouter
) -> None:
    """The next list that names the certificate stops the key."""
    locked = leaf(Wrong(key=private_key("brief")))
    serial = locked.certificate.serial_number
    route = web.get(LIST).respond(content=pki.sign_crl(issuing(), [], NOW))
    server = await _with_locked(start, tmp_path, locked, toml=toml("refuse"))
    await server.services.revocation.refresh()
    assert (await server.post(assertion("brief", scope="skatt:open"))).is_success
    route.respond(content=pki.sign_crl(issuing(), [(serial, NOW)], NOW + 1))
    server.clock.now = NOW + 900
    await server.services.revocation.refresh()
    asked = assertion("brief", scope="skatt:open", iat=NOW + 900, exp=NOW + 960)
    await refused(server, asked, Reason.CERTIFICATE_INVALID)
    assert audited(tmp_path)["detail"] == f"revoked: serial {serial}"


async def _with_locked(start: Starter, folder: Path, locked: Issued, **options: Any) -> Server:
    key = jwk("brief", x5c=x5c(locked))
    own = {**client("brief", CONSUMER, "skatt:open"), "jwks": {"keys": [key]}}
    return await start(
        sections={"clients": [*document()["clients"], own]},
        trust=trust_folder(folder, **options),
        revocation=folder / "lists",
    )


# The audit of what is refused.

WHO: list[Any] = [
    pytest.param({"signed_by": "thief"}, Reason.SIGNATURE_INVALID, id="another key signed"),
    pytest.param({"header": {"x5c": x5c(enterprise(PROVIDER))}}, Reason.ORGNO_MISMATCH, id="orgno"),
    pytest.param({"scope": "skatt:hemmelig"}, Reason.SCOPE_NOT_ON_CLIENT, id="scope"),
    pytest.param({"aud": "x"}, Reason.AUDIENCE_INVALID, id="aud"),
]


@pytest.mark.parametrize(("changes", "reason"), WHO)
async def test_a_refusal_names_the_certificate(
    certified: Server, tmp_path: Path, changes: dict[str, Any], reason: Reason
) -> None:
    """Whatever was refused, once the certificate was read."""
    await refused(certified, grant(**changes), reason)
    sent = changes.get("header", {"x5c": x5c(enterprise())})["x5c"][0]
    entry = audited(tmp_path)
    found = read_link(base64.b64decode(sent))
    assert {name: entry[name] for name in entry if name.startswith("certificate_")} == (
        found.audited()
    )


async def test_a_refusal_without_a_certificate_names_none(
    certified: Server, tmp_path: Path
) -> None:
    """Neither one that could not be read, nor one beside a registered key."""
    await refused(certified, grant(header={"x5c": ["AAAA"]}), Reason.X5C_MALFORMED)
    assert not [name for name in audited(tmp_path) if name.startswith("certificate_")]
    own = {"kid": "consumer"}
    asked = grant("consumer", signed_by="consumer", header=own, scope="skatt:hemmelig")
    await refused(certified, asked, Reason.SCOPE_NOT_ON_CLIENT)
    assert not [name for name in audited(tmp_path) if name.startswith("certificate_")]
