"""The keys of a client: replaced as a whole or one at a time, for a year at most."""

import json
from typing import Any

from cryptography.hazmat.primitives import serialization

from maskinporten.domain.client import MAX_KEY_LIFETIME
from tests.conftest import Starter
from tests.selfservice.organisations import (
    Organisation,
    admin_world,
    minimal,
    organisation,
    sentences,
)
from tests.world import CONSUMER, NOW, assertion, jwk, private_key

PATH = "/api/v1/clients/k/jwks"


async def begin(start: Starter) -> Organisation:
    """An organisation with a client `k` that has no key."""
    own = await organisation(await start(sections=admin_world()), CONSUMER)
    await own.ok("POST", "/clients", minimal(client_id="k"))
    return own


async def test_replaced_as_a_whole(start: Starter) -> None:
    """The new set is the set; both the answer and the reading show when each key expires."""
    own = await begin(start)
    assert await own.ok("GET", PATH) == {"keys": []}

    await own.ok("POST", PATH, {"keys": [jwk("a"), jwk("b")]})
    stored = await own.ok(
        "POST", PATH, {"keys": [jwk("c", exp=NOW + 60, ext=True, x5c=[], x5t=None)]}
    )

    assert stored == await own.ok("GET", PATH + "/")
    (key,) = stored["keys"]
    assert key == {
        **jwk("c"),
        "exp": NOW + 60,
        "created": "2027-01-15T08:00:00.000Z",
        "last_updated": "2027-01-15T08:00:00.000Z",
    }
    assert {"created", "last_updated"} <= stored.keys()


async def test_posted_again_is_renewed(start: Starter) -> None:
    """A year from posting; sent back with its own exp it stays as it is."""
    own = await begin(start)
    first = await own.ok("POST", PATH, {"keys": [jwk("a")]})
    own.server.clock.now = NOW + 30

    same = await own.ok("PUT", PATH, first)
    again = await own.ok("POST", PATH, {"keys": [jwk("a")]})

    assert first["keys"][0]["exp"] == same["keys"][0]["exp"] == NOW + MAX_KEY_LIFETIME
    assert again["keys"][0]["exp"] == NOW + 30 + MAX_KEY_LIFETIME
    assert again["keys"][0]["created"] == first["keys"][0]["created"]


FAULTS: list[tuple[Any, str]] = [
    ([], "keys"),
    ("x", ""),
    ([jwk(str(n)) for n in range(6)], "keys"),
    ([jwk("a"), jwk("a")], "keys[1].kid"),
    ([jwk("a", d="AQAB")], "keys[0]"),
    ([jwk("a", k="AQAB")], "keys[0]"),
    ([jwk("a", kty="EC")], "keys[0]"),
    ([jwk("a", kty="oct")], "keys[0]"),
    ([jwk("a", use="enc")], "keys[0]"),
    ([{name: value for name, value in jwk("a").items() if name != "use"}], "keys[0].use"),
    ([jwk("a", key_ops=["sign"])], "keys[0]"),
    ([jwk("a", alg="PS256")], "keys[0].alg"),
    ([jwk("a", alg=["RS256"])], "keys[0].alg"),
    ([jwk("a", kid="a b")], "keys[0].kid"),
    ([jwk("a", kid="x" * 256)], "keys[0].kid"),
    ([jwk("a", kid=7)], "keys[0].kid"),
    ([jwk("a", n="AQAB")], "keys[0]"),
    ([jwk("a", e="Aw")], "keys[0]"),
    ([jwk("a", exp=NOW)], "keys[0].exp"),
    ([jwk("a", exp=NOW + MAX_KEY_LIFETIME + 1)], "keys[0].exp"),
    ([jwk("a", exp=[1])], "keys[0].exp"),
    ([jwk("a", exp=NOW + 60.5)], "keys[0].exp"),
    ([jwk("a", x5c=["AQAB"])], "keys[0].x5c"),
    ([jwk("a", x5c=["AQAB"] * 7)], "keys[0].x5c"),
    ([jwk("a", x5c=["A" * 12_000])], "keys[0].x5c"),
    ([jwk("a", x5c=[7])], "keys[0].x5c"),
    ([jwk("a", x5c="AQAB")], "keys[0].x5c"),
    (["a"], "keys[0]"),
    ([jwk("a")] * 1000, "keys"),
]


async def test_one_bad_key_refuses_the_set(start: Starter) -> None:
    """The old set stays (attack 24)."""
    own = await begin(start)
    before = await own.ok("POST", PATH, {"keys": [jwk("old")]})

    for keys, where in FAULTS:
        answer = await own.call("POST", PATH, {"keys": keys})
        assert answer.status_code == 400, answer.text
        assert where in sentences(answer), (where, answer.text)
    assert await own.ok("GET", PATH) == before


async def test_one_at_a_time(start: Starter) -> None:
    """Added, replaced, read, removed under its own address; five are enough."""
    own = await begin(start)
    for name in "abcde":
        await own.ok("PUT", f"{PATH}/{name}", jwk(name))

    sixth = await own.call("PUT", f"{PATH}/f", jwk("f"))

    assert sixth.status_code == 409
    assert (await own.ok("PUT", f"{PATH}/a", jwk("z", kid="a")))["n"] == jwk("z")["n"]
    assert (await own.ok("GET", f"{PATH}/a"))["kid"] == "a"
    assert (await own.call("PUT", f"{PATH}/a", jwk("b"))).status_code == 400
    gone = await own.call("DELETE", f"{PATH}/a/")
    assert (gone.status_code, gone.content) == (200, b"")
    for method in ("GET", "DELETE"):
        assert (await own.call(method, f"{PATH}/a")).status_code == 404
    emptied = await own.call("DELETE", PATH)
    assert (emptied.status_code, await own.ok("GET", PATH)) == (200, {"keys": []})


async def test_a_removed_key_opens_nothing(start: Starter) -> None:
    """Attack 29, on the worker that removed it."""
    own = await begin(start)
    await own.ok("POST", PATH, {"keys": [jwk("a"), jwk("b")]})
    grant: dict[str, Any] = {"signed_by": "a", "header": {"kid": "a"}, "scope": "skatt:open"}
    assert (await own.server.post(assertion("k", **grant))).status_code == 200

    await own.ok("DELETE", f"{PATH}/a")

    assert (await own.server.post(assertion("k", **grant))).status_code == 400


def pem(name: str) -> str:
    """The public key of that name."""
    public = private_key(name).public_key()
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def private_pem(name: str) -> str:
    """What must never be sent."""
    return (
        private_key(name)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


async def post_text(own: Organisation, text: str, path: str = "/api/v2/clients/k/key") -> Any:
    """A key as the web front-end sends it."""
    headers = {"Authorization": f"Bearer {own.token}", "Content-Type": "text/plain"}
    return await own.server.http.post(path, content=text, headers=headers)


async def test_a_key_as_text(start: Starter) -> None:
    """PEM and JWK; a private key is refused in either."""
    own = await begin(start)

    added = await post_text(own, pem("a"))
    as_jwk = await post_text(own, json.dumps(jwk("b")))

    assert (added.status_code, as_jwk.status_code) == (200, 200)
    assert added.json()["n"] == jwk("a")["n"]
    assert len((await own.ok("GET", PATH))["keys"]) == 2
    for text in (private_pem("a"), "nonsense", "", "-----BEGIN PUBLIC KEY-----", "[]"):
        assert (await post_text(own, text)).status_code == 400
    assert "public key only" in (await post_text(own, private_pem("a"))).text
