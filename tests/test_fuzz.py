"""The whole self-service API, fuzzed against its own document with real tokens.

Nothing ends in a 5xx; every status, header and body is one that the document names.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from maskinporten.web.selfservice.openapi import openapi
from maskinporten.web.selfservice.routes import ENDPOINTS
from tests.selfservice.organisations import EVERYTHING, admin_world
from tests.test_cli import free_port, run, serving, started, wait_until_ready, written
from tests.world import CONSUMER, PROVIDER, STRANGER, assertion, client, form

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
# Names of things that are there, so that what is drawn about them is looked at too.
KNOWN = {
    "client_id": "fuzzed",
    "onbehalfof": "kunde",
    "kid": "fuzzed",
    "scope": "skatt:kort",
    "consumer_orgno": CONSUMER,
    "prefix": "skatt",
    "orgnr": PROVIDER,
    "org": PROVIDER,
    "at": "1",
    "owner_orgno": PROVIDER,
    "orgno": CONSUMER,
}
SEEN: dict[str, set[int]] = defaultdict(set)


def put_in(members: Any, known: dict[str, str]) -> Any:
    """The members, with names that exist where the name is one of those."""
    if not isinstance(members, dict):
        return members
    return {name: known.get(name, value) for name, value in members.items()}


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server process over a world in which four organisations run their own affairs."""
    folder = tmp_path_factory.mktemp("fuzz")
    fuzzed = client("fuzzed", PROVIDER, "skatt:open")
    fuzzed["onbehalfof"] = [{"onbehalfof": "kunde", "name": "Kunde", "orgno": CONSUMER}]
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    chosen = serving(folder, ISSUER=address, PORT=str(port), WORKERS="1", DRAIN="0")
    assert run("apply", written(folder, admin_world(clients=[fuzzed])), **chosen).returncode == 0
    with started("serve", cwd=folder, **chosen):
        wait_until_ready(address)
        yield address


@pytest.fixture(scope="module")
def document(issuer: str) -> Any:
    """The document the server publishes."""
    return schemathesis.openapi.from_url(f"{issuer}v3/api-docs")


@pytest.fixture
def bearer(issuer: str) -> dict[str, dict[str, str]]:
    """By organisation, a header with a token that opens all it may have. Tokens live 120 s."""
    headers = {}
    wishes = {PROVIDER: EVERYTHING, STRANGER: "idporten:operator.read idporten:operator.write"}
    for orgno, scope in wishes.items():
        now = int(time.time())
        grant = assertion(f"admin-{orgno}", scope=scope, aud=issuer, iat=now, exp=now + 60)
        token = httpx.post(f"{issuer}token", data=form(grant)).json()["access_token"]
        headers[orgno] = {"Authorization": f"Bearer {token}"}
    return headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, path)
        for path, item in openapi(ENDPOINTS, "https://x/")["paths"].items()
        for method in item
        if method != "servers"
    ],
)
def test_the_api_keeps_to_its_document(
    document: Any, issuer: str, bearer: dict[str, Any], method: str, path: str
) -> None:
    """With a token of the provider, or of the operator where only the operator may."""
    base = issuer + ("api/v2" if path.endswith("/key") else "api/v1")
    headers = bearer[STRANGER if path.startswith("/operator/") else PROVIDER]

    @settings(
        max_examples=20,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of(*(document[path][method].as_strategy(generation_mode=m) for m in MODES)),
        known=st.sampled_from([True, True, False]),
    )
    def conforms(case: Any, known: bool) -> None:  # noqa: FBT001 - drawn, not passed
        if known:
            case.path_parameters = put_in(case.path_parameters, KNOWN)
            case.query = put_in(case.query, KNOWN)
            if isinstance(case.body, dict):
                case.body = put_in(case.body, KNOWN)
        answer = case.call(base_url=base, headers=headers)
        case.validate_response(answer, checks=CHECKS)
        SEEN[f"{method} {path}"].add(answer.status_code)

    conforms()


def test_the_fuzzing_went_deep() -> None:
    """Not only refusals: most operations were also done."""
    done = [name for name, statuses in SEEN.items() if min(statuses) < 300]

    assert len(done) > len(SEEN) * 0.6, SEEN
