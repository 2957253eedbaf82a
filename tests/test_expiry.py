"""Keys and certificates that will soon stop to work are told of, by organisation."""

from pathlib import Path
from typing import Any

import pytest

from maskinporten import pki
from maskinporten.domain.expiry import SOON
from maskinporten.pki import DAY
from tests.chains import issuing, trust_folder, x5c
from tests.conftest import Starter
from tests.world import ABSENT, CONSUMER, NOW, assertion, client, document, jwk, private_key

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
