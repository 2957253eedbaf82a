"""Where the time of a token goes, step by step, inside one process.

pytest-benchmark shows the steps; `bench.gate` decides on the whole line over HTTP.
"""

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

from maskinporten.domain.authorization import authorize, entitle
from maskinporten.domain.client import ClientId
from maskinporten.domain.grant import Assertion, find_signer, read_assertion, verify_grant
from maskinporten.domain.token import sign_token
from maskinporten.issuance import issue_token
from maskinporten.keyring import LocalKey
from tests.world import ISSUER, NOW, assertion, private_key, registry, running

_GRANT = Assertion(assertion())
_REGISTRY = registry()
_CLIENT = _REGISTRY.client(ClientId("consumer"))
_AUDIENCES = frozenset({ISSUER})
_SIGNER = find_signer(read_assertion(_GRANT), _CLIENT, NOW)


def test_read_assertion(benchmark: Any) -> None:
    """Strict reading, next to the signature check."""
    benchmark(read_assertion, _GRANT)


def test_verify_grant(benchmark: Any) -> None:
    """Signature, audience, times and claims."""
    unverified = read_assertion(_GRANT)
    benchmark(verify_grant, unverified, _SIGNER, _AUDIENCES, NOW)


def test_entitle_and_authorize(benchmark: Any) -> None:
    """Scopes, access, lifetime: all from memory."""
    grant = verify_grant(read_assertion(_GRANT), _SIGNER, _AUDIENCES, NOW)
    benchmark(lambda: authorize(entitle(grant, _CLIENT, _REGISTRY)))


def test_sign_token(benchmark: Any) -> None:
    """Claims, encoding and our RSA-3072 signature."""
    grant = verify_grant(read_assertion(_GRANT), _SIGNER, _AUDIENCES, NOW)
    authorization = authorize(entitle(grant, _CLIENT, _REGISTRY))
    key = LocalKey("k", private_key("bench", 3072))
    benchmark(sign_token, authorization, key, ISSUER, NOW, "j" * 43)


def test_issue_token(benchmark: Any, tmp_path: Path) -> None:
    """The whole line but HTTP, with a database for the spent grants."""
    grants = (Assertion(assertion(jti=f"bench-{n}")) for n in count())
    with asyncio.Runner() as runner:
        opened = running(tmp_path, signing_key_bits=3072)
        server = runner.run(opened.__aenter__())

        def issue(grant: Assertion) -> None:
            runner.run(issue_token(server.services.issuance, grant, NOW))

        benchmark.pedantic(issue, setup=lambda: ((next(grants),), {}), rounds=200)
        runner.run(opened.__aexit__(None, None, None))
