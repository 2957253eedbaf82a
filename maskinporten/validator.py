"""For API providers: validate access tokens of the issuers you trust, by RFC 7519 and RFC 9068.

    validator = Validator([TrustedIssuer("https://maskinporten.no/")], audience="https://api.no/")
    orgno = validator.validate(bearer, scope="example:orders.read").consumer.orgno

Stands alone (httpx and cryptography; Starlette for its types only) and may be copied out.

*Keys* are kept for `Policy.cache_for`, or for less where Cache-Control says so: our server shortens
max-age as the activation of a key nears, so whoever heeds it holds that key before it signs. A
longer max-age is not heeded, nor is max-age=0, which many frameworks put on every answer; one below
the cool-down waits for it. Renewal happens beside the callers; only an unknown `kid`, or having no
keys at all, makes a caller wait.

*Audience*: a provider who has named none accepts tokens with and without `aud`, since audience
restriction is the provider's choice (Digdir) and any client may ask for one. Where the same scope
guards several APIs, name one: then a token without it is refused (RFC 7519 section 4.1.3).

*Not promised*: that the organisation has rights in your own registers, or that `pid` is the person
this call is about. Decide by `consumer` and `scope`, never by `client_id`.
"""

import asyncio
import json
import logging
import re
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict, TypeVar, Unpack

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Receive, Scope, Send

USER_AGENT: Final = "maskinporten-validator/1.0"
MAX_TOKEN_LENGTH: Final = 16 * 1024  # characters
MAX_BODY: Final = 512 * 1024  # octets of a metadata document or key set
MAX_KEYS: Final = 100  # members of a key set
RETRY_AFTER: Final = 5  # seconds between attempts while no key is at hand

_LOG: Final = logging.getLogger(__name__)
_DIGESTS: Final = {"RS256": SHA256(), "RS384": SHA384(), "RS512": SHA512()}
_KID: Final = re.compile(r"[!-~]{1,255}")
_SCOPES: Final = re.compile(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*")  # RFC 6749 section 3.3
_ISO6523: Final = re.compile(r"0192:([0-9]{9})(:[^:]+){0,2}")  # 0192: Norwegian organisations
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=\"?0*([1-9]\d{0,8})", re.IGNORECASE)
_KINDS: Final = {(f"application/{kind}", "identity") for kind in ("json", "jwk-set+json")}
_BITS: Final = range(2048, 8192 + 1)
_EXPONENT: Final = 65537
_LOOPBACK: Final = {("http", host) for host in ("localhost", "127.0.0.1", "::1")}
# Members that bring a key, point to one, or change how the rest is read (RFC 8725 section 3.10).
_HEADER_REFUSED: Final = frozenset({"crit", "jwk", "jku", "x5u", "b64", "zip", "enc"})


class Code(StrEnum):
    """Why a token is refused. The values are stable; log and count by them."""

    MALFORMED = "malformed"
    ALGORITHM_REFUSED = "algorithm_refused"
    UNTRUSTED_ISSUER = "untrusted_issuer"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_AUDIENCE = "wrong_audience"
    MISSING_SCOPE = "missing_scope"
    WRONG_CONSUMER = "wrong_consumer"


class TokenInvalid(Exception):
    """The token is refused. `detail` is for your log alone: it may quote the caller."""

    def __init__(self, code: Code, detail: str = "") -> None:
        self.code, self.detail = code, detail[:500]
        super().__init__(f"{code}: {self.detail}")


class KeysUnavailable(Exception):
    """No usable key of this issuer is at hand. Nothing is known of the token: 503, not 401."""


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer, exactly as tokens spell it in `iss`, and where its keys are found.

    Name `metadata_url`, or `jwks_url`, or neither: then RFC 8414 metadata is read below the issuer.
    Metadata must repeat the issuer octet by octet and keep jwks_uri on its own origin. Raises
    ValueError for a URL that is neither https nor loopback, or where both are named.
    """

    issuer: str
    metadata_url: str | None = None
    jwks_url: str | None = None

    def __post_init__(self) -> None:
        if self.metadata_url and self.jwks_url:
            raise ValueError("name metadata_url or jwks_url, not both")
        if not self.metadata_url and not self.jwks_url:
            _origin(self.issuer)
            below = self.issuer.removesuffix("/") + "/.well-known/oauth-authorization-server"
            object.__setattr__(self, "metadata_url", below)
        _origin(self.jwks_url or self.metadata_url or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The numbers of a validator. Raises ValueError where they contradict each other.

    A token lives while now < exp + expiry_leeway: two seconds cover the way here and clocks kept by
    NTP, and are little beside 120 s of life. `iat` and `nbf` may lie `clock_leeway` ahead, that end
    included, since tokens are used in the second they are made.
    """

    algorithms: frozenset[str] = frozenset({"RS256"})  # of RS256, RS384, RS512
    cache_for: float = 86_400  # seconds until keys are renewed (Digdir advises some 24 hours)
    usable_for: float = 3 * 86_400  # seconds after the last good fetch; an outage may be this long
    cool_down: float = 30  # seconds between two fetches from one issuer, whatever callers send
    timeout: float = 5  # seconds for each document fetched
    clock_leeway: float = 10  # seconds
    expiry_leeway: float = 2  # seconds
    operator: str = "unnamed"  # an organisation number, say; it stands in User-Agent

    def __post_init__(self) -> None:
        if not self.algorithms or not self.algorithms <= _DIGESTS.keys():
            raise ValueError("algorithms must be some of RS256, RS384, RS512")
        if not 1 <= self.cool_down <= self.cache_for <= self.usable_for or self.timeout <= 0:
            raise ValueError("1 <= cool_down <= cache_for <= usable_for, and 0 < timeout")


@dataclass(frozen=True, slots=True)
class Party:
    """An organisation in a token. `orgno` is the second of an ISO 6523 ID's two to four parts.

    It is None where the ID is of another kind, as under the seals of other countries.
    """

    authority: str
    identifier: str
    orgno: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidToken:
    """A token that holds. Made by `validate` only. Times are epoch seconds.

    `supplier`, where it is there, acts on behalf of `consumer`. `pid`, a national identity number,
    and `claims` are left out of repr and so out of logs.
    """

    issuer: str
    scopes: frozenset[str]
    consumer: Party
    supplier: Party | None
    delegation_source: str | None
    client_id: str
    audiences: frozenset[str]
    issued_at: int
    not_before: int
    expires_at: int
    jti: str | None
    pid: str | None = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False, compare=False)


Consumers = str | Collection[str] | Callable[[Party], bool]
"""Who may come in: an organisation number, several, or a rule of your own."""


class Demands(TypedDict, total=False):
    """What a door asks of a token. None, or left out, asks nothing."""

    scope: str | None  # an exact member of the token's scope
    audience: str | Collection[str] | None  # one of these in `aud`; replaces the validator's own
    consumer: Consumers | None
    now: float | None  # epoch seconds; left out, it is the machine's clock


class _Unverified(NamedTuple):
    source: "_Source"
    algorithm: str
    kid: str
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes


_Keys = Mapping[str, tuple[RSAPublicKey, frozenset[str]]]  # by kid, each with what it may verify


class _KeySet(NamedTuple):
    keys: _Keys = MappingProxyType({})
    renew_at: float = -inf  # by the monotonic clock, like the others
    dead_at: float = -inf


@dataclass(slots=True)
class _Source:
    trusted: TrustedIssuer
    held: _KeySet = field(default_factory=_KeySet)  # replaced as one value
    flight: "Future[None] | None" = None
    next_try: float = -inf
    fault: str = "not fetched yet"


class _Rules:
    """Everything but the waiting, which the two validators do in their own way."""

    def __init__(
        self,
        issuers: Iterable[TrustedIssuer],
        *,
        audience: str | Collection[str] | None = None,
        policy: Policy = Policy(),
        http: httpx.Client | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        trusted = list(issuers)
        self._sources = {one.issuer: _Source(one) for one in trusted}
        if not trusted or len(self._sources) < len(trusted):
            raise ValueError("at least one issuer, and each once")
        self._policy, self._audience, self._monotonic = policy, audience, monotonic
        self._http, self._patience = http or httpx.Client(), 3 * policy.timeout  # seconds
        self._lock = threading.Lock()  # guards flight and next_try; never held during I/O

    def close(self) -> None:
        """Close the HTTP client, also one that was given."""
        self._http.close()

    def _read(self, token: str) -> _Unverified:
        """What the token says of itself, read strictly (RFC 7515 section 5.2, RFC 8725)."""
        bearable = len(token) <= MAX_TOKEN_LENGTH and token.isascii()
        parts = token.encode().split(b".", 3) if bearable else []
        if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
            raise TokenInvalid(Code.MALFORMED, "not a JWS in compact form")
        try:
            header, claims = _read_object(_octets(parts[0])), _read_object(_octets(parts[1]))
            signature = _octets(parts[2])
        except ValueError as fault:
            raise TokenInvalid(Code.MALFORMED, str(fault)) from fault
        algorithm, kid, issuer = header.get("alg"), header.get("kid"), claims.get("iss")
        if not isinstance(algorithm, str) or algorithm not in self._policy.algorithms:
            raise TokenInvalid(Code.ALGORITHM_REFUSED, repr(algorithm))
        if _HEADER_REFUSED & header.keys() or header.get("typ", "JWT") not in ("JWT", "at+jwt"):
            raise TokenInvalid(Code.MALFORMED, f"header {header!r}")
        source = self._sources.get(issuer) if isinstance(issuer, str) else None
        if source is None:
            raise TokenInvalid(Code.UNTRUSTED_ISSUER, repr(issuer))
        if not isinstance(kid, str) or not _KID.fullmatch(kid):
            raise TokenInvalid(Code.MALFORMED, f"kid {kid!r}")
        return _Unverified(source, algorithm, kid, claims, parts[0] + b"." + parts[1], signature)

    def _must_await(self, source: _Source, kid: str) -> "Future[None] | None":
        """The fetch that a token under `kid` has to wait for, if any; starts one where one is due.

        One at a time per issuer, and the next only after the cool-down, however many ask.
        """
        now, held = self._monotonic(), source.held
        at_hand = now < held.dead_at and kid in held.keys
        if at_hand and now < held.renew_at:
            return None
        with self._lock:
            if source.flight is None or source.flight.done():
                if now < source.next_try:
                    return None
                source.next_try = now + self._policy.cool_down
                beside = ThreadPoolExecutor(1)  # its own, so that a forked process is not without
                source.flight = beside.submit(self._renew, source)
                beside.shutdown(wait=False)
        return None if at_hand else source.flight

    def _renew(self, source: _Source) -> None:
        """Replace the keys at hand. Where that fails, the last good set stays until its end."""
        policy = self._policy
        try:
            keys, max_age = self._fetch_keys(source.trusted)
        except Exception as fault:  # noqa: BLE001 - whatever it was, callers go by what is at hand
            source.fault = f"{type(fault).__name__}: {fault}"
            if self._monotonic() >= source.held.dead_at:
                source.next_try = min(source.next_try, self._monotonic() + RETRY_AFTER)
            _LOG.warning("keys of %r were not renewed: %r", source.trusted.issuer, source.fault)
        else:
            now, fresh_for = self._monotonic(), min(policy.cache_for, max_age)
            source.held = _KeySet(keys, now + fresh_for, now + policy.usable_for)

    def _fetch_keys(self, trusted: TrustedIssuer) -> tuple[_Keys, float]:
        """The usable keys, and the seconds they stay fresh (RFC 8414 section 3.3, RFC 7517)."""
        url: Any = trusted.jwks_url
        if trusted.metadata_url:
            metadata, _ = self._fetch(trusted.metadata_url)
            url = metadata.get("jwks_uri")
            if metadata.get("issuer") != trusted.issuer or not isinstance(url, str):
                raise ValueError("metadata of another issuer, or without jwks_uri")
            if _origin(url) != _origin(trusted.metadata_url):
                raise ValueError("jwks_uri has another origin than the metadata")
        document, max_age = self._fetch(url)
        members = document.get("keys")
        if not isinstance(members, list) or len(members) > MAX_KEYS:
            raise ValueError("not a key set of bearable size")
        usable = [key for one in members if (key := _find_key(one, self._policy.algorithms))]
        keys = {kid: (key, algorithms) for kid, key, algorithms in usable}
        if not keys or len(keys) < len(usable):
            raise ValueError("no usable key, or a kid that stands twice")
        return keys, max_age

    def _fetch(self, url: str) -> tuple[dict[str, Any], float]:
        """A JSON object over HTTP, bounded in size and time, and its max-age."""
        body, limit, until = b"", self._policy.timeout, time.monotonic() + self._policy.timeout
        # A compressed answer could grow beyond any limit while it is unpacked: none is asked for.
        agent = f"{USER_AGENT} ({self._policy.operator})"
        headers = {"user-agent": agent, "accept-encoding": "identity"}
        with self._http.stream(
            "GET", url, headers=headers, timeout=limit, follow_redirects=False
        ) as answer:
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            coding = answer.headers.get("content-encoding", "identity")
            if answer.status_code != httpx.codes.OK or (kind, coding) not in _KINDS:
                raise ValueError(f"{answer.status_code}, {kind}, {coding} from {url}")
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > MAX_BODY or time.monotonic() > until:
                    raise ValueError(f"too long, or too slow: {url}")
        found = _MAX_AGE.search(answer.headers.get("cache-control", ""))
        age = answer.headers.get("age", "")
        spent = int(age) if age.isdecimal() else 0  # seconds in somebody's cache on the way here
        return _read_object(body), int(found[1]) - spent if found else inf

    def _verify(
        self,
        seen: _Unverified,
        *,
        scope: str | None = None,
        audience: str | Collection[str] | None = None,
        consumer: Consumers | None = None,
        now: float | None = None,
    ) -> ValidToken:
        """The signature first, then shape and times, then what this door asks for."""
        held = seen.source.held
        if self._monotonic() >= held.dead_at:
            raise KeysUnavailable(f"{seen.source.trusted.issuer}: {seen.source.fault}")
        if seen.kid not in held.keys:
            raise TokenInvalid(Code.UNKNOWN_KEY, repr(seen.kid))
        key, algorithms = held.keys[seen.kid]
        if seen.algorithm not in algorithms:
            raise TokenInvalid(Code.ALGORITHM_REFUSED, f"the key is not for {seen.algorithm}")
        try:
            key.verify(seen.signature, seen.signing_input, PKCS1v15(), _DIGESTS[seen.algorithm])
            token = _read_claims(seen.claims)
        except InvalidSignature as fault:
            raise TokenInvalid(Code.BAD_SIGNATURE) from fault
        except ValueError as fault:
            raise TokenInvalid(Code.MALFORMED, str(fault)) from fault
        now = time.time() if now is None else now
        if now >= token.expires_at + self._policy.expiry_leeway:
            raise TokenInvalid(Code.EXPIRED, f"exp {token.expires_at}, now {now}")
        if max(token.issued_at, token.not_before) > now + self._policy.clock_leeway:
            raise TokenInvalid(Code.NOT_YET_VALID, f"iat {token.issued_at}, now {now}")
        own = self._audience if audience is None else audience
        if own is not None and token.audiences.isdisjoint([own] if isinstance(own, str) else own):
            raise TokenInvalid(Code.WRONG_AUDIENCE, repr(token.audiences))
        _verify_access(token, scope, consumer)
        return token


class Validator(_Rules):
    """Validates tokens from any number of threads.

    `audience` is your own value, or several, of which the token must name one. `http` is yours to
    configure (proxy, certificates). Raises ValueError for no issuer, or the same issuer twice.
    """

    def validate(self, token: str, **demands: Unpack[Demands]) -> ValidToken:
        """What the token says, if it is genuine, alive, and opens this door (see `Demands`).

        Raises TokenInvalid, or KeysUnavailable. (RFC 7519 section 7.2, RFC 9068 section 4.)
        """
        seen = self._read(token)
        flight = self._must_await(seen.source, seen.kid)
        if flight is not None:
            wait([flight], self._patience)
        return self._verify(seen, **demands)


class AsyncValidator(_Rules):
    """The same for any number of tasks; made like `Validator`. Fetching never holds the loop."""

    async def validate(self, token: str, **demands: Unpack[Demands]) -> ValidToken:
        """See `Validator.validate`."""
        seen = self._read(token)
        flight = self._must_await(seen.source, seen.kid)
        if flight is not None:  # a caller who leaves does not stop it for the others
            await asyncio.wait([asyncio.wrap_future(flight)], timeout=self._patience)
        return self._verify(seen, **demands)


class BearerMiddleware:
    """ASGI middleware: every request and websocket needs a token, found then in `state["token"]`.

    Answers 401, 403 (a scope or consumer that does not open this door), 400 or 503, as RFC 6750
    section 3.1 has it. Put it around the routes it guards; what lies outside stays open.
    """

    def __init__(
        self, app: "ASGIApp", validator: AsyncValidator, **demands: Unpack[Demands]
    ) -> None:
        self.app, self._validator, self._demands = app, validator, demands

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """See the ASGI specification, version 3."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = b"".join(given).decode("latin-1").partition(" ")
        if len(given) > 1:
            return await _refuse(scope, send, 400, error="invalid_request")
        if scheme.lower() != "bearer":
            return await _refuse(scope, send, 401)
        try:
            valid = await self._validator.validate(token, **self._demands)
            # A new mapping, so that no server can share one request's token with another.
            scope["state"] = {**scope.get("state", {}), "token": valid}
            return await self.app(scope, receive, send)
        except TokenInvalid as fault:
            forbidden = fault.code in (Code.MISSING_SCOPE, Code.WRONG_CONSUMER)
            status, error = (403, "insufficient_scope") if forbidden else (401, "invalid_token")
            members = {"error": error, "error_description": fault.code.value}
            if fault.code is Code.MISSING_SCOPE:
                members["scope"] = fault.detail
            _LOG.info("a token was refused: %r", fault)
            return await _refuse(scope, send, status, **members)
        except KeysUnavailable:
            return await _refuse(scope, send, 503, error="temporarily_unavailable")


def require(
    request: "HTTPConnection", *, scope: str | None = None, consumer: Consumers | None = None
) -> ValidToken:
    """The token of this request, if it opens this endpoint; call it before anything is sent.

    Raises TokenInvalid, which `BearerMiddleware` answers; AttributeError without the middleware.
    """
    token: ValidToken = request.state.token
    _verify_access(token, scope, consumer)
    return token


async def _refuse(scope: "Scope", send: "Send", status: int, /, **members: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    # Every value is a constant, of ours or the provider's: nothing of the caller's is repeated.
    challenge = "Bearer " + ", ".join(f'{name}="{value}"' for name, value in members.items())
    extra = ("retry-after", str(RETRY_AFTER)), ("www-authenticate", challenge.rstrip())
    body = json.dumps(members or {"error": "missing_token"}).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "cache-control": "no-store",
    } | dict([extra[status != 503]])  # noqa: PLR2004 - a number everyone knows
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _verify_access(token: ValidToken, scope: str | None, consumer: Consumers | None) -> None:
    if scope is not None and scope not in token.scopes:
        raise TokenInvalid(Code.MISSING_SCOPE, scope)
    if consumer is None:
        return
    if isinstance(consumer, str):
        consumer = [consumer]
    party = token.consumer
    if not (consumer(party) if callable(consumer) else party.orgno in consumer):
        raise TokenInvalid(Code.WRONG_CONSUMER, party.identifier)


def _read_claims(claims: Mapping[str, Any]) -> ValidToken:
    """The claims a Maskinporten token has, each of its type. Raises ValueError."""
    scope, aud = _claim(claims, "scope", str), claims.get("aud", [])
    audiences = [aud] if isinstance(aud, str) else aud
    if not _SCOPES.fullmatch(scope) or claims.get("token_type", "Bearer") != "Bearer":
        raise ValueError("claim scope or token_type")
    if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
        raise ValueError("claim aud")
    return ValidToken(
        issuer=_claim(claims, "iss", str),
        scopes=frozenset(scope.split(" ")),
        consumer=_party(claims, "consumer"),
        supplier=_party(claims, "supplier") if "supplier" in claims else None,
        delegation_source=_find_text(claims, "delegation_source"),
        client_id=_claim(claims, "client_id", str),
        audiences=frozenset(audiences),
        issued_at=_claim(claims, "iat", int),
        not_before=_claim(claims, "nbf" if "nbf" in claims else "iat", int),
        expires_at=_claim(claims, "exp", int),
        jti=_find_text(claims, "jti"),
        pid=_find_text(claims, "pid"),
        claims=MappingProxyType(claims),
    )


_T = TypeVar("_T", str, int, dict[str, Any])


def _claim(claims: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    """A member of exactly this type: True is no number, and times are whole seconds."""
    value = claims.get(name)
    if type(value) is not kind:
        raise ValueError(f"claim {name}")
    return value


def _find_text(claims: Mapping[str, Any], name: str) -> str | None:
    return _claim(claims, name, str) if name in claims else None


def _party(claims: Mapping[str, Any], name: str) -> Party:
    claim: dict[str, Any] = _claim(claims, name, dict)
    authority, identifier = _claim(claim, "authority", str), _claim(claim, "ID", str)
    found = _ISO6523.fullmatch(identifier) if authority == "iso6523-actorid-upis" else None
    return Party(authority, identifier, found[1] if found else None)


def _find_key(jwk: Any, allowed: frozenset[str]) -> tuple[str, RSAPublicKey, frozenset[str]] | None:
    """The kid, the key and what it may verify; None for a member that is not for us (RFC 7517)."""
    try:
        kid, algorithms = jwk["kid"], allowed & {jwk["alg"]} if "alg" in jwk else allowed
        n, e = (int.from_bytes(_octets(jwk[name].encode()), "big") for name in ("n", "e"))
        for_us = jwk["kty"] == "RSA" and jwk.get("use", "sig") == "sig" and "d" not in jwk
        for_us = for_us and "verify" in jwk.get("key_ops", ["verify"]) and bool(algorithms)
        if not for_us or not _KID.fullmatch(kid) or n.bit_length() not in _BITS or e != _EXPONENT:
            return None
        return kid, RSAPublicNumbers(e, n).public_key(), algorithms
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _octets(segment: bytes) -> bytes:
    """Octets from canonical, unpadded base64url (RFC 7515 section 2). Raises ValueError."""
    octets = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    if urlsafe_b64encode(octets).rstrip(b"=") != segment:
        raise ValueError("not canonical base64url")
    return octets


def _read_object(octets: bytes) -> dict[str, Any]:
    """A JSON object with one meaning: UTF-8, names once each, numbers finite. Raises ValueError."""
    try:
        found = _JSON.decode(octets.decode())
        if b"\\u" in octets:
            json.dumps(found, ensure_ascii=False).encode()  # a lone surrogate has no octets
    except RecursionError as fault:
        raise ValueError("nested too deeply") from fault
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one class for every malformed input
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member name stands twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is not a JSON number")
    return number


_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite
)


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port (RFC 6454). Raises ValueError unless https, or http to ourselves."""
    try:
        place = httpx.URL(url)
    except httpx.InvalidURL as fault:
        raise ValueError(f"not a URL: {url!r}") from fault
    origin = place.scheme, place.host, place.port
    if not place.host or (place.scheme != "https" and origin[:2] not in _LOOPBACK):
        raise ValueError(f"neither https nor loopback: {url!r}")
    return origin
