"""Metadata, key set, health and metrics from the outside."""

import pytest

from tests.conftest import Starter
from tests.world import ISSUER, Server, assertion

WELL_KNOWN = "/.well-known/oauth-authorization-server"


@pytest.mark.parametrize("path", [WELL_KNOWN, WELL_KNOWN + "/"])
async def test_metadata(server: Server, path: str) -> None:
    """Seven members in this order, and nothing else, with the slash too."""
    response = await server.http.get(path)

    assert response.headers["content-type"] == "application/json"
    assert list(response.json().items()) == [
        ("issuer", ISSUER),
        ("token_endpoint", ISSUER + "token"),
        ("jwks_uri", ISSUER + "jwk"),
        ("token_endpoint_auth_methods_supported", ["private_key_jwt"]),
        ("grant_types_supported", ["urn:ietf:params:oauth:grant-type:jwt-bearer"]),
        ("token_endpoint_auth_signing_alg_values_supported", ["RS256", "RS384", "RS512"]),
        ("authorization_details_types_supported", ["urn:altinn:systemuser", "urn:altinn:consent"]),
    ]


@pytest.mark.parametrize("path", [WELL_KNOWN, "/jwk"])
async def test_a_cache_that_holds_the_document_is_told_so(server: Server, path: str) -> None:
    """ETag and If-None-Match (RFC 9110 section 13.1.2)."""
    first = await server.http.get(path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "public, max-age=3600"

    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        again = await server.http.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    other = await server.http.get(path, headers={"if-none-match": '"x"'})
    assert other.status_code == 200


async def test_the_age_of_the_key_set_is_a_setting(start: Starter) -> None:
    """What a rotation will rely on."""
    server = await start(jwks_max_age=60)

    response = await server.http.get("/jwk")
    assert response.headers["cache-control"] == "public, max-age=60"


async def test_health(server: Server) -> None:
    """What customers' monitors ask for."""
    response = await server.http.get("/health")
    assert (response.status_code, response.text) == (200, '{"status":"UP"}')
    assert (await server.http.get("/livez")).status_code == 200
    assert (await server.http.get("/readyz")).status_code == 200
    server.services.spent.away = True
    assert (await server.http.get("/health")).json() == {
        "status": "DEGRADED",
        "reasons": ["spent grants cannot be written to the database"],
        "registry_age_seconds": 0,
    }


async def test_health_without_a_signing_key(server: Server) -> None:
    """Alive, but not ready."""
    server.services.keyring._active = None

    health = await server.http.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "DOWN")
    assert health.json()["reasons"] == ["no signing key is open"]
    assert (await server.http.get("/readyz")).status_code == 503
    assert (await server.http.get("/livez")).status_code == 200
    refused = await server.post(assertion())
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "2"
    assert refused.json()["error"] == "temporarily_unavailable"


async def test_metrics(server: Server) -> None:
    """Counters in the text format, by closed labels."""
    await server.post(assertion())
    await server.post("x")
    lines = (await server.http.get("/metrics")).text.splitlines()

    assert 'maskinporten_tokens_issued_total{client_amr="private_key_jwt"} 1' in lines
    assert 'maskinporten_tokens_refused_total{reason="ASSERTION_MALFORMED"} 1' in lines
    assert 'maskinporten_token_seconds_bucket{le="+Inf"} 2' in lines
    assert "maskinporten_token_seconds_count 2" in lines
    assert "# TYPE maskinporten_token_seconds histogram" in lines
    assert "maskinporten_registry_revision 2" in lines


async def test_a_defect_of_ours_is_a_blank_500(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the inside leaves, and the trace is in the answer."""

    def broken() -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(server.services.keyring, "etag", property())
    answer = await server.http.get("/jwk")
    assert answer.status_code == 500
    assert answer.json()["error"] == "server_error"
    assert "secret" not in answer.text
    monkeypatch.setattr("maskinporten.issuance.secrets.token_urlsafe", broken)
    answer = await server.post(assertion())
    assert (answer.status_code, answer.json()["error"]) == (500, "server_error")


async def test_another_method_on_a_document(server: Server) -> None:
    """405 in the shape of every other error."""
    answer = await server.http.post("/jwk")

    assert answer.status_code == 405
    assert answer.json()["error"] == "invalid_request"
