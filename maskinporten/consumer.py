"""For organisation backends: build a grant, fetch a token, keep it until shortly before it expires.

    key = read_key(Path("key.pem").read_bytes(), kid="the-id-of-the-registered-key")
    consumer = Consumer("https://test.maskinporten.no/", "the-client-id", key)
    api = httpx.Client(auth=consumer.auth("skatteetaten:innrapportering.read"))

This file imports nothing of ours and may be copied out. No message and no repr holds the private
key, a grant or a token. Every error is a `TokenError`; anything else is a fault of this file.
"""

import asyncio
import base64
import contextlib
import json
import operator
import random
import re
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping
from concurrent.futures import Future
from dataclasses import KW_ONLY, dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final, TypeAlias, TypedDict, TypeVar, Unpack

import httpx
import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

ALGORITHMS: Final = ("RS256", "RS384", "RS512")  # Maskinporten: token page
MIN_KEY_SIZE: Final = 2048  # bits (RFC 7518 section 3.3)
MAX_GRANT_LIFETIME: Final = 120  # seconds from iat to exp (Maskinporten: token page)
MAX_PAUSE: Final = 10.0  # seconds between two attempts; a longer Retry-After ends the attempts
_FIRST_PAUSE: Final = 0.25  # seconds, doubled for each further attempt
# A token is renewed while it still has this to live, so that the call it is put on can arrive, at
# a provider whose clock may run ahead. The share is for short tokens: 30 s are used for 24.
_MAX_MARGIN: Final = 10.0  # seconds
_MARGIN_SHARE: Final = 0.2  # of expires_in
_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_BEARER: Final = re.compile(r"(?i:bearer) [A-Za-z0-9._~+/-]+=* [0-9]+")  # RFC 6750 section 2.1
_GRAMMAR: Final = {
    "scope": (r"[\x21\x23-\x5B\x5D-\x7E ]+", "one name or more (RFC 6749 section 3.3)"),
    "resource": (r"([A-Za-z][\w+.-]*:[^\s#]+( \b|$))+", "absolute URIs, no fragment (RFC 8707)"),
    "consumer_org": (r"[0-9]{9}", "an organisation number, nine digits"),
    "pid": (r"[0-9]{11}", "a national identity number, eleven digits"),
    "iss_onbehalfof": (r".+", "the id of an onbehalfof entry"),
}
_T = TypeVar("_T")
_Launch: TypeAlias = Callable[[Callable[[], None]], object]  # does the work, now or elsewhere
Scopes: TypeAlias = str | Collection[str]  # one string with spaces between, or a name each


class TokenError(Exception):
    """No token. Its subclasses are the three reasons."""


class ConsumerMisconfigured(TokenError, ValueError):
    """Waiting will not help: an argument, the issuer or its metadata is wrong."""


@dataclass(eq=False)
class TokenRefused(TokenError):
    """The server's no, in its own words; None where it had none (RFC 6749 section 5.2)."""

    status: int
    error: str | None
    error_description: str | None
    error_uri: str | None

    @property
    def trace_id(self) -> str | None:
        """What Maskinporten's support asks for; it ends the description."""
        found = re.search(r"\(trace_id: ([0-9a-f]+)\)", self.error_description or "")
        return found[1] if found else None

    def __str__(self) -> str:
        words = ", ".join(filter(None, (self.error, self.error_description, self.error_uri)))
        words = "".join(filter(str.isprintable, words))[:1000]  # one line of a log, not several
        return f"The token server refused with status {self.status}: {words or 'no reason given'}"


@dataclass(eq=False)
class TokenServerUnavailable(TokenError):
    """No usable answer; later may be better. Not chained to httpx, whose errors hold the grant."""

    message: str
    status: int | None = None  # of the last answer, if there was one
    retry_after: float = 0.0  # seconds the server asked us to wait

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class GrantKey:
    """A private key that signs grants, and how the server finds its other half. See `read_key`."""

    private: RSAPrivateKey = field(repr=False, compare=False)
    algorithm: str
    header: Mapping[str, Any]  # kid, x5c (base64 of DER, the leaf first) or both


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token and how long it may be used (RFC 6749 section 5.1)."""

    access_token: str = field(repr=False)
    token_type: str
    expires_in: int  # seconds, as answered
    scope: str
    expires_at: int  # epoch seconds by our clock, counted from when we asked

    @property
    def authorization(self) -> str:
        """The value of the Authorization header (RFC 6750 section 2.1)."""
        return f"Bearer {self.access_token}"


class GrantOptions(TypedDict, total=False):
    """What a grant may ask for beside scopes (Maskinporten: token page)."""

    resource: str | Collection[str] | None  # the API's absolute URI, or several (RFC 8707)
    consumer_org: str | None  # nine digits: the organisation that has delegated to us in Altinn
    pid: str | None  # eleven digits: the person the call is about
    iss_onbehalfof: str | None  # the id of an onbehalfof entry on the client
    authorization_details: Collection[Mapping[str, Any]] | None  # RFC 9396: system user, consent


def read_key(
    private_key: RSAPrivateKey | bytes | str | Mapping[str, Any],
    *,
    kid: str | None = None,
    x5c: bytes | str | Collection[bytes | str] = (),
    algorithm: str | None = None,
) -> GrantKey:
    """The key to sign with: unencrypted PEM, a key object, or a private JWK as mapping or JSON.

    `kid` names a registered key; `x5c` is the enterprise certificate and its chain, leaf first,
    as PEM, or one by one as DER (bytes) or its base64 (str). One of the two there must be. A JWK's
    own `kid` and `alg` count where the arguments are silent; then RS256. ConsumerMisconfigured.
    """
    key: object = private_key
    jwk: Mapping[str, Any] = {}
    try:
        if isinstance(key, bytes | str):
            text = key if isinstance(key, bytes) else key.encode()
            key = json.loads(text) if b"{" in text else load_pem_private_key(text, None)
        if isinstance(key, Mapping):
            jwk, key = key, jwt.algorithms.RSAAlgorithm.from_jwk(dict(key))
        if isinstance(x5c, bytes | str):
            chain = x509.load_pem_x509_certificates(x5c if isinstance(x5c, bytes) else x5c.encode())
        else:
            ders = (c if isinstance(c, bytes) else base64.b64decode(c, validate=True) for c in x5c)
            chain = list(map(x509.load_der_x509_certificate, ders))
    except Exception:  # noqa: BLE001 - refused below and unchained: the fault may quote the key
        key, chain = None, []
    if not isinstance(key, RSAPrivateKey):
        raise ConsumerMisconfigured("The private key or a certificate cannot be read.")
    if key.key_size < MIN_KEY_SIZE:
        raise ConsumerMisconfigured(f"The private key has fewer than {MIN_KEY_SIZE} bits.")
    if (algorithm := algorithm or jwk.get("alg") or "RS256") not in ALGORITHMS:
        raise ConsumerMisconfigured(f"The algorithm must be one of {', '.join(ALGORITHMS)}.")
    if not (kid := kid or jwk.get("kid")) and not chain:
        raise ConsumerMisconfigured("Give kid, x5c or both: the server must find the public key.")
    if chain and chain[0].public_key() != key.public_key():
        raise ConsumerMisconfigured("The first certificate in x5c is not for the private key.")
    x5c = [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in chain]
    return GrantKey(key, algorithm, ({"kid": kid} if kid else {}) | ({"x5c": x5c} if x5c else {}))


def build_grant(
    key: GrantKey,
    *,
    issuer: str,
    client_id: str,
    scopes: Scopes,
    now: int,
    lifetime: int = 60,
    jti: str | None = None,
    **options: Unpack[GrantOptions],
) -> str:
    """The signed JWT grant, ready to be sent as `assertion` (RFC 7523 section 2.1).

    `now` is epoch seconds and becomes `iat`; `lifetime` is seconds; `jti` is random if not given.
    Scopes keep their order, each once. The header is `alg` and the key's `kid` and `x5c`, no more.
    Raises ConsumerMisconfigured.
    """
    if not 1 <= lifetime <= MAX_GRANT_LIFETIME:
        raise ConsumerMisconfigured(f"A grant lives from 1 to {MAX_GRANT_LIFETIME} seconds.")
    claims = {"aud": issuer, "iss": client_id, **_read_wish(scopes, options)}
    claims |= {"iat": now, "exp": now + lifetime, "jti": jti or str(uuid.uuid4())}
    # PyJWT adds a `typ` by itself; an empty one takes it away.
    return jwt.encode(claims, key.private, key.algorithm, {"typ": "", **key.header})


def _read_wish(scopes: Scopes, options: GrantOptions) -> dict[str, Any]:
    """The claims that say what is wanted. None is left out; empty is a mistake, not a wish."""
    if unknown := options.keys() - GrantOptions.__annotations__.keys():
        raise TypeError(f"A grant has no {min(unknown)}.")
    wish: dict[str, Any] = {name: each for name, each in options.items() if each is not None}
    parts = [scopes] if isinstance(scopes, str) else scopes
    wish["scope"] = " ".join(dict.fromkeys(name for part in parts for name in part.split()))
    if not isinstance(wish.get("resource", ""), str):
        resources = list(dict.fromkeys(wish["resource"]))
        wish["resource"] = resources[0] if len(resources) == 1 else resources
    for name in _GRAMMAR.keys() & wish.keys():
        text = " ".join(wish[name]) if isinstance(wish[name], list) else wish[name]
        if not (isinstance(text, str) and re.fullmatch(_GRAMMAR[name][0], text)):
            raise ConsumerMisconfigured(f"{name} must be {_GRAMMAR[name][1]}.")
    return wish


@dataclass(repr=False, eq=False)
class _Source:
    """What both kinds of consumer do: ask, read the answer, keep the token."""

    issuer: str  # as published, with its slash
    client_id: str
    key: GrantKey
    _: KW_ONLY
    token_endpoint: str | None = None  # None: what the issuer's metadata says
    http: httpx.Client | None = None  # to reuse connections; else each call makes its own
    timeout: float = 10.0  # seconds, each for connecting, sending and any wait for the answer
    attempts: int = 3  # in all, for the metadata and for each token; 1 means never again
    grant_lifetime: int = 60  # seconds
    max_tokens: int = 1024  # kept; the one unused for longest gives way
    clock: Callable[[], float] = time.time  # epoch seconds
    sleep: Callable[[float], object] = time.sleep  # seconds
    insecure_allow_http_beyond_loopback: bool = False  # lets anyone on the way take the tokens
    # Calls under way, and what is kept: calls that are done. Owned by `_share`, under the lock.
    _tokens: OrderedDict[str, Future[AccessToken]] = field(init=False, default_factory=OrderedDict)
    _endpoints: OrderedDict[str, Future[str]] = field(init=False, default_factory=OrderedDict)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if not self.issuer.endswith("/") or not self.client_id:
            raise ConsumerMisconfigured("Give a client_id, and an issuer that ends with a slash.")
        if min(self.attempts, self.max_tokens, self.grant_lifetime) < 1:
            raise ConsumerMisconfigured("attempts, max_tokens, grant_lifetime must be positive.")
        for url in filter(None, (self.issuer, self.token_endpoint)):
            self.verify_secure(url)

    def verify_secure(self, url: httpx.URL | str) -> None:
        """HTTPS (RFC 6749 section 3.2), or HTTP within this machine. ConsumerMisconfigured."""
        local = r"http://(localhost|127(\.[0-9]+){3}|\[::1\])(:[0-9]+)?(/|\Z)"
        allowed = "https?://" if self.insecure_allow_http_beyond_loopback else f"https://|{local}"
        if not re.match(allowed, str(url)):
            raise ConsumerMisconfigured("Tokens go over https; over http only within the machine.")

    def auth(self, scopes: Scopes, **options: Unpack[GrantOptions]) -> httpx.Auth:
        """For the API's httpx client, of either kind: puts the token on each call, over https."""
        _read_wish(scopes, options)
        return _Bearer(self, scopes, options)

    def ask(self, do: _Launch, scopes: Scopes, **more: Unpack[GrantOptions]) -> Future[AccessToken]:
        """The token to be; if a call has to be made, `do` is given it. Raises as `token` does."""
        claims = _read_wish(scopes, more)
        claims["scope"] = " ".join(sorted(claims["scope"].split()))  # one set, one token
        wish = json.dumps(claims, sort_keys=True)
        return self._share(self._tokens, wish, partial(self._fetch, wish), do)

    def _share(
        self, flights: OrderedDict[str, Future[_T]], name: str, fly: Callable[[], _T], do: _Launch
    ) -> Future[_T]:
        """What is kept under the name, or else the one call under way for it."""
        with self._lock:
            flight = flights.pop(name, None)
            is_new = flight is None or (flight.done() and not self._is_good(flight))
            flight = flights[name] = Future() if flight is None or is_new else flight
            if len(flights) > self.max_tokens:
                flights.popitem(last=False)

        def settle() -> None:
            try:
                flight.set_result(fly())
            except Exception as fault:  # noqa: BLE001 - each who waits raises it
                flight.set_exception(fault)

        try:
            if is_new:
                flight.set_running_or_notify_cancel()  # Who waits may leave, not call it off.
                do(settle)
        except BaseException:  # Not launched, or interrupted: that is not the others' affair.
            flight.set_exception(TokenServerUnavailable("The call was interrupted."))
            raise
        return flight

    def _is_good(self, flight: Future[Any]) -> bool:
        token = None if flight.exception() else flight.result()
        if not isinstance(token, AccessToken):
            return token is not None
        margin = min(_MAX_MARGIN, token.expires_in * _MARGIN_SHARE)
        # A token from the future is one from before our clock was set back: its age is unknown.
        asked_at = token.expires_at - token.expires_in
        return asked_at <= self.clock() < token.expires_at - margin

    def _discover(self) -> str:
        """The token endpoint as the issuer publishes it (RFC 8414 section 3)."""
        url = f"{self.issuer}.well-known/oauth-authorization-server"
        match self._exchange(url):
            case 200, {"issuer": self.issuer, "token_endpoint": str(endpoint)}, _:
                self.verify_secure(endpoint)
                return endpoint
            case status, _, _:
                raise ConsumerMisconfigured(
                    f"{url} is not this issuer's metadata (status {status})."
                )

    def _fetch(self, wish: str) -> AccessToken:
        claims = json.loads(wish) | {"issuer": self.issuer, "client_id": self.client_id}
        claims |= {"scopes": claims.pop("scope"), "lifetime": self.grant_lifetime}
        if (endpoint := self.token_endpoint) is None:
            endpoint = self._share(self._endpoints, "", self._discover, operator.call).result()
        status, found, now = self._exchange(endpoint, partial(build_grant, self.key, **claims))
        if 400 <= status < 500:  # noqa: PLR2004 - RFC 9110 section 15.5
            words = map(found.get, ("error", "error_description", "error_uri"))
            raise TokenRefused(status, *(w if isinstance(w, str) else None for w in words))
        found.setdefault("scope", claims["scopes"])  # may be left out (RFC 6749 section 5.1)
        match [found.get(name) for name in ("token_type", "access_token", "expires_in", "scope")]:
            case [str(kind), str(token), int(seconds), str(scope)] if (
                status == httpx.codes.OK and _BEARER.fullmatch(f"{kind} {token} {seconds}")
            ):
                return AccessToken(token, kind, seconds, scope, now + seconds)
        raise TokenServerUnavailable(f"{endpoint} gave no bearer token (status {status}).", status)

    def _exchange(self, url: str, grant: partial[str] | None = None) -> tuple[int, Any, int]:
        """Status and JSON of the first answer that is final, and the second its call was made.

        A grant answered with 5xx was not spent; one whose answer was lost may be. Each attempt has
        a new grant, so any fault is safe to try again: at worst there is a token nobody has.
        """
        # What the client puts on other calls is not for this server, nor a grant for another.
        options: Any = {"timeout": self.timeout, "auth": None, "follow_redirects": False}
        request = self.http.request if self.http else httpx.request
        for attempt in range(1, self.attempts + 1):
            now, status, asked = int(self.clock()), None, 0.0
            form = {"grant_type": _JWT_BEARER, "assertion": grant(now=now)} if grant else None
            try:
                answer = request("POST" if form else "GET", url, data=form, **options)
            except httpx.RequestError as fault:
                words = f"{type(fault).__name__} {fault}"[:200]
            else:
                status, words = answer.status_code, f"status {answer.status_code}"
                if status < 500 and status != 429:  # noqa: PLR2004 - RFC 6585 section 4
                    return status, _read_object(answer), now
                asked = _read_retry_after(answer.headers.get("Retry-After", ""), now)
            if attempt == self.attempts or asked > MAX_PAUSE:
                break
            pause = min(MAX_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1))
            self.sleep(asked + pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
        raise TokenServerUnavailable(f"No answer to use from {url}: {words}.", status, asked)


def _read_object(answer: httpx.Response) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(found := answer.json(), dict):
            return found
    return {}


def _read_retry_after(value: str, now: int) -> float:
    """Seconds, told as such or as a date (RFC 9110 section 10.2.3); 0 where it says nothing."""
    with contextlib.suppress(ValueError, OverflowError):
        date = None if value.isdecimal() else parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - now) if date else float(value)
    return 0.0


async def _wait(source: _Source, scopes: Scopes, options: GrantOptions) -> AccessToken:
    launch = partial(asyncio.get_running_loop().run_in_executor, None)
    flight = source.ask(launch, scopes, **options)
    return flight.result() if flight.done() else await asyncio.wrap_future(flight)


class Consumer(_Source):
    """Fetches and keeps tokens, for any number of threads. Raises ConsumerMisconfigured."""

    def token(self, scopes: Scopes, **options: Unpack[GrantOptions]) -> AccessToken:
        """The token for just these scopes and options, kept or new. Raises TokenError.

        Callers who wish for the same at once share one call and its outcome; no failure is kept.
        """
        return self.ask(operator.call, scopes, **options).result()


class AsyncConsumer(_Source):
    """`Consumer` for asyncio. Calls and signatures are made in threads, not on the loop.

    A caller that is cancelled leaves; the call goes on for the others and for later ones.
    """

    async def token(self, scopes: Scopes, **options: Unpack[GrantOptions]) -> AccessToken:
        """As `Consumer.token`."""
        return await _wait(self, scopes, options)


@dataclass(frozen=True)
class _Bearer(httpx.Auth):
    source: _Source
    scopes: Scopes
    options: GrantOptions

    def _put(self, request: httpx.Request, token: AccessToken) -> httpx.Request:
        request.headers["Authorization"] = token.authorization
        return request

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, Any, None]:
        self.source.verify_secure(request.url)
        yield self._put(
            request, self.source.ask(operator.call, self.scopes, **self.options).result()
        )

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, Any]:
        self.source.verify_secure(request.url)
        yield self._put(request, await _wait(self.source, self.scopes, self.options))
