"""The consumer library against a real HTTP server that answers as it is told."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import httpx
import jwt
import pytest
import respx
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from maskinporten.consumer import (
    AsyncConsumer,
    Consumer,
    ConsumerMisconfigured,
    TokenError,
    TokenRefused,
    TokenServerUnavailable,
    build_grant,
    read_key,
)
from tests.world import NOW, private_key

KEY = read_key(private_key("backend"), kid="the-kid")
PEM = private_key("backend").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class Endpoint:
    """A token server: its answers in order, the last of them for ever; and what it was sent."""

    url: str = ""
    answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    grants: list[dict[str, Any]] = field(default_factory=list)
    metadata: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def good(self, expires_in: int = 119, **members: Any) -> None:
        """Answer with a token."""
        body = {
            "access_token": f"a.b.{len(self.answers)}",
            "token_type": "Bearer",
            "expires_in": expires_in,
            "scope": "a:b",
            **members,
        }
        self.answers.append((200, body, {}))

    def answer(self, grant: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        """The next answer."""
        self.grants.append(grant)
        number = min(len(self.grants), len(self.answers)) - 1
        return self.answers[number]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A server on a port of its own."""
    found = Endpoint()
    found.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Silence."""

        def do_GET(self) -> None:
            found.metadata += 1
            self.reply(200, {"issuer": found.url, "token_endpoint": found.url + "token"}, {})

        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
            grant = jwt.decode(form["assertion"], options={"verify_signature": False})
            found.gate.wait(5)
            self.reply(*found.answer({**grant, "grant_type": form["grant_type"]}))

        def reply(self, status: int, body: Any, headers: dict[str, str]) -> None:
            octets = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(octets)))
            self.end_headers()
            self.wfile.write(octets)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


class Clock:
    """Stands still."""

    now = float(NOW)

    def __call__(self) -> float:
        """Epoch seconds."""
        return self.now


def consumer(endpoint: Endpoint, **options: Any) -> Consumer:
    """A consumer of that server, that never sleeps."""
    made = {"clock": Clock(), "sleep": lambda _: None, **options}
    return Consumer(endpoint.url, "the-client", KEY, **made)


def test_a_grant_has_these_members_and_no_others() -> None:
    """Header alg and kid; claims as RFC 7523 asks; a resource alone is a string."""
    grant = build_grant(
        KEY,
        issuer="https://x/",
        client_id="c",
        scopes="b:2 a:1 b:2",
        now=NOW,
        jti="j",
        resource="https://api/",
        consumer_org="991825827",
    )
    claims = jwt.decode(
        grant, private_key("backend").public_key(), ["RS256"], audience="https://x/",
        options={"verify_exp": False, "verify_iat": False},
    )  # fmt: skip

    assert jwt.get_unverified_header(grant) == {"alg": "RS256", "kid": "the-kid"}
    assert claims == {
        "aud": "https://x/", "iss": "c", "scope": "b:2 a:1", "iat": NOW, "exp": NOW + 60,
        "jti": "j", "resource": "https://api/", "consumer_org": "991825827",
    }  # fmt: skip


MISTAKES: list[Any] = [
    pytest.param({"scopes": ""}, "scope", id="no scope"),
    pytest.param({"scopes": ['a"b']}, "scope", id="a quote"),
    pytest.param({"resource": "api"}, "resource", id="a relative resource"),
    pytest.param({"resource": []}, "resource", id="no resource at all"),
    pytest.param({"resource": "https://a/#b"}, "resource", id="a fragment"),
    pytest.param({"consumer_org": "99182582"}, "consumer_org", id="eight digits"),
    pytest.param({"pid": "1"}, "pid", id="one digit"),
    pytest.param({"lifetime": 0}, "1 to 120", id="no life"),
    pytest.param({"lifetime": 121}, "1 to 120", id="121 s"),
]


@pytest.mark.parametrize(("wrong", "words"), MISTAKES)
def test_a_mistake_is_told_before_anything_is_sent(wrong: dict[str, Any], words: str) -> None:
    """What the server would refuse for its form never leaves."""
    right = {"issuer": "https://x/", "client_id": "c", "scopes": "a:b", "now": NOW}
    with pytest.raises(ConsumerMisconfigured, match=words):
        build_grant(KEY, **{**right, **wrong})


def test_an_unknown_option_is_a_type_error() -> None:
    """A typo is not a wish."""
    with pytest.raises(TypeError, match="ressource"):
        build_grant(KEY, issuer="https://x/", client_id="c", scopes="a", now=1, ressource="x")  # type: ignore[call-arg]


def test_keys_come_as_pem_and_jwk_and_object() -> None:
    """All three are one key; the repr shows none of it."""
    jwk = json.dumps(jwt.algorithms.RSAAlgorithm.to_jwk(private_key("backend"), as_dict=True))
    for way in (PEM, PEM.decode(), jwk, json.loads(jwk), private_key("backend")):
        key = read_key(way, kid="the-kid")
        assert key == KEY
        assert "RSAPrivateKey" not in repr(key)


WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505 - weak on purpose
BAD_KEYS: list[Any] = [
    pytest.param({"private_key": b"nothing"}, "cannot be read", id="no key"),
    pytest.param({"private_key": "{}"}, "cannot be read", id="an empty JWK"),
    pytest.param({"private_key": WEAK}, "fewer than 2048", id="1024 bits"),
    pytest.param({"kid": None}, "kid, x5c or both", id="neither kid nor x5c"),
    pytest.param({"algorithm": "PS256"}, "RS256", id="an algorithm there is not"),
    pytest.param({"x5c": "nothing"}, "cannot be read", id="no certificate"),
]


@pytest.mark.parametrize(("wrong", "words"), BAD_KEYS)
def test_a_key_that_cannot_work_is_refused(wrong: dict[str, Any], words: str) -> None:
    """At once, in a sentence, without a word of the key."""
    with pytest.raises(ConsumerMisconfigured, match=words):
        read_key(**{"private_key": PEM, "kid": "k", **wrong})


@pytest.mark.parametrize(
    ("issuer", "client_id"),
    [("http://x.example/", "c"), ("https://x.example", "c"), ("https://x/", ""), ("ftp://x/", "c")],
)
def test_a_consumer_that_cannot_work_is_refused(issuer: str, client_id: str) -> None:
    """Tokens go over https; an issuer ends with a slash."""
    with pytest.raises(ConsumerMisconfigured):
        Consumer(issuer, client_id, KEY)


def test_a_token_is_kept_until_shortly_before_it_expires(endpoint: Endpoint) -> None:
    """One call for many uses; ten seconds before the end there is a new one."""
    endpoint.good(expires_in=119)
    endpoint.good()
    clock = Clock()
    backend = consumer(endpoint, clock=clock)

    first = backend.token("a:b")
    clock.now = NOW + 108.9
    assert backend.token(["a:b"]) is first
    clock.now = NOW + 109
    assert backend.token("a:b") is not first
    assert (len(endpoint.grants), endpoint.metadata) == (2, 1)
    assert first.authorization == f"Bearer {first.access_token}"
    assert first.access_token not in repr(first)


def test_a_short_token_is_used_for_most_of_its_life(endpoint: Endpoint) -> None:
    """Of thirty seconds, twenty-four."""
    endpoint.good(expires_in=30)
    endpoint.good()
    clock = Clock()
    backend = consumer(endpoint, clock=clock)
    first = backend.token("a:b")
    clock.now = NOW + 23.9
    assert backend.token("a:b") is first
    clock.now = NOW + 24
    assert backend.token("a:b") is not first


def test_other_wishes_are_other_tokens(endpoint: Endpoint) -> None:
    """Scope, resource and customer each have their own."""
    endpoint.good()
    backend = consumer(endpoint)
    for options in ({}, {"resource": "https://a/"}, {"consumer_org": "991825827"}):
        backend.token("a:b", **options)  # type: ignore[arg-type]
    backend.token("a:c")

    assert len(endpoint.grants) == 4


def test_threads_that_want_the_same_share_one_call(endpoint: Endpoint) -> None:
    """Twenty threads, one grant."""
    endpoint.good()
    endpoint.gate.clear()
    backend = consumer(endpoint)
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(backend.token, "a:b") for _ in range(20)]
        threading.Timer(0.1, endpoint.gate.set).start()
        tokens = {one.result(5) for one in waiting}

    assert (len(tokens), len(endpoint.grants)) == (1, 1)


async def test_tasks_share_one_call_that_survives_the_one_who_began_it(endpoint: Endpoint) -> None:
    """A cancelled task leaves; the others get their token."""
    endpoint.good()
    endpoint.gate.clear()
    backend = AsyncConsumer(endpoint.url, "the-client", KEY, clock=Clock())
    tasks = [asyncio.create_task(backend.token("a:b")) for _ in range(20)]
    await asyncio.sleep(0.05)
    tasks[0].cancel()
    endpoint.gate.set()
    tokens = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(tokens[0], asyncio.CancelledError)
    assert (len(set(tokens[1:])), len(endpoint.grants)) == (1, 1)


def test_a_refusal_says_what_the_server_said_and_is_not_repeated(endpoint: Endpoint) -> None:
    """A 4xx is an answer; asking again is asking for nothing."""
    error = {
        "error": "invalid_grant",
        "error_description": "Expired key. (trace_id: 0af7651916cd43dd8448eb211c80319c)",
        "error_uri": "https://x/errors/MP-121",
    }
    endpoint.answers.append((400, error, {}))
    with pytest.raises(TokenRefused) as refused:
        consumer(endpoint).token("a:b")

    assert (refused.value.status, refused.value.error) == (400, "invalid_grant")
    assert refused.value.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert refused.value.error_uri == error["error_uri"]
    assert len(endpoint.grants) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_what_may_pass_is_tried_again_with_a_new_grant(endpoint: Endpoint, status: int) -> None:
    """5xx and 429: the next attempt has another jti, and Retry-After is kept."""
    slept: list[float] = []
    endpoint.answers.append((status, {}, {"retry-after": "3"}))
    endpoint.good()
    consumer(endpoint, sleep=slept.append).token("a:b")

    first, second = endpoint.grants
    assert first["jti"] != second["jti"]
    assert len(slept) == 1
    assert 3 <= slept[0] <= 4


def test_attempts_are_bounded(endpoint: Endpoint) -> None:
    """Three in all, then the caller is told; a failure is not kept."""
    endpoint.answers += [(503, {}, {})] * 3
    endpoint.good()
    backend = consumer(endpoint)
    with pytest.raises(TokenServerUnavailable) as away:
        backend.token("a:b")
    assert (away.value.status, len(endpoint.grants)) == (503, 3)
    assert backend.token("a:b").scope == "a:b"


def test_a_long_retry_after_ends_the_attempts(endpoint: Endpoint) -> None:
    """Nobody sleeps for a minute inside a call."""
    endpoint.answers.append((503, {}, {"retry-after": "60"}))
    with pytest.raises(TokenServerUnavailable) as away:
        consumer(endpoint).token("a:b")
    assert len(endpoint.grants) == 1
    assert away.value.retry_after == 60


@respx.mock
def test_a_connection_that_fails_is_tried_again() -> None:
    """Nothing was sent, so nothing was spent."""
    route = respx.post("https://x/token").mock(
        side_effect=[
            httpx.ConnectError("refused"),
            httpx.ReadTimeout("slow"),
            httpx.Response(
                200,
                json={"access_token": "t", "token_type": "bearer", "expires_in": 9, "scope": "a"},
            ),
        ]
    )
    backend = Consumer(
        "https://x/", "c", KEY, token_endpoint="https://x/token", sleep=lambda _: None
    )
    assert backend.token("a").access_token == "t"
    assert route.call_count == 3


ODD_ANSWERS: list[Any] = [
    pytest.param((200, b"<html>", {}), id="HTML"),
    pytest.param((200, [], {}), id="an array"),
    pytest.param((200, {"access_token": "t", "token_type": "Bearer"}, {}), id="no expires_in"),
    pytest.param((302, {}, {"location": "https://elsewhere/"}), id="a redirect"),
]


@pytest.mark.parametrize("answer", ODD_ANSWERS)
def test_an_answer_that_is_no_token_is_no_token(endpoint: Endpoint, answer: Any) -> None:
    """Whatever stands there, it is not handed on."""
    endpoint.answers.append(answer)
    with pytest.raises(TokenError):
        consumer(endpoint).token("a:b")


def test_metadata_of_another_issuer_is_refused(endpoint: Endpoint) -> None:
    """The issuer is compared letter by letter."""
    port = endpoint.url.split(":")[2]
    backend = Consumer(f"http://localhost:{port}", "c", KEY) if not port.endswith("/") else None
    assert backend is None
    with pytest.raises(ConsumerMisconfigured, match="not this issuer's"):
        Consumer(f"http://localhost:{port}", "c", KEY).token("a:b")


def test_the_token_goes_on_calls_over_https_only(endpoint: Endpoint) -> None:
    """As httpx.Auth; a plain-http API never sees it."""
    endpoint.good()
    seen: list[str] = []

    def api(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200)

    auth = consumer(endpoint).auth("a:b")
    with httpx.Client(transport=httpx.MockTransport(api), auth=auth) as http:
        http.get("https://api.example/")
        with pytest.raises(ConsumerMisconfigured):
            http.get("http://api.example/")
    assert seen == ["Bearer a.b.0"]


async def test_the_token_goes_on_asynchronous_calls(endpoint: Endpoint) -> None:
    """The same for asyncio."""
    endpoint.good()
    backend = AsyncConsumer(endpoint.url, "the-client", KEY, clock=Clock())
    seen: list[str] = []

    def api(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200)

    transport: Callable[..., Any] = httpx.MockTransport
    async with httpx.AsyncClient(transport=transport(api), auth=backend.auth("a:b")) as http:
        await http.get("https://api.example/")
    assert seen == ["Bearer a.b.0"]
