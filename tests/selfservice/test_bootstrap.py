"""How the first organisations are let in: by commands of whoever runs the server."""

import asyncio
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from maskinporten.domain.registry import Registry, Revision
from maskinporten.domain.selfservice.caller import ADMIN_SCOPES, OPERATOR_SCOPES
from maskinporten.store.sqlite import open_sqlite
from tests.conftest import Starter
from tests.selfservice.organisations import Organisation, minimal
from tests.test_cli import database, run, written
from tests.world import CONSUMER, ISSUER, PROVIDER, SUPPLIER, assertion, private_key, running


def public(folder: Path, name: str) -> str:
    """The public key of that name, in a file."""
    key: rsa.RSAPrivateKey = private_key(name)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path = folder / f"{name}.pem"
    path.write_bytes(pem)
    return str(path)


def read_registry(folder: Path) -> Registry:
    """What stands in the database now."""

    async def read() -> Registry:
        store = await open_sqlite(folder / "registry.db")
        revision, entities = await store.changes_since(Revision(0))
        await store.close()
        return Registry().with_entities(revision, entities)

    return asyncio.run(read())


async def test_the_lines_of_the_readme(tmp_path: Path) -> None:
    """Let in, given a prefix: then everything else is done over HTTP."""
    url = database(tmp_path)
    key = public(tmp_path, "operator")

    admin = await asyncio.to_thread(
        run, "admin", CONSUMER, "--operator", "--key", key, DATABASE_URL=url
    )
    prefix = await asyncio.to_thread(run, "prefix", "krr", CONSUMER, DATABASE_URL=url)

    assert (admin.returncode, prefix.returncode) == (0, 0), admin.stderr + prefix.stderr
    assert f"client_id admin-{CONSUMER}" in admin.stdout
    kid = admin.stdout.rsplit("kid ", 1)[1].strip()
    async with running(
        tmp_path, {name: [] for name in ("scopes", "accesses", "clients")}
    ) as server:
        server.clock.now = int(time.time())
        scopes = "idporten:scopes.write idporten:dcr.write idporten:operator.write"
        grant = assertion(
            f"admin-{CONSUMER}",
            signed_by="operator",
            header={"kid": kid},
            scope=scopes,
            aud=ISSUER,
            iat=server.clock.now,
            exp=server.clock.now + 60,
        )
        answer = await server.post(grant)
        own = Organisation(server, CONSUMER, answer.json()["access_token"])
        scope = {"prefix": "krr", "subscope": "read", "description": "x"}
        await own.ok("POST", "/api/v1/scopes", scope)
        await own.ok("PUT", f"/api/v1/scopes/access/{CONSUMER}?scope=krr:read")
        await own.ok("POST", "/api/v1/clients", minimal(scopes=["krr:read"]))


def test_letting_in_others_and_again(tmp_path: Path) -> None:
    """The second time changes nothing; an organisation that is no operator gets no such scope."""
    url = database(tmp_path)
    first = run("admin", SUPPLIER, DATABASE_URL=url)
    assert (first.returncode, "--operator" in first.stderr) == (1, True)
    run("admin", PROVIDER, "--operator", "--key", public(tmp_path, "a"), DATABASE_URL=url)
    other = run("admin", SUPPLIER, "--client-id", "own", DATABASE_URL=url)
    assert other.returncode == 0, other.stderr
    before = read_registry(tmp_path)

    again = run("admin", SUPPLIER, "--client-id", "own", "--database", url)

    assert again.returncode == 0
    registry = read_registry(tmp_path)
    assert registry.revision == before.revision == 2
    assert set(registry.names("clients", "client_orgno", SUPPLIER)) == {"own"}
    granted = {name for name, _ in registry.names("accesses", "consumer_orgno", SUPPLIER)}
    assert granted == set(ADMIN_SCOPES)
    granted = {name for name, _ in registry.names("accesses", "consumer_orgno", PROVIDER)}
    assert granted == {*ADMIN_SCOPES, *OPERATOR_SCOPES}
    assert registry.prefixes["idporten"].owner_orgno == PROVIDER


def test_what_the_operator_mistypes(tmp_path: Path) -> None:
    """Each is a sentence, and changes nothing."""
    url = database(tmp_path)
    run("admin", PROVIDER, "--operator", DATABASE_URL=url)
    nonsense = written(tmp_path, {"keys": 1}, "nonsense.json")

    for arguments, sentence in (
        (("admin", "991825828"), "check digit"),
        (("admin", SUPPLIER, "--client-id", f"admin-{PROVIDER}"), "another organisation"),
        (("admin", SUPPLIER, "--key", str(tmp_path / "none")), "cannot be read"),
        (("admin", SUPPLIER, "--key", nonsense), "keys"),
        (("prefix", "Stor", PROVIDER), "lower-case"),
        (("prefix", "krr", "1"), "organisation number"),
    ):
        refused = run(*arguments, DATABASE_URL=url)
        assert refused.returncode == 1, arguments
        assert sentence in refused.stderr
        assert "Traceback" not in refused.stderr
    assert read_registry(tmp_path).revision == 1


def test_a_prefix_is_taken_back(tmp_path: Path) -> None:
    """And given to another."""
    url = database(tmp_path)
    run("prefix", "krr", PROVIDER, DATABASE_URL=url)
    run("prefix", "krr", PROVIDER, "--withdraw", DATABASE_URL=url)
    assert read_registry(tmp_path).prefixes["krr"].active is False

    given = run("prefix", "krr", CONSUMER, DATABASE_URL=url)

    assert "owner_orgno" in given.stdout
    prefix = read_registry(tmp_path).prefixes["krr"]
    assert (prefix.active, prefix.owner_orgno) == (True, CONSUMER)


async def test_the_probe_opens_nothing(start: Starter) -> None:
    """A token that anyone may fetch, signed by the next key."""
    server = await start()
    probe = (await server.http.get("/jwk/probe")).json()["access_token"]

    answer = await Organisation(server, CONSUMER, probe).call("GET", "/auth/user")

    assert answer.status_code == 401
