"""The canary on running workers: all agree which key signs for whom, and going back is at once."""

import asyncio
import json
import time
from base64 import urlsafe_b64decode

import pytest

from maskinporten.administration import administer
from maskinporten.domain.canary import call_back, put_on_canary
from maskinporten.domain.registry import Change, Registry
from maskinporten.domain.rotation import DAY, RotationPolicy
from maskinporten.domain.signing import takes_part
from maskinporten.errors import InvalidInput
from tests.conftest import Starter
from tests.world import CONSUMER, NOW, Server, assertion, client

POLICY = RotationPolicy()
CLIENTS = [f"c{n}" for n in range(20)]
SECTIONS = {"clients": [client(name, CONSUMER, "skatt:open") for name in CLIENTS]}


async def signer(server: Server, client_id: str) -> str:
    """The kid of a token issued to the client now."""
    now = int(server.clock.now)
    grant = assertion(client_id, scope="skatt:open", iat=now, exp=now + 60)
    header = (await server.post(grant)).json()["access_token"].split(".")[0]
    kid: str = json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]
    return kid


async def put(server: Server, share: int) -> None:
    """What `keys canary` does: 0 is off."""

    def decide(registry: Registry) -> Change:
        keys = tuple(registry.signing_keys.values())
        now = int(server.clock.now)
        return Change(put_on_canary(keys, share, POLICY, now) if share else call_back(keys, now))

    services = server.services
    await administer(services.store, services.replica, decide, {"kind": "operator"}, "canary", NOW)


async def test_every_worker_signs_for_the_same_clients_with_the_next_key(start: Starter) -> None:
    """The share is in the registry; going back acts on all of them within a second."""
    servers = [await start(sections=SECTIONS) for _ in range(2)]
    keyring = servers[0].services.keyring
    active, spare = keyring.signing_key().kid, keyring.next_key().kid
    key_set = keyring.key_set
    for server in servers:
        server.clock.now = NOW + POLICY.lead
    for share in (40, 0):
        await put(servers[0], share)
        expected = [spare if takes_part(spare, share, name) else active for name in CLIENTS]
        assert set(expected) == ({active, spare} if share else {active})
        for server in servers:
            deadline = time.monotonic() + 5
            while [await signer(server, name) for name in CLIENTS] != expected:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
    assert keyring.key_set == key_set


async def test_a_ramp_runs_by_itself(start: Starter) -> None:
    """Each step is a commit of one worker, and the last is the activation."""
    server = await start(rotation_canary="1, 50", rotation_canary_time=2 * DAY)
    acts = []
    for days in (-3, -2, -1, 0):
        server.clock.now = NOW + POLICY.period + days * DAY
        acts.append([str(step.act) for step in await server.services.rotation.advance()])

    assert acts == [[], ["canary"], ["canary"], ["activate", "prepare"]]


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [("1;2", "percentages such as"), ("50,10", "rising"), ("100", "rising"), ("0", "rising")],
)
async def test_shares_that_are_none_stop_the_start(
    start: Starter, shares: str, sentence: str
) -> None:
    """With what they should be."""
    with pytest.raises(InvalidInput, match=sentence):
        await start(rotation_canary=shares)
