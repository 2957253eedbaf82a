"""The canary on running workers: all agree which key signs for whom, and going back is at once."""

import asyncio
import json
import sqlite3
import time
from base64 import urlsafe_b64decode
from contextlib import closing
from pathlib import Path

import pytest

from maskinporten.administration import administer
from maskinporten.cli import main
from maskinporten.domain.canary import call_back, put_on_canary
from maskinporten.domain.registry import Change, Registry
from maskinporten.domain.rotation import DAY, RotationPolicy
from maskinporten.domain.signing import takes_part
from maskinporten.errors import InvalidInput
from tests.conftest import Starter
from tests.test_cli import serving
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
        await server.services.replica.catch_up()  # it would be two days old
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


def test_by_hand_on_a_running_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words an operator reads: too early, on, and back; and who has fetched the next key."""
    for name, value in serving(tmp_path, ROTATION_EVIDENCE="80").items():
        monkeypatch.setenv(f"MASKINPORTEN_{name}", value)

    def run(*arguments: str) -> tuple[int, str]:
        code = main(arguments)
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    assert run("check")[0] == 0
    code, said = run("keys", "canary", "10")
    assert (code, "may not sign before" in said) == (1, True), said
    for wrong in ("100", "0", "x", "-1", "\N{SUPERSCRIPT TWO}"):
        code, said = run("keys", "canary", "--", wrong)
        assert (code, "1 to 99" in said) == (1, True), said
    assert "no keys are named stranger" in run("keys", "canary", "10", "--key", "stranger")[1]
    assert run("keys", "canary", "off") == (0, "no key was on canary\n")

    keys = json.loads(run("keys", "list", "--json")[1])
    (spare,) = (key["kid"] for key in keys if key["stage"] == "prepared")
    with closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as db:
        select = "SELECT body FROM entity WHERE kind = 'signing_key' AND id = ?"
        body = json.loads(db.execute(select, (spare,)).fetchone()[0])
        body["prepared"] -= POLICY.lead
        db.execute("UPDATE entity SET body = ? WHERE id = ?", (json.dumps(body), spare))
        seen = int(time.time())
        callers = [("has/1", spare), *((f"lacks/{n}", "old") for n in range(11))]
        for library, kid in callers:
            values = (library, "10.0.0.0/16", kid, seen)
            db.execute("INSERT INTO jwk_fetch VALUES (?, ?, ?, ?)", values)
    code, said = run("keys", "canary", "10%", "--key", spare[:8])
    assert (code, f"{spare} signs for 10 % of the clients since" in said) == (0, True), said
    said = run("keys", "status")[1]
    assert f"1 of 12 callers of /jwk seen in 7 days (8 %) have fetched {spare}" in said
    assert "not yet: lacks/0 from 10.0.0.0/16, last seen" in said
    assert "and 1 more" in said
    assert "it waits for 80 % of them" in said
    assert f"{spare} signs for 10 %" in said
    assert f"{spare} was called back" in run("keys", "canary", "off")[1]
    assert f"{spare} was called back" in run("keys", "status")[1]
