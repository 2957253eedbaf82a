"""Evidence on running workers: what a fetch leaves, and how it holds an activation back."""

import asyncio
import time

import pytest

from maskinporten.domain.evidence import FORGET_AFTER, Caller, Fetch
from maskinporten.domain.rotation import DAY, RotationPolicy
from maskinporten.domain.signing import Stage
from maskinporten.errors import InvalidInput, Unavailable
from tests.conftest import Starter
from tests.world import NOW, Server

POLICY = RotationPolicy()
DUE = NOW + POLICY.period
LIBRARY = {"user-agent": "lib/1 (ola@example.no)"}


async def fetched(server: Server) -> list[Fetch]:
    """What the store knows after this worker has written."""
    await server.services.fetches.write()
    return sorted(await server.services.store.fetches())


async def kids(server: Server) -> set[str]:
    """What stands in /jwk."""
    registry = server.services.replica.registry
    return {kid for kid, key in registry.signing_keys.items() if key.stage is not Stage.REMOVED}


async def test_a_fetch_leaves_a_library_a_network_and_the_keys(server: Server) -> None:
    """And when it was; a later one replaces it, and nothing personal is in it."""
    await server.http.get("/jwk", headers=LIBRARY)
    server.clock.now += 5
    await server.http.get("/jwk", headers=LIBRARY)

    found = await fetched(server)
    assert {fetch.kid for fetch in found} == await kids(server)
    assert {fetch.caller for fetch in found} == {Caller("lib/1", "127.0.0.0/16")}
    assert {fetch.at for fetch in found} == {NOW + 5}


COUNTS = [
    pytest.param("GET", "tag", 304, True, id="what it holds is current"),
    pytest.param("GET", "W/tag", 304, True, id="the same, by way of a proxy that compresses"),
    pytest.param("GET", '"other"', 200, True, id="what it holds is old"),
    pytest.param("GET", "*", 304, False, id="it holds something"),
    pytest.param("HEAD", "", 200, False, id="the body is not sent"),
]


@pytest.mark.parametrize(("method", "held", "status", "counted"), COUNTS)
async def test_whoever_holds_the_current_set_is_counted(
    server: Server, method: str, held: str, status: int, *, counted: bool
) -> None:
    """A 304 says that the caller has the keys, if it named them."""
    held = held.replace("tag", server.services.keyring.etag)
    answer = await server.http.request(method, "/jwk", headers={"if-none-match": held})

    assert answer.status_code == status
    assert bool(await fetched(server)) == counted


async def test_a_proxy_is_believed_only_where_the_operator_says_so(start: Starter) -> None:
    """X-Forwarded-For from a stranger is passed over."""
    headers = {**LIBRARY, "x-forwarded-for": "192.0.2.1"}
    plain, behind = await start(), await start(trusted_proxies="127.0.0.0/8 ::1/128")
    await plain.http.get("/jwk", headers=headers)
    assert {fetch.network for fetch in await fetched(plain)} == {"127.0.0.0/16"}
    await behind.http.get("/jwk", headers=headers)
    assert {fetch.network for fetch in await fetched(behind)} == {"127.0.0.0/16", "192.0.0.0/16"}


async def test_a_network_that_is_none_stops_the_start(start: Starter) -> None:
    """With what to write."""
    with pytest.raises(InvalidInput, match="apart by spaces"):
        await start(trusted_proxies="10.0.0.1/8")


async def test_strangers_who_invent_names_take_few_places(server: Server) -> None:
    """Attack: a flood of user agents from one network."""
    for number in range(100):
        await server.http.get("/jwk", headers={"user-agent": f"flood/{number}"})

    assert len({fetch.caller for fetch in await fetched(server)}) == 20


async def test_what_cannot_be_written_is_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is away for one write, in which another caller comes."""
    fetches = server.services.fetches
    await server.http.get("/jwk", headers={"user-agent": "first"})

    async def away(*_: object) -> None:
        fetches.saw("second", "127.0.0.1", "", ["k"])
        raise Unavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(server.services.store, "record_fetches", away)
        with pytest.raises(Unavailable):
            await fetches.write()
        await fetches._try()
    assert {fetch.library for fetch in await fetched(server)} == {"first", "second"}


async def test_the_loop_writes_now_and_then_and_at_the_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost when a worker is told to stop."""
    monkeypatch.setattr("maskinporten.evidence._PAUSE", 0.001)
    loop = asyncio.create_task(server.services.fetches.follow())
    await server.http.get("/jwk")
    deadline = time.monotonic() + 5
    while not await server.services.store.fetches():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)
    server.clock.now += FORGET_AFTER + 1
    monkeypatch.setattr("maskinporten.evidence._PAUSE", 1000)
    await asyncio.sleep(0.01)
    await server.http.get("/jwk", headers=LIBRARY)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)

    assert {fetch.library for fetch in await server.services.store.fetches()} == {"lib/1"}


async def acts(server: Server, now: int) -> list[str]:
    """What rotation does at that time."""
    server.clock.now = now
    return [str(step.act) for step in await server.services.rotation.advance()]


async def test_an_activation_waits_for_the_callers(start: Starter) -> None:
    """Half of them have the next key; then all; and one that is not seen any more is not asked."""
    server = await start(rotation_evidence=100)
    active = server.services.keyring.signing_key().kid
    store = server.services.store
    new = (await kids(server) - {active}).pop()
    ours = [Fetch("a", "n", kid, DUE - DAY) for kid in (active, new)]
    await store.record_fetches([*ours, Fetch("b", "n", active, DUE - 7 * DAY)], 0)

    assert await acts(server, DUE) == []
    assert await acts(server, DUE + 1) == ["activate", "prepare"]


async def test_an_activation_does_not_wait_for_ever(start: Starter) -> None:
    """Nobody was seen at all: nothing is known, and patience ends."""
    server = await start(rotation_evidence=1, rotation_evidence_patience=60)

    assert await acts(server, DUE + 59) == []
    assert await acts(server, DUE + 60) == ["activate", "prepare"]


async def test_without_the_setting_nobody_is_waited_for(server: Server) -> None:
    """As before."""
    await server.services.store.record_fetches([Fetch("a", "n", "k", DUE)], 0)

    assert await acts(server, DUE) == ["activate", "prepare"]
