"""POST /token with a certificate: the decision table, the codes, the audit."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from maskinporten import pki
from maskinporten.errors import InvalidInput, Reason
from maskinporten.pki import DAY
from tests.chains import SEID1, enterprise, issuing, root, trust_folder, x5c
from tests.conftest import Starter
from tests.web.test_token import claims_of, refused
from tests.world import (
    ABSENT,
    CONSUMER,
    NOW,
    PROVIDER,
    Server,
    assertion,
    client,
    document,
    jwk,
    private_key,
    running,
)

LEAF = "leaf"  # the name of its key


def sections() -> dict[str, Any]:
    """The world, and a client whose key is locked to its certificate."""
    locked = jwk("locked", x5c=x5c(enterprise(name="locked")))
    declared = document()["clients"]
    declared += [{**client("locked", CONSUMER, "skatt:open"), "jwks": {"keys": [locked]}}]
    return {"clients": declared}


@pytest.fixture
def certified(runner: asyncio.Runner, start: Starter, tmp_path: Path) -> Server:
    """A server that accepts the world's certificates."""
    folder = trust_folder(tmp_path)
    return runner.run(start(sections=sections(), trust=folder, revocation=tmp_path / "lists"))


def grant(
    client_id: str = "keyless", *, signed_by: str = LEAF, header: Any = None, **claims: Any
) -> str:
    """A grant by certificate, right in every way but those named."""
    own = {"kid": ABSENT, "x5c": x5c(enterprise(), issuing(), root()), **(header or {})}
    return assertion(
        client_id, signed_by=signed_by, header=own, **{"scope": "skatt:open", **claims}
    )


CHAINS = [
    pytest.param({}, LEAF, id="the whole chain"),
    pytest.param({"x5c": x5c(enterprise())}, LEAF, id="the leaf alone"),
    pytest.param({"x5c": x5c(enterprise()), "x5t": "abc", "typ": "JWT"}, LEAF, id="x5t beside"),
    pytest.param({"x5c": x5c(enterprise(generation=SEID1))}, LEAF, id="SEID 1"),
    pytest.param({"alg": "RS512"}, LEAF, id="RS512"),
]


@pytest.mark.parametrize(("header", "signed_by"), CHAINS)
async def test_an_organisation_proves_itself(
    certified: Server, header: dict[str, Any], signed_by: str
) -> None:
    """No key is registered; the certificate says who calls."""
    response = await certified.post(grant(header=header, signed_by=signed_by))

    assert response.status_code == 200, response.text
    claims = claims_of(response)
    assert claims["client_amr"] == "virksomhetssertifikat"
    assert claims["consumer"]["ID"] == f"0192:{CONSUMER}"


TABLE = [
    pytest.param("keyless", {"kid": "any"}, Reason.KEY_ID_UNKNOWN, id="no keys; kid and x5c"),
    pytest.param(
        "keyless", {"kid": "any", "x5c": ABSENT}, Reason.KEY_ID_UNKNOWN, id="no keys; kid"
    ),
    pytest.param("keyless", {"x5c": ABSENT}, Reason.SIGNER_MISSING, id="no keys; neither"),
    pytest.param("consumer", {}, Reason.KEY_ID_MISSING, id="keys; x5c"),
    pytest.param("consumer", {"x5c": ABSENT}, Reason.KEY_ID_MISSING, id="keys; neither"),
    pytest.param(
        "consumer", {"kid": "consumer"}, Reason.SIGNATURE_INVALID, id="keys; the certificate's key"
    ),
]


@pytest.mark.parametrize(("client_id", "header", "reason"), TABLE)
async def test_the_decision_table(
    certified: Server, client_id: str, header: dict[str, Any], reason: Reason
) -> None:
    """As observed on test.maskinporten.no: registered keys switch certificates off."""
    await refused(certified, grant(client_id, header=header), reason)


async def test_kid_and_x5c_together(certified: Server) -> None:
    """Legal; then the key is the registered one."""
    response = await certified.post(
        grant("consumer", signed_by="consumer", header={"kid": "consumer"})
    )

    assert response.status_code == 200, response.text
    assert claims_of(response)["client_amr"] == "private_key_jwt"


REFUSED = [
    pytest.param({"x5c": "MIIB"}, LEAF, Reason.X5C_MALFORMED, id="a string"),
    pytest.param({"x5c": []}, LEAF, Reason.X5C_MALFORMED, id="an empty array"),
    pytest.param({"x5c": ["AAAA"]}, LEAF, Reason.X5C_MALFORMED, id="not a certificate"),
    pytest.param({"x5c": [["AAAA"]]}, LEAF, Reason.X5C_MALFORMED, id="an array within"),
    pytest.param({"x5c": ["æ"]}, LEAF, Reason.X5C_MALFORMED, id="not ASCII"),
    pytest.param(
        {"x5c": x5c(issuing(), enterprise(), root())},
        LEAF,
        Reason.CERTIFICATE_INVALID,
        id="order shuffled: an authority first",
    ),
    pytest.param({}, "thief", Reason.SIGNATURE_INVALID, id="the leaf's key did not sign"),
    pytest.param(
        {"x5c": x5c(enterprise(PROVIDER))},
        LEAF,
        Reason.ORGNO_MISMATCH,
        id="another organisation's certificate",
    ),
    pytest.param(
        {"x5c": x5c(enterprise(PROVIDER))},
        "thief",
        Reason.SIGNATURE_INVALID,
        id="the signature is judged before the organisation",
    ),
]


@pytest.mark.parametrize(("header", "signed_by", "reason"), REFUSED)
async def test_refuses(
    certified: Server, header: dict[str, Any], signed_by: str, reason: Reason
) -> None:
    """Attacks 18 and 19, from the outside; twice, for the second answer comes from memory."""
    for _ in range(2):
        await refused(certified, grant(header=header, signed_by=signed_by), reason)


async def test_a_locked_key_dies_with_its_certificate(certified: Server) -> None:
    """The key's owner tied it to a certificate: no other may stand beside, and expiry counts."""
    own = {"kid": "locked", "x5c": ABSENT}
    assert (await certified.post(grant("locked", signed_by="locked", header=own))).is_success
    beside = {"kid": "locked", "x5c": x5c(enterprise(name="locked"))}
    assert (await certified.post(grant("locked", signed_by="locked", header=beside))).is_success
    other = {"kid": "locked", "x5c": x5c(enterprise())}
    await refused(
        certified, grant("locked", signed_by="locked", header=other), Reason.CERTIFICATE_INVALID
    )


async def test_without_a_trust_directory_no_certificate_is_accepted(server: Server) -> None:
    """Nothing is trusted that an operator did not choose."""
    await refused(server, grant(), Reason.CERTIFICATE_INVALID)
    await refused(server, grant(header={"x5c": "x"}), Reason.X5C_MALFORMED)


async def test_the_other_environment_s_directory_stops_the_server(tmp_path: Path) -> None:
    """Test certificates in production, or the reverse, are a mistake that is said at start-up."""
    folder = trust_folder(tmp_path)
    (folder / "trust.toml").write_text('environment = "prod"\npolicies = []\n')

    with pytest.raises(InvalidInput, match="not for the environment test"):
        async with running(tmp_path, trust=folder):
            pass


async def test_the_certificate_is_in_the_audit(certified: Server, tmp_path: Path) -> None:
    """Issuer, serial number, validity and the evidence, behind every token."""
    issued = enterprise().certificate
    assert (await certified.post(grant())).is_success

    entry = json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])

    assert entry["certificate_issuer"] == issued.issuer.rfc4514_string()
    assert entry["certificate_serial_number"] == str(issued.serial_number)
    assert entry["certificate_not_after"] == int(issued.not_valid_after_utc.timestamp())
    assert entry["revocation_evidence"] == ["none: the authority publishes nothing we know of"] * 2


async def test_an_expired_certificate_is_not_remembered_as_good(tmp_path: Path) -> None:
    """The verdict's life ends with the certificate's, to the second."""
    brief = pki.issue_enterprise(
        issuing(), CONSUMER, NOW - DAY, key=private_key("brief"), lifetime=DAY + 5
    )
    folder = trust_folder(tmp_path)
    async with running(tmp_path, sections(), trust=folder) as server:
        header = {"x5c": x5c(brief)}
        assert (await server.post(grant(signed_by="brief", header=header))).is_success
        server.clock.now = NOW + 5
        later: dict[str, Any] = {"iat": NOW + 5, "exp": NOW + 60}
        assert (await server.post(grant(signed_by="brief", header=header, **later))).is_success
        server.clock.now = NOW + 6
        await refused(
            server, grant(signed_by="brief", header=header, **later), Reason.CERTIFICATE_INVALID
        )


async def test_a_thousand_hostile_chains_do_not_push_out_the_honest(certified: Server) -> None:
    """Refusals are remembered apart, and every one of them is an answer."""
    assert (await certified.post(grant())).is_success
    hostile = [
        grant(header={"x5c": [*x5c(enterprise(), root()), f"AAA{chr(65 + n)}"]}, signed_by="thief")
        for n in range(20)
    ]

    answers = await asyncio.gather(*(certified.post(each) for each in hostile))

    assert {answer.status_code for answer in answers} == {400}
    assert (await certified.post(grant())).is_success
