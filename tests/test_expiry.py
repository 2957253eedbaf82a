"""Keys and certificates that will soon stop to work are told of, by organisation."""

import base64
import time
from pathlib import Path
from typing import Any

import pytest

from maskinporten import pki
from maskinporten.domain.expiry import SOON
from maskinporten.pki import DAY
from maskinporten.trust import fingerprint
from tests.chains import issuing, trust_folder, x5c
from tests.conftest import Starter
from tests.test_cli import run, written
from tests.world import (
    ABSENT,
    CONSUMER,
    NOW,
    PROVIDER,
    assertion,
    client,
    document,
    jwk,
    private_key,
)

ENDS = [
    pytest.param(SOON, 1, id="in 30 days"),
    pytest.param(SOON + 1, 0, id="a second later"),
    pytest.param(1, 1, id="in a second"),
]


@pytest.mark.parametrize(("seconds", "count"), ENDS)
async def test_a_registered_key(start: Starter, seconds: int, count: int) -> None:
    """Counted under its organisation on both sides of the bound; inactive clients are not."""
    key = jwk("brief", exp=NOW + seconds)
    own = {**client("brief", CONSUMER, "skatt:open"), "jwks": {"keys": [key]}}
    asleep = {**client("asleep", CONSUMER), "jwks": {"keys": [key]}, "active": False}
    server = await start(sections={"clients": [*document()["clients"], own, asleep]})
    await server.services.expiry.look()
    scraped = (await server.http.get("/metrics")).text

    line = f'maskinporten_expiring_soon{{orgno="{CONSUMER}",kind="key"}} 1\n'
    assert (line in scraped) == bool(count)
    assert len(server.services.expiry.found) == count


async def test_a_certificate_in_use(start: Starter, tmp_path: Path) -> None:
    """Nobody registered it; it was seen in a grant."""
    brief = pki.issue_enterprise(
        issuing(), CONSUMER, NOW - DAY, key=private_key("brief"), lifetime=2 * DAY
    )
    changes: dict[str, Any] = {"trust": trust_folder(tmp_path), "revocation": tmp_path / "lists"}
    server = await start(**changes)
    header = {"kid": ABSENT, "x5c": x5c(brief)}
    grant = assertion("keyless", signed_by="brief", header=header, scope="skatt:open")
    assert (await server.post(grant)).is_success
    await server.services.revocation.refresh()
    await server.services.expiry.look()

    (found,) = server.services.expiry.found
    assert (found.orgno, found.kind, found.at) == (CONSUMER, "certificate", NOW + DAY)
    assert found.name.endswith(str(brief.certificate.serial_number))


def test_check_lists_what_expires(tmp_path: Path) -> None:
    """Soonest first within each organisation: whose it is, what it is, when, and which."""
    now = int(time.time())
    brief = pki.issue_enterprise(
        issuing_now(now), CONSUMER, now, key=private_key("brief"), lifetime=20 * DAY
    )
    keys = [jwk("soon", exp=now + 10 * DAY), jwk("later", exp=now + 40 * DAY)]
    declared = {
        "clients": [
            {"client_id": "brief", "client_orgno": CONSUMER, "jwks": {"keys": keys}},
            {
                "client_id": "other",
                "client_orgno": PROVIDER,
                "jwks": {"keys": [jwk("third", exp=now + 29 * DAY)]},
            },
        ]
    }
    settings = {
        "ISSUER": "http://127.0.0.1:8080/",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'registry.db'}",
        "KEY_ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode(),
        "ENVIRONMENT": "test",
        "SIGNING_KEY_BITS": "2048",
        "TRUST": str(trust_folder(tmp_path)),
    }
    watched = tmp_path / "registry.db-revocation" / "watched"
    watched.mkdir(parents=True)
    digest = fingerprint(brief.der)
    (watched / f"{'00' * 32}-{digest}.cer").write_bytes(brief.der)
    assert run("apply", written(tmp_path, declared), **settings).returncode == 0
    done = run("check", **settings)
    assert done.returncode == 0, done.stderr
    listed = [line for line in done.stdout.splitlines() if " expires " in line]

    def day(days: int) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(now + days * DAY))

    serial = brief.certificate.serial_number
    issuer = brief.certificate.issuer.rfc4514_string()
    assert listed == [
        f"{PROVIDER} key expires {day(29)}: other third",
        f"{CONSUMER} key expires {day(10)}: brief soon",
        f"{CONSUMER} certificate expires {day(20)}: {issuer} {serial}",
    ]


def issuing_now(now: int) -> pki.Issued:
    """An issuing authority of today."""
    top = pki.make_root("Root of today", now, private_key("root"))
    return pki.make_issuing_authority(top, "Issuing of today", now, private_key("issuing"))
