"""The validator against a real key server, hostile tokens, and our own tokens."""

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from maskinporten.validator import (
    MAX_BODY,
    MAX_KEYS,
    MAX_TOKEN_LENGTH,
    RETRY_AFTER,
    AsyncValidator,
    BearerMiddleware,
    Code,
    Demands,
    KeysUnavailable,
    Party,
    Policy,
    TokenInvalid,
    TrustedIssuer,
    Validator,
    ValidToken,
    require,
)
from tests.world import (
    ABSENT,
    CONSUMER,
    ISSUER,
    NOW,
    PROVIDER,
    SOURCE,
    STRANGER,
    SUPPLIER,
    Server,
    assertion,
    jwk,
    present,
    private_key,
    segment,
    sign,
)

API = "https://api.example.no/"
DAY = 86_400
ISO = "iso6523-actorid-upis"
JSON = {"content-type": "application/json"}


@dataclass
class Site:
    """Documents by path, each as status, headers and octets; and who asked for what."""

    url: str = ""
    documents: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, body: Any, *, status: int = 200, **headers: str) -> None:
        """Serve this from now on."""
        octets = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.documents[path] = (status, {**JSON, **named}, octets)

    def issuer(self, name: str = "a") -> str:
        """The issuer of that name."""
        return f"{self.url}{name}/"

    def publish(self, name: str, *keys: Any, **headers: Any) -> None:
        """Metadata and key set of that issuer."""
        issuer = self.issuer(name)
        metadata = {"issuer": issuer, "jwks_uri": issuer + "jwk"}
        self.put(f"/{name}/.well-known/oauth-authorization-server", metadata)
        self.put(f"/{name}/jwk", {"keys": list(keys)}, **headers)

    def key_requests(self) -> int:
        """How often key sets were asked for."""
        return sum(path.endswith("/jwk") for path in self.asked)

    def token(
        self,
        name: str = "a",
        *,
        signed_by: str = "k1",
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token of that issuer, right in every way but those named; ABSENT leaves one out."""
        all_claims = self.claims(name, **claims)
        all_header = {"kid": signed_by, "alg": "RS256", **(header or {})}
        algorithm = all_header["alg"] if all_header["alg"] in ("RS384", "RS512") else "RS256"
        return sign(present(all_header), all_claims, private_key(signed_by), algorithm)

    def claims(self, name: str = "a", **claims: Any) -> dict[str, Any]:
        """The claims of a plain token of Maskinporten."""
        return present(
            {
                "scope": "example:orders.read example:orders.write",
                "iss": self.issuer(name),
                "client_amr": "private_key_jwt",
                "token_type": "Bearer",
                "exp": NOW + 120,
                "iat": NOW,
                "client_id": "044f5040",
                "jti": "ZmAqeM_8CkT31IcE_0eH8C-PI3LvofPVPbzPHssv1mk",
                "consumer": {"authority": ISO, "ID": f"0192:{CONSUMER}"},
                **claims,
            }
        )


class KeyServer(ThreadingHTTPServer):
    """Serves the documents of whichever site is current."""

    daemon_threads = True
    site = Site()

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up in the middle of an answer is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    """Answers as the site says, once its gate is open."""

    server: KeyServer

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        """Any path."""
        site = self.server.site
        site.asked.append(self.path)
        site.agents.add(self.headers["user-agent"])
        site.gate.wait(5)
        status, headers, body = site.documents.get(self.path, (404, JSON, b"{}"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def key_server() -> Iterator[KeyServer]:
    """A web server on a port of its own."""
    server = KeyServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def site(key_server: KeyServer) -> Iterator[Site]:
    """A site of that server's, whose issuer `a` signs with k1, and `b` with k2."""
    found = key_server.site = Site(url=f"http://127.0.0.1:{key_server.server_address[1]}/")
    found.gate.set()
    found.publish("a", jwk("k1"))
    found.publish("b", jwk("k2"))
    yield found
    found.gate.set()


@dataclass
class Ticks:
    """A monotonic clock that moves when told."""

    now: float = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@dataclass
class Door:
    """A validator of either kind, asked from ordinary code, at NOW."""

    inner: Validator | AsyncValidator
    runner: asyncio.Runner
    ticks: Ticks

    def open(self, token: str, **demands: Any) -> ValidToken:
        """Validate."""
        demands = {"now": NOW, **demands}
        if isinstance(self.inner, Validator):
            return self.inner.validate(token, **demands)
        return self.runner.run(self.inner.validate(token, **demands))

    def refuses(self, token: str, **demands: Any) -> Code | None:
        """The code of the refusal, None where there is none."""
        try:
            self.open(token, **demands)
        except TokenInvalid as refusal:
            return refusal.code
        return None

    def accepts(self, token: str, **demands: Any) -> bool:
        """The opposite."""
        return self.refuses(token, **demands) is None

    def settle(self) -> None:
        """Wait until no fetch is in flight."""
        for source in self.inner._sources.values():
            if source.flight is not None:
                source.flight.result(5)


Build = Callable[..., Door]


def http() -> httpx.Client:
    """A client that spares itself the loading of certificates nobody here needs."""
    return httpx.Client(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@pytest.fixture(params=[Validator, AsyncValidator])
def build(request: pytest.FixtureRequest, site: Site, runner: asyncio.Runner) -> Iterator[Build]:
    """Makes validators of both kinds, that trust `a` unless told else."""
    made: list[Validator | AsyncValidator] = []

    def building(*issuers: TrustedIssuer, **options: Any) -> Door:
        ticks = Ticks()
        trusted = issuers or (TrustedIssuer(site.issuer()),)
        made.append(request.param(trusted, **{"monotonic": ticks, "http": http(), **options}))
        return Door(made[-1], runner, ticks)

    yield building
    for validator in made:
        validator.close()


@pytest.fixture
def door(site: Site) -> Iterator[Door]:
    """A plain validator, where the kind makes no difference."""
    ticks = Ticks()
    with (
        asyncio.Runner() as runner,
        closing(
            Validator([TrustedIssuer(site.issuer())], monotonic=ticks, http=http())
        ) as validator,
    ):
        yield Door(validator, runner, ticks)


# What a valid token says


def test_every_member(site: Site, build: Build) -> None:
    """All that a delegated token says is there, typed."""
    token = build().open(
        site.token(
            supplier={"authority": ISO, "ID": f"0192:{SUPPLIER}"},
            delegation_source=SOURCE,
            aud=API,
            pid="25922947409",
            nbf=NOW - 1,
        )
    )

    assert token == ValidToken(
        issuer=site.issuer(),
        scopes=frozenset({"example:orders.read", "example:orders.write"}),
        consumer=Party(ISO, f"0192:{CONSUMER}", CONSUMER),
        supplier=Party(ISO, f"0192:{SUPPLIER}", SUPPLIER),
        delegation_source=SOURCE,
        client_id="044f5040",
        audiences=frozenset({API}),
        issued_at=NOW,
        not_before=NOW - 1,
        expires_at=NOW + 120,
        jti="ZmAqeM_8CkT31IcE_0eH8C-PI3LvofPVPbzPHssv1mk",
        pid="25922947409",
        claims={},
    )
    assert token.claims["client_amr"] == "private_key_jwt"
    assert "25922947409" not in repr(token)


def test_optional_members(site: Site, door: Door) -> None:
    """What a plain token does not say is None, or empty."""
    token = door.open(site.token(jti=ABSENT))

    assert (token.supplier, token.delegation_source, token.jti, token.pid) == (None,) * 4
    assert token.audiences == frozenset()
    assert token.not_before == NOW


def test_claims_cannot_be_changed(site: Site, door: Door) -> None:
    """Nobody can add a claim after the signature was verified."""
    claims: Any = door.open(site.token()).claims

    with pytest.raises(TypeError):
        claims["scope"] = "everything"


@pytest.mark.parametrize(
    ("authority", "identifier", "orgno"),
    [
        (ISO, "0192:991825827", "991825827"),
        (ISO, "0192:991825827:ER", "991825827"),
        (ISO, "0192:991825827:ER//987464291:1", "991825827"),
        (ISO, "0192:991825827:a:b:c", None),
        (ISO, "0192:99182582", None),
        (ISO, "0192:9918258270", None),
        (ISO, "0192:\u0669\u0669\u0661\u0668\u0662\u0665\u0668\u0662\u0667", None),
        (ISO, "0007:991825827", None),
        (ISO, "x0192:991825827", None),
        ("etsi-en-319-412", "NTRNO-991825827", None),
        ("etsi-en-319-412", "0192:991825827", None),
    ],
)
def test_organisation_number(
    site: Site, door: Door, authority: str, identifier: str, orgno: str | None
) -> None:
    """The number is the second part of a Norwegian ISO 6523 ID, and there is no guessing."""
    token = site.token(consumer={"authority": authority, "ID": identifier})

    assert door.open(token).consumer == Party(authority, identifier, orgno)


def test_our_own_tokens(server: Server, runner: asyncio.Runner) -> None:
    """What our server issues, our library accepts, by our own metadata and key set."""

    async def answer(path: str) -> httpx.Response:
        return await server.http.get(path)

    paths = ("/.well-known/oauth-authorization-server", "/jwk")
    answers = {path: runner.run(answer(path)) for path in paths}

    def documents(request: httpx.Request) -> httpx.Response:
        given = answers[request.url.path]
        return httpx.Response(given.status_code, headers=given.headers, content=given.content)

    issued = runner.run(server.post(assertion())).json()["access_token"]
    ours = httpx.Client(transport=httpx.MockTransport(documents))
    with closing(Validator([TrustedIssuer(ISSUER)], http=ours)) as validator:
        token = validator.validate(issued, scope="skatt:inntekt.read", now=NOW)

    assert token.consumer.orgno == CONSUMER
    assert token.issuer == ISSUER


# Hostile tokens


def resigned(token: str, header: Any = None, claims: Any = None) -> str:
    """The same token with other octets for header or claims, signed again by k1."""
    old = [base64.urlsafe_b64decode(part + "==") for part in token.split(".")[:2]]
    return sign(header or old[0], claims or old[1], private_key("k1"))


def hmac_token(site: Site) -> str:
    """Signed by HMAC, the public key as PEM being the secret."""
    pem = (
        private_key("k1").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    signing_input = segment({"kid": "k1", "alg": "HS256"}) + b"." + segment(site.claims())
    tag = hmac.new(pem, signing_input, hashlib.sha256).digest()
    return (signing_input + b"." + segment(tag)).decode()


def unsigned(site: Site, alg: str) -> str:
    """A token with no signature at all."""
    return (segment({"kid": "k1", "alg": alg}) + b"." + segment(site.claims()) + b".").decode()


def with_stray_bits(token: str) -> str:
    """The signature's last character with unused bits set: other text, same octets."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


def claims_octets(site: Site, old: str, new: str) -> str:
    """A token whose claims were edited as text."""
    return resigned(site.token(), claims=json.dumps(site.claims()).replace(old, new).encode())


HOSTILE: dict[str, tuple[Callable[[Site], str], Code]] = {
    "alg none": (lambda s: unsigned(s, "none"), Code.ALGORITHM_REFUSED),
    "alg None": (lambda s: unsigned(s, "None"), Code.ALGORITHM_REFUSED),
    "no signature": (lambda s: unsigned(s, "RS256"), Code.BAD_SIGNATURE),
    "HS256 with the public key": (hmac_token, Code.ALGORITHM_REFUSED),
    "alg rs256": (lambda s: s.token(header={"alg": "rs256"}), Code.ALGORITHM_REFUSED),
    "alg RS512": (lambda s: s.token(header={"alg": "RS512"}), Code.ALGORITHM_REFUSED),
    "alg PS256": (lambda s: s.token(header={"alg": "PS256"}), Code.ALGORITHM_REFUSED),
    "alg a list": (lambda s: s.token(header={"alg": ["RS256"]}), Code.ALGORITHM_REFUSED),
    "no alg": (lambda s: resigned(s.token(), header={"kid": "k1"}), Code.ALGORITHM_REFUSED),
    "signed by another": (
        lambda s: s.token(signed_by="k2", header={"kid": "k1"}),
        Code.BAD_SIGNATURE,
    ),
    "claims exchanged": (
        lambda s: ".".join(
            (
                s.token().split(".")[0],
                segment(s.claims(exp=NOW + 999)).decode(),
                s.token().split(".")[2],
            )
        ),
        Code.BAD_SIGNATURE,
    ),
    "signature cut": (lambda s: s.token()[:-2], Code.BAD_SIGNATURE),
    "kid of another issuer": (lambda s: s.token(signed_by="k2"), Code.UNKNOWN_KEY),
    "kid in other case": (lambda s: s.token(header={"kid": "K1"}), Code.UNKNOWN_KEY),
    "kid a path": (lambda s: s.token(header={"kid": "../../dev/null"}), Code.UNKNOWN_KEY),
    "no kid": (lambda s: s.token(header={"kid": ABSENT}), Code.MALFORMED),
    "kid a number": (lambda s: s.token(header={"kid": 1}), Code.MALFORMED),
    "kid empty": (lambda s: s.token(header={"kid": ""}), Code.MALFORMED),
    "kid of 256": (lambda s: s.token(header={"kid": "k" * 256}), Code.MALFORMED),
    "kid with NUL": (lambda s: s.token(header={"kid": "k1\0"}), Code.MALFORMED),
    "crit": (lambda s: s.token(header={"crit": ["b64"], "b64": False}), Code.MALFORMED),
    "b64": (lambda s: s.token(header={"b64": False}), Code.MALFORMED),
    "jwk": (
        lambda s: s.token(signed_by="k2", header={"kid": "k1", "jwk": jwk("k2")}),
        Code.MALFORMED,
    ),
    "jku": (lambda s: s.token(header={"jku": s.url + "evil"}), Code.MALFORMED),
    "x5u": (lambda s: s.token(header={"x5u": s.url + "evil"}), Code.MALFORMED),
    "zip": (lambda s: s.token(header={"zip": "DEF"}), Code.MALFORMED),
    "a grant": (lambda s: s.token(header={"typ": "authorization-grant+jwt"}), Code.MALFORMED),
    "an event": (lambda s: s.token(header={"typ": "secevent+jwt"}), Code.MALFORMED),
    "typ null": (lambda s: s.token(header={"typ": None}), Code.MALFORMED),
    "typ a list": (lambda s: s.token(header={"typ": ["JWT"]}), Code.MALFORMED),
    "no issuer": (lambda s: s.token(iss=ABSENT), Code.UNTRUSTED_ISSUER),
    "issuer a list": (lambda s: s.token(iss=[s.issuer()]), Code.UNTRUSTED_ISSUER),
    "issuer without slash": (lambda s: s.token(iss=s.issuer()[:-1]), Code.UNTRUSTED_ISSUER),
    "issuer extended": (lambda s: s.token(iss=s.issuer() + "x"), Code.UNTRUSTED_ISSUER),
    "issuer in capitals": (lambda s: s.token(iss=s.issuer().upper()), Code.UNTRUSTED_ISSUER),
    "issuer not trusted here": (lambda s: s.token("b", signed_by="k2"), Code.UNTRUSTED_ISSUER),
    "empty": (lambda _: "", Code.MALFORMED),
    "one dot": (lambda s: s.token().rpartition(".")[0], Code.MALFORMED),
    "three dots": (lambda s: s.token() + ".", Code.MALFORMED),
    "five parts (JWE)": (lambda s: s.token() + ".e30.e30", Code.MALFORMED),
    "many dots": (lambda _: "." * MAX_TOKEN_LENGTH, Code.MALFORMED),
    "padded header": (lambda s: s.token().replace(".", "==.", 1), Code.MALFORMED),
    "padded signature": (lambda s: s.token() + "==", Code.MALFORMED),
    "stray bits": (lambda s: with_stray_bits(s.token()), Code.MALFORMED),
    "space in front": (lambda s: " " + s.token(), Code.MALFORMED),
    "line break inside": (lambda s: s.token()[:20] + "\n" + s.token()[20:], Code.MALFORMED),
    "standard alphabet": (lambda s: s.token()[:20] + "+/+/" + s.token()[20:], Code.MALFORMED),
    "beyond ASCII": (lambda s: s.token() + "\u00e5", Code.MALFORMED),
    "lone surrogate outside": (lambda s: s.token() + "\ud800", Code.MALFORMED),
    "too long": (lambda s: s.token(extra="x" * MAX_TOKEN_LENGTH), Code.MALFORMED),
    "iss twice": (
        lambda s: claims_octets(s, '{"scope"', '{"iss": "https://evil/", "scope"'),
        Code.MALFORMED,
    ),
    "name twice, deep": (
        lambda s: claims_octets(s, '"ID"', '"ID": "0192:310000019", "ID"'),
        Code.MALFORMED,
    ),
    "kid twice": (
        lambda s: resigned(s.token(), header=b'{"kid":"k2","alg":"RS256","kid":"k1"}'),
        Code.MALFORMED,
    ),
    "BOM": (
        lambda s: resigned(s.token(), claims=b"\xef\xbb\xbf" + json.dumps(s.claims()).encode()),
        Code.MALFORMED,
    ),
    "UTF-16": (
        lambda s: resigned(s.token(), claims=json.dumps(s.claims()).encode("utf-16")),
        Code.MALFORMED,
    ),
    "NaN": (lambda s: s.token(extra=float("nan")), Code.MALFORMED),
    "infinite": (lambda s: claims_octets(s, '{"scope"', '{"x": 1e999, "scope"'), Code.MALFORMED),
    "lone surrogate": (lambda s: s.token(extra="\ud800"), Code.MALFORMED),
    "huge integer": (
        lambda s: claims_octets(s, '{"scope"', '{"x": ' + "9" * 5000 + ', "scope"'),
        Code.MALFORMED,
    ),
    "nested": (
        lambda s: resigned(s.token(), claims=b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        Code.MALFORMED,
    ),
    "claims a list": (lambda s: resigned(s.token(), claims=b"[]"), Code.MALFORMED),
    "header a string": (lambda s: resigned(s.token(), header=b'"RS256"'), Code.MALFORMED),
    "exp a string": (lambda s: s.token(exp=str(NOW + 120)), Code.MALFORMED),
    "exp a fraction": (lambda s: s.token(exp=NOW + 120.5), Code.MALFORMED),
    "exp true": (lambda s: s.token(exp=True), Code.MALFORMED),
    "no exp": (lambda s: s.token(exp=ABSENT), Code.MALFORMED),
    "no iat": (lambda s: s.token(iat=ABSENT), Code.MALFORMED),
    "nbf null": (lambda s: s.token(nbf=None), Code.MALFORMED),
    "no scope": (lambda s: s.token(scope=ABSENT), Code.MALFORMED),
    "scope a list": (lambda s: s.token(scope=["example:orders.read"]), Code.MALFORMED),
    "scope with a tab": (lambda s: s.token(scope="a:b\tc:d"), Code.MALFORMED),
    "scope with NBSP": (lambda s: s.token(scope="a:b\u00a0c:d"), Code.MALFORMED),
    "scope with two spaces": (lambda s: s.token(scope="a:b  c:d"), Code.MALFORMED),
    "no consumer": (lambda s: s.token(consumer=ABSENT), Code.MALFORMED),
    "consumer a string": (lambda s: s.token(consumer=f"0192:{CONSUMER}"), Code.MALFORMED),
    "consumer without ID": (lambda s: s.token(consumer={"authority": ISO}), Code.MALFORMED),
    "supplier null": (lambda s: s.token(supplier=None), Code.MALFORMED),
    "no client_id": (lambda s: s.token(client_id=ABSENT), Code.MALFORMED),
    "pid a number": (lambda s: s.token(pid=25922947409), Code.MALFORMED),
    "aud null": (lambda s: s.token(aud=None), Code.MALFORMED),
    "aud of numbers": (lambda s: s.token(aud=[1]), Code.MALFORMED),
    "token_type DPoP": (lambda s: s.token(token_type="DPoP"), Code.MALFORMED),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(site: Site, door: Door, name: str) -> None:
    """A token that is wrong in one way is refused with that way's code; a good one is not."""
    make, code = HOSTILE[name]

    assert door.refuses(make(site)) is code
    assert door.accepts(site.token())
    assert "/evil" not in site.asked


def test_every_code_is_met() -> None:
    """The tables of this file name every code."""
    elsewhere = {
        Code.EXPIRED, Code.NOT_YET_VALID, Code.WRONG_AUDIENCE, Code.MISSING_SCOPE,
        Code.WRONG_CONSUMER,
    }  # fmt: skip

    assert {code for _, code in HOSTILE.values()} | elsewhere == set(Code)


@pytest.mark.parametrize("typ", ["JWT", "at+jwt"])
def test_typ(site: Site, door: Door, typ: str) -> None:
    """Both spellings of an access token's type are accepted (RFC 9068 section 2.1)."""
    assert door.accepts(site.token(header={"typ": typ}))


def test_longest_token(site: Site, door: Door) -> None:
    """A token of the greatest length is read, one character more is not."""
    spare = (MAX_TOKEN_LENGTH - len(site.token(extra=""))) * 3 // 4
    tokens = (
        site.token(header={"x": "x" * a}, extra="x" * (spare - b))
        for a in range(4)
        for b in range(8, 16)
    )
    sizes = {len(token): token for token in tokens}
    longest = sizes[MAX_TOKEN_LENGTH]

    assert door.accepts(longest)
    assert door.refuses(longest + "A") is Code.MALFORMED


def test_no_fetch_for_strangers(site: Site, door: Door) -> None:
    """Neither a foreign issuer nor a malformed token makes us ask anybody anything."""
    door.refuses(site.token(iss="https://evil.example/"))
    door.refuses("a.b.c")

    assert site.asked == []


# Times, scope, audience, consumer


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": NOW - 1}, None),
        ({"exp": NOW - 2}, Code.EXPIRED),
        ({"exp": NOW - 3}, Code.EXPIRED),
        ({"exp": -1}, Code.EXPIRED),
        ({"iat": NOW + 10}, None),
        ({"iat": NOW + 11}, Code.NOT_YET_VALID),
        ({"nbf": NOW + 10}, None),
        ({"nbf": NOW + 11}, Code.NOT_YET_VALID),
        ({"iat": NOW + 11, "nbf": NOW}, Code.NOT_YET_VALID),
    ],
)
def test_times(site: Site, door: Door, claims: dict[str, Any], code: Code | None) -> None:
    """Two seconds after exp and ten before iat or nbf are forgiven, and not one more."""
    token = site.token(**claims)

    assert door.refuses(token) is code


def test_no_leeway(site: Site, build: Build) -> None:
    """Without leeway a token lives until the second before exp (RFC 7519 section 4.1.4)."""
    strict = build(policy=Policy(expiry_leeway=0, clock_leeway=0))

    assert strict.accepts(site.token(exp=NOW + 1))
    assert strict.refuses(site.token(exp=NOW)) is Code.EXPIRED
    assert strict.refuses(site.token(iat=NOW + 1)) is Code.NOT_YET_VALID


def test_the_machines_clock(site: Site, door: Door) -> None:
    """Without `now` the machine's own clock decides."""
    now = int(time.time())

    assert door.accepts(site.token(iat=now, exp=now + 60), now=None)
    assert door.refuses(site.token(iat=now - 120, exp=now - 60), now=None) is Code.EXPIRED


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("example:orders.read", None),
        ("example:orders.write", None),
        (None, None),
        ("example:orders", Code.MISSING_SCOPE),
        ("example:orders.rea", Code.MISSING_SCOPE),
        ("EXAMPLE:orders.read", Code.MISSING_SCOPE),
        ("example:orders.read example:orders.write", Code.MISSING_SCOPE),
        ("", Code.MISSING_SCOPE),
    ],
)
def test_scope(site: Site, door: Door, wanted: str | None, code: Code | None) -> None:
    """The scope asked for must be an exact member of the token's (RFC 6749 section 3.3)."""
    assert door.refuses(site.token(), scope=wanted) is code


@pytest.mark.parametrize(
    ("own", "aud", "welcome"),
    [
        (None, ABSENT, True),
        (None, API, True),
        (None, "https://other/", True),
        (API, API, True),
        (API, [API], True),
        (API, ["https://other/", API], True),
        ([API, "https://old/"], "https://old/", True),
        (API, ABSENT, False),
        (API, [], False),
        (API, "", False),
        (API, "https://other/", False),
        (API, ["https://other/", "https://third/"], False),
        (API, API[:-1], False),
        (API, API + "x", False),
        ("", ABSENT, False),
        ([], API, False),
    ],
)
def test_audience(site: Site, build: Build, own: Any, aud: Any, welcome: bool) -> None:  # noqa: FBT001
    """One of our values must be named, if we have any; as the validator's or the call's own."""
    token = site.token(aud=aud)

    for door, demands in ((build(audience=own), {}), (build(), {"audience": own})):
        if welcome:
            assert door.accepts(token, **demands)
        else:
            assert door.refuses(token, **demands) is Code.WRONG_AUDIENCE


def test_audience_of_a_call(site: Site, build: Build) -> None:
    """The audience of a call replaces the validator's."""
    door = build(audience=API)

    assert door.accepts(site.token(aud="https://b/"), audience="https://b/")
    assert door.refuses(site.token(aud=API), audience="https://b/") is Code.WRONG_AUDIENCE


@pytest.mark.parametrize(
    ("consumers", "welcome"),
    [
        (CONSUMER, True),
        ({CONSUMER, PROVIDER}, True),
        ([CONSUMER], True),
        (lambda party: party.orgno == CONSUMER, True),
        (STRANGER, False),
        (CONSUMER + "0", False),
        ({STRANGER}, False),
        ((), False),
        ("", False),
        (lambda _: False, False),
    ],
)
def test_consumer(site: Site, door: Door, consumers: Any, welcome: bool) -> None:  # noqa: FBT001
    """A number, several, or a rule decide who comes in; a part of a number is nobody."""
    if welcome:
        assert door.accepts(site.token(), consumer=consumers)
    else:
        assert door.refuses(site.token(), consumer=consumers) is Code.WRONG_CONSUMER


def test_supplier_is_not_consumer(site: Site, door: Door) -> None:
    """A supplier on the list does not bring in a consumer who is not."""
    token = site.token(supplier={"authority": ISO, "ID": f"0192:{SUPPLIER}"})

    assert door.refuses(token, consumer=SUPPLIER) is Code.WRONG_CONSUMER


def test_misspelt_demand(site: Site, build: Build) -> None:
    """A demand that does not exist never passes for one that was met."""
    with pytest.raises(TypeError):
        build().open(site.token(), scopes="example:admin")


# Several issuers, and where keys come from


def test_issuers_in_parallel(site: Site, build: Build) -> None:
    """`iss` chooses the issuer, and its keys alone count."""
    door = build(TrustedIssuer(site.issuer("a")), TrustedIssuer(site.issuer("b")))

    assert door.open(site.token("a", signed_by="k1")).issuer == site.issuer("a")
    assert door.open(site.token("b", signed_by="k2")).issuer == site.issuer("b")
    assert door.refuses(site.token("a", signed_by="k2")) is Code.UNKNOWN_KEY
    assert door.refuses(site.token("b", signed_by="k1")) is Code.UNKNOWN_KEY


def test_one_issuer_away(site: Site, build: Build) -> None:
    """An issuer that cannot be reached takes no other with it."""
    door = build(TrustedIssuer(site.issuer("a")), TrustedIssuer(site.issuer("gone")))

    with pytest.raises(KeysUnavailable, match="404"):
        door.open(site.token("gone"))
    assert door.accepts(site.token("a"))


def test_explicit_places(site: Site, build: Build) -> None:
    """Keys may be named outright, and metadata may lie elsewhere."""
    site.put("/elsewhere", {"issuer": "urn:b", "jwks_uri": site.url + "b/jwk"})
    door = build(
        TrustedIssuer("urn:a", jwks_url=site.url + "a/jwk"),
        TrustedIssuer("urn:b", metadata_url=site.url + "elsewhere"),
    )

    assert door.accepts(site.token(iss="urn:a"))
    assert door.accepts(site.token(iss="urn:b", signed_by="k2"))
    assert site.asked == ["/a/jwk", "/elsewhere", "/b/jwk"]


@pytest.mark.parametrize(
    ("issuer", "metadata"),
    [
        (
            "https://maskinporten.no/",
            "https://maskinporten.no/.well-known/oauth-authorization-server",
        ),
        ("https://sky.no", "https://sky.no/.well-known/oauth-authorization-server"),
        ("http://localhost:8080/", "http://localhost:8080/.well-known/oauth-authorization-server"),
    ],
)
def test_default_metadata(issuer: str, metadata: str) -> None:
    """Metadata lies below the issuer, with or without its slash."""
    assert TrustedIssuer(issuer).metadata_url == metadata


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrustedIssuer("http://maskinporten.no/"),
        lambda: TrustedIssuer("http://127.0.0.1.evil.no/"),
        lambda: TrustedIssuer("http://localhost@evil.no/"),
        lambda: TrustedIssuer("ftp://localhost/"),
        lambda: TrustedIssuer("https://"),
        lambda: TrustedIssuer("https://x:port/"),
        lambda: TrustedIssuer(""),
        lambda: TrustedIssuer("x", jwks_url="http://evil.no/jwk"),
        lambda: TrustedIssuer("x", metadata_url="https://x/m", jwks_url="https://x/jwk"),
        lambda: Policy(algorithms=frozenset()),
        lambda: Policy(algorithms=frozenset({"RS256", "HS256"})),
        lambda: Policy(cool_down=0),
        lambda: Policy(cache_for=10),
        lambda: Policy(usable_for=DAY - 1),
        lambda: Policy(timeout=0),
        lambda: Validator([]),
        lambda: Validator([TrustedIssuer("https://x/"), TrustedIssuer("https://x/")]),
    ],
)
def test_settings_refused(make: Callable[[], object]) -> None:
    """Settings that contradict themselves, or ask over plain HTTP, are refused at the start."""
    with pytest.raises(ValueError, match=r".+"):
        make()


def test_user_agent(site: Site, build: Build) -> None:
    """The server can tell who has fetched the keys."""
    build(policy=Policy(operator="974761076")).open(site.token())

    assert site.agents == {"maskinporten-validator/1.0 (974761076)"}


def wrong_metadata(**members: Any) -> Callable[[Site], None]:
    """Metadata of issuer `a` with other members."""

    def publish(site: Site) -> None:
        issuer = site.issuer()
        metadata = {"issuer": issuer, "jwks_uri": issuer + "jwk", **members}
        site.put("/a/.well-known/oauth-authorization-server", metadata)

    return publish


def wrong_keys(body: Any, **options: Any) -> Callable[[Site], None]:
    """The key set of issuer `a`, served so."""
    return lambda site: site.put("/a/jwk", body, **options)


GOOD = {"keys": [jwk("k1")]}
FAULTY: dict[str, Callable[[Site], None]] = {
    "another issuer": wrong_metadata(issuer="https://evil/"),
    "issuer without slash": lambda s: wrong_metadata(issuer=s.issuer()[:-1])(s),
    "no jwks_uri": wrong_metadata(jwks_uri=None),
    "jwks_uri elsewhere": wrong_metadata(jwks_uri="https://evil.example/jwk"),
    "jwks_uri by another name": lambda s: wrong_metadata(
        jwks_uri=s.issuer().replace("127.0.0.1", "localhost") + "jwk"
    )(s),
    "jwks_uri is no URL": wrong_metadata(jwks_uri="https://["),
    "metadata as text": lambda s: s.put(
        "/a/.well-known/oauth-authorization-server",
        {"issuer": s.issuer(), "jwks_uri": s.issuer() + "jwk"},
        content_type="text/plain",
    ),
    "500": wrong_keys(GOOD, status=500),
    "204": wrong_keys(b"", status=204),
    "a redirect": wrong_keys(GOOD, status=302, location="/b/jwk"),
    "HTML": wrong_keys(GOOD, content_type="text/html"),
    "compressed": wrong_keys(gzip.compress(json.dumps(GOOD).encode()), content_encoding="gzip"),
    "not JSON": wrong_keys(b"<html>"),
    "cut off": wrong_keys(json.dumps(GOOD).encode()[:-5]),
    "a list": wrong_keys([jwk("k1")]),
    "keys an object": wrong_keys({"keys": {"k1": jwk("k1")}}),
    "names twice": wrong_keys(b'{"keys":[],' + json.dumps(GOOD).encode()[1:]),
    "no keys": wrong_keys({"keys": []}),
    "no usable key": wrong_keys({"keys": [{"kty": "EC", "kid": "k1"}]}),
    "kid twice": wrong_keys({"keys": [jwk("k1"), jwk("k2", kid="k1")]}),
    "too many keys": wrong_keys({"keys": [jwk("k1"), *[{}] * MAX_KEYS]}),
    "too long": wrong_keys(json.dumps(GOOD).encode().ljust(MAX_BODY + 1)),
}


@pytest.mark.parametrize("name", FAULTY)
def test_faulty_answers(site: Site, build: Build, name: str) -> None:
    """Faulty metadata or keys are refused whole, and the last good set stays in use."""
    seasoned, fresh = build(), build()
    seasoned.open(site.token())
    FAULTY[name](site)

    with pytest.raises(KeysUnavailable):
        fresh.open(site.token())
    seasoned.ticks.now = 60
    assert seasoned.refuses(site.token(signed_by="k2")) is Code.UNKNOWN_KEY
    assert seasoned.accepts(site.token())
    seasoned.ticks.now = 2 * DAY
    assert seasoned.accepts(site.token())
    seasoned.settle()
    assert seasoned.accepts(site.token())


@pytest.mark.parametrize(
    "options",
    [
        {"content_type": "application/jwk-set+json"},
        {"content_type": "Application/JSON; charset=utf-8"},
        {"age": "soon", "cache_control": "max-age=60"},
    ],
)
def test_tolerable_answers(site: Site, door: Door, options: dict[str, str]) -> None:
    """Both media types serve, in any case and with parameters; a strange Age is no fault."""
    site.publish("a", jwk("k1"), **options)

    assert door.accepts(site.token())


def test_largest_answers(site: Site, door: Door) -> None:
    """A key set at the limits of size and number is read."""
    filled = {"keys": [jwk("k1"), *[{}] * (MAX_KEYS - 1)]}
    site.put("/a/jwk", json.dumps(filled).encode().ljust(MAX_BODY))

    assert door.accepts(site.token())


def rsa_numbers(bits: int) -> dict[str, str]:
    """An odd modulus of that many bits."""
    return {"n": segment(((1 << (bits - 1)) | 1).to_bytes((bits + 7) // 8, "big")).decode()}


UNUSABLE: dict[str, Any] = {
    "no object": "k2",
    "no kid": {name: value for name, value in jwk("k2").items() if name != "kid"},
    "kid a list": jwk("k2", kid=["k2"]),
    "kid empty": jwk("k2", kid=""),
    "another kty": {"kty": "EC", "kid": "k2", "crv": "P-256", "x": "AA", "y": "AA"},
    "symmetric": {"kty": "oct", "kid": "k2", "k": "AAAA"},
    "for encryption": jwk("k2", use="enc"),
    "key_ops without verify": jwk("k2", key_ops=["encrypt"]),
    "key_ops a number": jwk("k2", key_ops=1),
    "another alg": jwk("k2", alg="RSA-OAEP"),
    "alg not allowed here": jwk("k2", alg="RS512"),
    "alg a list": jwk("k2", alg=["RS256"]),
    "e = 3": jwk("k2", e="Aw"),
    "e huge": jwk("k2", e=jwk("k1")["n"]),
    "2047 bits": jwk("k2", **rsa_numbers(2047)),
    "8193 bits": jwk("k2", **rsa_numbers(8193)),
    "n a number": jwk("k2", n=17),
    "n padded": jwk("k2", n=jwk("k2")["n"] + "=="),
    "no n": {name: value for name, value in jwk("k2").items() if name != "n"},
    "private": jwk("k2", d="AQ"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_members(site: Site, door: Door, name: str) -> None:
    """A member that is not for us is passed over, and its neighbours serve."""
    site.publish("a", UNUSABLE[name], jwk("k1"), UNUSABLE[name])

    assert door.accepts(site.token())
    assert door.refuses(site.token(signed_by="k2")) is Code.UNKNOWN_KEY


@pytest.mark.parametrize("bits", [2048, 8192])
def test_key_sizes(site: Site, door: Door, bits: int) -> None:
    """Keys at both ends of the allowed sizes are kept."""
    site.publish("a", jwk("k1"), jwk("k3", **rsa_numbers(bits)))

    assert door.refuses(site.token(header={"kid": "k3"})) is Code.BAD_SIGNATURE


def test_other_algorithms(site: Site, build: Build) -> None:
    """RS512 is accepted where the policy and the key's own record say so, and only there."""
    site.publish("a", jwk("k1"), jwk("k2", alg="RS512"), jwk("k3", alg="RS512", key_ops=["verify"]))
    door = build(policy=Policy(algorithms=frozenset({"RS256", "RS512"})))

    assert door.accepts(site.token(signed_by="k2", header={"alg": "RS512"}))
    assert door.accepts(site.token(signed_by="k3", header={"alg": "RS512"}))
    assert door.accepts(site.token())
    assert door.refuses(site.token(header={"alg": "RS512"})) is Code.ALGORITHM_REFUSED
    assert door.refuses(site.token(signed_by="k2")) is Code.ALGORITHM_REFUSED


# Keys over time


def test_warm_path(site: Site, build: Build) -> None:
    """Once the keys are here nobody is asked again for a day; then once, beside the callers."""
    door = build()
    for tick in (0, 1, DAY - 1):
        door.ticks.now = tick
        assert door.accepts(site.token())
    assert site.key_requests() == 1

    site.gate.clear()
    door.ticks.now = DAY
    assert door.accepts(site.token())
    assert door.accepts(site.token())
    site.gate.set()
    door.settle()
    assert site.key_requests() == 2


@pytest.mark.parametrize(
    ("headers", "renewed_after"),
    [
        ({}, DAY),
        ({"cache_control": "public, max-age=600"}, 600),
        ({"cache_control": 'Max-Age="600"'}, 600),
        ({"cache_control": "max-age=600", "age": "200"}, 400),
        ({"cache_control": "max-age=600", "age": "600"}, 30),
        ({"cache_control": "max-age=1"}, 30),
        ({"cache_control": "max-age=999999"}, DAY),
        ({"cache_control": "s-maxage=600"}, DAY),
        ({"cache_control": "no-cache, no-store, max-age=0, must-revalidate"}, DAY),
    ],
)
def test_max_age(site: Site, door: Door, headers: dict[str, str], renewed_after: int) -> None:
    """A max-age shortens the keeping of keys, down to the cool-down; it never lengthens it."""
    site.publish("a", jwk("k1"), **headers)
    for tick, requests in ((0, 1), (renewed_after - 1, 1), (renewed_after, 2)):
        door.ticks.now = tick
        door.open(site.token())
        door.settle()
        assert site.key_requests() == requests


def test_rotation(site: Site, build: Build) -> None:
    """A new key is found by its kid at once; a key taken from the set ends with the renewal."""
    door = build()
    door.open(site.token())
    site.publish("a", jwk("k2"), jwk("k1"))
    door.ticks.now = 30
    assert door.accepts(site.token(signed_by="k2"))
    assert door.accepts(site.token(signed_by="k1"))

    site.publish("a", jwk("k2"))
    door.ticks.now = 30 + DAY
    assert door.accepts(site.token(signed_by="k1"))
    door.settle()
    assert door.refuses(site.token(signed_by="k1")) is Code.UNKNOWN_KEY
    assert door.accepts(site.token(signed_by="k2"))


def test_key_published_ahead(site: Site, door: Door) -> None:
    """Whoever heeds max-age holds the next key before it signs, without an extra request."""
    site.publish("a", jwk("k1"), cache_control="max-age=3600")
    door.open(site.token())
    site.publish("a", jwk("k1"), jwk("k2"), cache_control="max-age=3600")
    door.ticks.now = 3600
    door.open(site.token())
    door.settle()

    assert door.accepts(site.token(signed_by="k2"))
    assert site.key_requests() == 2


def test_cool_down(site: Site, build: Build) -> None:
    """Whatever kids are thrown at us, the issuer is asked once in each cool-down."""
    door = build()
    for tick, requests in ((0, 1), (29, 1), (30, 2), (59, 2), (60, 3)):
        door.ticks.now = tick
        for kid in ("x", "y", "z"):
            assert door.refuses(site.token(header={"kid": kid})) is Code.UNKNOWN_KEY
        assert site.key_requests() == requests


def test_outage(site: Site, build: Build) -> None:
    """Keys serve three days through an outage, then nothing does, until the issuer is back."""
    door = build()
    door.open(site.token())
    site.documents.clear()
    for tick in (DAY, 2 * DAY, 3 * DAY - 1):
        door.ticks.now = tick
        assert door.accepts(site.token())
        door.settle()
    door.ticks.now = 3 * DAY + 40
    with pytest.raises(KeysUnavailable):
        door.open(site.token())

    site.publish("a", jwk("k1"))
    door.ticks.now += RETRY_AFTER - 1
    with pytest.raises(KeysUnavailable):
        door.open(site.token())
    door.ticks.now += 1
    assert door.accepts(site.token())


def test_failed_renewal(site: Site, door: Door) -> None:
    """While keys are at hand a renewal that failed is tried again after the cool-down."""
    door.open(site.token())
    site.documents.clear()
    for tick, renewals in ((DAY, 1), (DAY + 29, 1), (DAY + 30, 2), (DAY + 31, 2)):
        door.ticks.now = tick
        door.open(site.token())
        door.settle()
        assert len(site.asked) == 2 + renewals


def test_endless_fetch(build: Build) -> None:
    """A fetch that will not end holds its callers for three timeouts, and then knows nothing."""
    over = threading.Event()

    def hold(_: httpx.Request) -> httpx.Response:
        over.wait(5)
        return httpx.Response(404)

    door = build(
        TrustedIssuer("https://x/"),
        http=httpx.Client(transport=httpx.MockTransport(hold)),
        policy=Policy(timeout=0.02),
    )
    with pytest.raises(KeysUnavailable, match="not fetched yet"):
        door.open(Site(url="https://x/").token(iss="https://x/"))
    over.set()
    door.settle()


def test_nobody_listens(build: Build) -> None:
    """A refused connection is an outage like any other."""
    door = build(TrustedIssuer("http://127.0.0.1:1/"))
    token = Site(url="http://127.0.0.1:1/").token(iss="http://127.0.0.1:1/")

    with pytest.raises(KeysUnavailable, match="ConnectError"):
        door.open(token)


def test_silence(site: Site, build: Build) -> None:
    """A server that accepts and says nothing costs the timeout, no more."""
    site.gate.clear()
    door = build(policy=Policy(timeout=0.05))

    with pytest.raises(KeysUnavailable, match="ReadTimeout"):
        door.open(site.token())


def test_trickle(build: Build) -> None:
    """A server that sends one octet at a time is cut off at the timeout."""

    class Trickle(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                time.sleep(0.01)
                yield b" "

    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=JSON, stream=Trickle()))
    door = build(
        TrustedIssuer("https://x/"),
        http=httpx.Client(transport=transport),
        policy=Policy(timeout=0.05),
    )
    token = Site(url="https://x/").token(iss="https://x/")

    with pytest.raises(KeysUnavailable, match="too slow"):
        door.open(token)


# Concurrency


def test_fifty_threads(site: Site) -> None:
    """Fifty threads with a kid nobody knows yet cause one fetch, and all find the key."""
    ticks, barrier = Ticks(), threading.Barrier(50)
    with (
        closing(Validator([TrustedIssuer(site.issuer())], monotonic=ticks)) as validator,
        ThreadPoolExecutor(50) as pool,
    ):
        validator.validate(site.token(), now=NOW)
        site.publish("a", jwk("k1"), jwk("k2"))
        ticks.now = 60
        token = site.token(signed_by="k2")

        def ask(_: int) -> str:
            barrier.wait(5)
            return validator.validate(token, now=NOW).issuer

        assert list(pool.map(ask, range(50))) == [site.issuer()] * 50
    assert site.key_requests() == 2


async def test_fifty_tasks(site: Site) -> None:
    """Fifty tasks do likewise, and the loop goes on while they wait."""
    ticks = Ticks()
    with closing(AsyncValidator([TrustedIssuer(site.issuer())], monotonic=ticks)) as validator:
        await validator.validate(site.token(), now=NOW)
        site.publish("a", jwk("k1"), jwk("k2"))
        site.gate.clear()
        ticks.now = 60
        unknown = site.token(signed_by="k2")
        tasks = [asyncio.create_task(validator.validate(unknown, now=NOW)) for _ in range(50)]
        await asyncio.sleep(0.01)

        assert (await validator.validate(site.token(), now=NOW)).expires_at
        assert not any(task.done() for task in tasks)
        site.gate.set()
        assert {token.issuer for token in await asyncio.gather(*tasks)} == {site.issuer()}
    assert site.key_requests() == 2


async def test_caller_leaves(site: Site) -> None:
    """A caller who gives up does not stop the fetch for those who wait with it."""
    site.gate.clear()
    with closing(AsyncValidator([TrustedIssuer(site.issuer())])) as validator:
        first = asyncio.create_task(validator.validate(site.token(), now=NOW))
        second = asyncio.create_task(validator.validate(site.token(), now=NOW))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        site.gate.set()

        assert (await second).issuer == site.issuer()
        assert first.cancelled()
    assert site.key_requests() == 1


# ASGI


async def orders(request: Request) -> Response:
    """An endpoint that needs no more than the middleware asked for."""
    token: ValidToken = request.state.token
    return JSONResponse({"orgno": token.consumer.orgno})


async def deletions(request: Request) -> Response:
    """An endpoint with a scope of its own."""
    token = require(request, scope="example:orders.delete", consumer={CONSUMER})
    return JSONResponse({"orgno": token.consumer.orgno})


async def bare(request: Request) -> Response:
    """An endpoint whose middleware was forgotten."""
    require(request)
    return Response()


Ask = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def ask(site: Site, runner: asyncio.Runner) -> Iterator[Ask]:
    """Asks an API that needs `example:orders.read`, with the Authorization headers given."""
    validator = AsyncValidator([TrustedIssuer(site.issuer())], http=http())
    now = int(time.time())
    demands: Demands = {"scope": "example:orders.read", "consumer": {CONSUMER}}
    app = Starlette(
        routes=[Route("/orders", orders), Route("/deletions", deletions)],
        middleware=[Middleware(BearerMiddleware, validator, **demands)],
    )
    api = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://api.no")

    async def asking(path: str, *values: str, **claims: Any) -> httpx.Response:
        if not values:
            values = ("Bearer " + site.token(**{"iat": now, "exp": now + 60, **claims}),)
        return await api.get(path, headers=[("authorization", value) for value in values if value])

    yield asking
    runner.run(api.aclose())
    validator.close()


async def test_middleware_lets_in(ask: Ask) -> None:
    """A good token reaches the endpoint as a value."""
    response = await ask("/orders")

    assert (response.status_code, response.json()) == (200, {"orgno": CONSUMER})


async def test_scheme_in_any_case(site: Site, ask: Ask) -> None:
    """The scheme's name has no case (RFC 9110 section 11.1)."""
    now = int(time.time())

    assert (await ask("/orders", "bEARER " + site.token(iat=now, exp=now + 60))).status_code == 200


@pytest.mark.parametrize("value", ["", "Basic eDp5", "Bearertoken", "DPoP x"])
async def test_no_token(ask: Ask, value: str) -> None:
    """Who brings no token learns the scheme and no error (RFC 6750 section 3.1)."""
    response = await ask("/orders", value)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json() == {"error": "missing_token"}


async def test_two_tokens(ask: Ask) -> None:
    """Two Authorization headers are a malformed request."""
    response = await ask("/orders", "Bearer a", "Bearer b")

    assert response.status_code == 400
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_request"'


@pytest.mark.parametrize(
    ("path", "claims", "status", "error", "description", "scope"),
    [
        ("/orders", {"exp": NOW - 10**9}, 401, "invalid_token", "expired", None),
        ("/orders", {"iss": 'x"y'}, 401, "invalid_token", "untrusted_issuer", None),
        (
            "/orders", {"scope": "a:b"}, 403, "insufficient_scope", "missing_scope",
            "example:orders.read",
        ),
        (
            "/orders", {"consumer": {"authority": ISO, "ID": f"0192:{STRANGER}"}}, 403,
            "insufficient_scope", "wrong_consumer", None,
        ),
        (
            "/deletions", {}, 403, "insufficient_scope", "missing_scope", "example:orders.delete",
        ),
    ],
)  # fmt: skip
async def test_middleware_refuses(
    ask: Ask,
    path: str,
    claims: dict[str, Any],
    status: int,
    error: str,
    description: str,
    scope: str | None,
) -> None:
    """Challenge and body name the error, and the scope that would help (RFC 6750 section 3)."""
    response = await ask(path, **claims)

    members = {"error": error, "error_description": description}
    members |= {"scope": scope} if scope else {}
    assert response.status_code == status
    assert response.json() == members
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"
    assert response.headers["www-authenticate"] == "Bearer " + ", ".join(
        f'{name}="{value}"' for name, value in members.items()
    )


async def test_garbage_token(ask: Ask) -> None:
    """Garbage after the scheme is an invalid token, whatever octets it is made of."""
    for value in ("Bearer ", "Bearer  x", "Bearer a.b.c", "Bearer \u00e5"):
        response = await ask("/orders", value.encode("latin-1"))
        assert (response.status_code, response.json()["error"]) == (401, "invalid_token")


async def test_require_beyond_the_middleware(ask: Ask) -> None:
    """An endpoint's own scope is enough, once the middleware's was."""
    response = await ask("/deletions", scope="example:orders.read example:orders.delete")

    assert response.status_code == 200


async def test_no_keys(site: Site, ask: Ask) -> None:
    """Without keys nothing is known of the token: 503, and no challenge."""
    site.documents.clear()
    response = await ask("/orders")

    assert response.status_code == 503
    assert response.headers["retry-after"] == str(RETRY_AFTER)
    assert "www-authenticate" not in response.headers
    assert response.json() == {"error": "temporarily_unavailable"}


async def test_forgotten_middleware() -> None:
    """`require` without the middleware fails closed."""
    transport = httpx.ASGITransport(Starlette(routes=[Route("/", bare)]))
    async with httpx.AsyncClient(transport=transport, base_url="https://api.no") as api:
        with pytest.raises(AttributeError):
            await api.get("/")


async def test_other_scopes(site: Site) -> None:
    """Lifespan passes; a websocket without a token is closed before it is accepted."""
    reached: list[str] = []
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        reached.append(scope["type"])

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    now = int(time.time())
    authorization = b"Bearer " + site.token(iat=now, exp=now + 60).encode()
    shared: dict[str, Any] = {}
    scope: Scope = {"type": "websocket", "headers": [], "state": shared}
    with closing(AsyncValidator([TrustedIssuer(site.issuer())])) as validator:
        guarded = BearerMiddleware(app, validator)
        await guarded({"type": "lifespan"}, receive, send)
        await guarded(scope, receive, send)
        assert (reached, sent) == (["lifespan"], [{"type": "websocket.close", "code": 1008}])

        scope["headers"] = [(b"authorization", authorization)]
        await guarded(scope, receive, send)
    assert reached == ["lifespan", "websocket"]
    assert scope["state"]["token"].consumer.orgno == CONSUMER
    assert shared == {}
