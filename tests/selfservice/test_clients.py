"""Clients: made, read, changed, put out of use, by their owners alone."""

from tests.conftest import Starter
from tests.selfservice.organisations import (
    Organisation,
    admin_world,
    minimal,
    organisation,
)
from tests.world import CONSUMER, assertion, jwk


async def begin(start: Starter, orgno: str = CONSUMER) -> Organisation:
    """A server with admin clients, and one organisation's way in."""
    return await organisation(await start(sections=admin_world()), orgno)


async def test_a_client_is_made_given_a_key_and_gets_a_token(start: Starter) -> None:
    """The whole way of a newcomer, by HTTP alone."""
    own = await begin(start)

    made = await own.call("POST", "/api/v1/clients", minimal(jwks={"keys": [jwk("fresh")]}))

    assert made.status_code == 201, made.text
    client_id = made.json()["client_id"]
    grant = assertion(client_id, signed_by="fresh", header={"kid": "fresh"}, scope="skatt:open")
    answer = await own.server.post(grant)
    assert answer.status_code == 200, answer.text
    listed = await own.ok("GET", "/clients")
    assert client_id in [one["client_id"] for one in listed]
