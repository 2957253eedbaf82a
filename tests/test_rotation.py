"""Rotation on running workers: one commit wins, all follow, and tokens flow meanwhile."""

import asyncio
import base64
import json
import time

import pytest

from maskinporten.domain.rotation import DAY, HOUR, RotationPolicy
from maskinporten.domain.signing import Stage
from maskinporten.errors import InvalidInput, Unavailable
from tests.conftest import Starter
from tests.world import NOW, Server, assertion

POLICY = RotationPolicy()


async def kids(server: Server) -> list[str]:
    """What stands in /jwk, in its order."""
    return [key["kid"] for key in (await server.http.get("/jwk")).json()["keys"]]


async def signer(server: Server) -> str:
    """The kid of a token issued now."""
    now = int(server.clock.now)
    answer = await server.post(assertion(iat=now, exp=now + 60))
    header = answer.json()["access_token"].split(".")[0]
    kid: str = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]
    return kid


async def test_a_first_start_publishes_a_key_and_its_spare(server: Server) -> None:
    """The first of /jwk signs; the second waits."""
    first, _spare = await kids(server)

    assert await signer(server) == first


async def test_workers_that_rotate_at_once_agree(start: Starter) -> None:
    """Everyone tries, one commit wins; the one that lost follows within a second."""
    servers = [await start() for _ in range(3)]
    old, spare = await kids(servers[0])
    for server in servers:
        server.clock.now = NOW + POLICY.period

    taken = await asyncio.gather(*(server.services.rotation.advance() for server in servers))

    assert sorted(step.act for steps in taken for step in steps) == ["activate", "prepare"]
    for server in servers:
        deadline = time.monotonic() + 1
        while (shown := await kids(server))[0] != spare or len(shown) != 3:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert await signer(server) == spare
        assert shown[2] == old


async def test_a_removed_key_leaves_the_key_set_and_its_private_half_the_database(
    server: Server,
) -> None:
    """After the last token it signed has died, and the margin."""
    old, _ = await kids(server)
    for later in (POLICY.period, 2 * DAY):
        server.clock.now += later
        await server.services.rotation.advance()

    assert old not in await kids(server)
    removed = server.services.replica.registry.signing_keys[old]
    assert (removed.stage, removed.sealed) == (Stage.REMOVED, "")


async def test_the_key_set_may_be_kept_until_the_next_key_signs(server: Server) -> None:
    """Cache-Control follows the clock."""
    server.clock.now = NOW + POLICY.period - HOUR // 2

    assert (await server.http.get("/jwk")).headers["cache-control"] == "public, max-age=1800"


async def test_tokens_flow_while_keys_are_made(server: Server) -> None:
    """Key generation stands beside the token line (the loop is never held for long)."""
    server.clock.now = NOW + POLICY.period
    await server.services.replica.catch_up()  # it would be a period old
    making = asyncio.create_task(server.services.rotation.advance())
    issued = 0
    while not making.done():
        await signer(server)
        issued += 1
        await asyncio.sleep(0)

    assert issued > 1
    assert [step.act for step in await making] == ["activate", "prepare"]


async def test_the_loop_goes_on_after_what_fails(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is away, or a defect, is tried again at the next look."""
    rotation = server.services.rotation
    faults: list[Exception] = [Unavailable("away"), ZeroDivisionError()]
    looked = asyncio.Event()

    async def advance(**_: bool) -> None:
        if faults:
            raise faults.pop()
        looked.set()

    monkeypatch.setattr("maskinporten.rotation._PAUSE", 0.001)
    monkeypatch.setattr(rotation, "advance", advance)
    loop = asyncio.create_task(rotation.run())
    await asyncio.wait_for(looked.wait(), 5)
    loop.cancel()

    assert not faults


async def test_settings_that_could_fail_a_validation_stop_the_start(start: Starter) -> None:
    """The sentence says which number."""
    with pytest.raises(InvalidInput, match="the lead is 60 s, and must be at least 86460 s"):
        await start(rotation_lead=60)
