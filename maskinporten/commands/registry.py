"""`apply`, `export`, `migrate`: the registry as a file, and the schema under it."""

import argparse
import asyncio
import json
import sys
import time
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from maskinporten.administration import administer
from maskinporten.app import open_store
from maskinporten.domain.keyset import jwk_of_pem
from maskinporten.domain.manifest import describe, manifest, plan
from maskinporten.domain.registry import Registry
from maskinporten.errors import Fault, InvalidInput
from maskinporten.replica import Replica
from maskinporten.settings import PREFIX, Settings
from maskinporten.store import Store


def add_parser(commands: Any) -> None:
    """Declare the three commands."""
    apply = commands.add_parser(
        "apply",
        help="make the registry agree with a TOML or JSON file",
        description="Prefixes, scopes, accesses and clients from a file, as one revision. What "
        "the file does not name stays as it is. If one entry is wrong, nothing is changed.",
    )
    apply.add_argument("file", type=Path, metavar="FILE", help=".toml or .json")
    apply.add_argument("--dry-run", action="store_true", help="show what would change, and stop")
    apply.set_defaults(run=lambda a: asyncio.run(_apply(a)))
    export = commands.add_parser("export", help="write the registry in the format of `apply`")
    export.set_defaults(run=lambda a: asyncio.run(_export(a)))
    migrate = commands.add_parser("migrate", help="bring the database's schema up to date")
    migrate.set_defaults(run=lambda a: asyncio.run(_migrate(a)))
    for command in (apply, export, migrate):
        command.add_argument("--database", metavar="URL", help=f"instead of {PREFIX}DATABASE_URL")


@asynccontextmanager
async def opened(url: str | None) -> AsyncIterator[Store]:
    """The store of `--database` or the environment, migrated."""
    named, synchronous = Settings.database_from_environ()
    if not (url or named):
        sentence = "must be set, or give --database sqlite:///path/to/registry.db"
        raise InvalidInput((Fault(f"{PREFIX}DATABASE_URL", sentence),))
    store = await open_store(url or named or "", synchronous)
    try:
        await store.migrate()
        yield store
    finally:
        await store.close()


async def _apply(arguments: argparse.Namespace) -> int:
    document = read_document(arguments.file)
    async with opened(arguments.database) as store:
        replica = Replica(store, time.time)
        before = await replica.catch_up()
        now = int(time.time())
        if arguments.dry_run:
            change = plan(document, before, now)
            print("\n".join([*describe(change, before), f"{len(change.entities)} would change"]))
            return 0
        caller = {"kind": "operator"}
        revision, change = await administer(
            store, replica, lambda registry: plan(document, registry, now), caller, "apply", now
        )
        print("\n".join([*describe(change, before), f"{len(change.entities)} changed"]))
        print(f"the registry is at revision {revision}")
        return 0


async def _export(arguments: argparse.Namespace) -> int:
    async with opened(arguments.database) as store:
        revision, entities = await store.changes_since(Registry().revision)
        registry = Registry().with_entities(revision, entities)
    json.dump(manifest(registry), sys.stdout, ensure_ascii=False, indent=2)
    print()
    return 0


async def _migrate(arguments: argparse.Namespace) -> int:
    async with opened(arguments.database) as store:
        print(f"the schema is at version {await store.migrate()}")
    return 0


def read_document(path: Path) -> dict[str, Any]:
    """The file's content, with the key files it names read in. Raises InvalidInput."""
    try:
        text = path.read_text("utf-8")
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as fault:
        raise InvalidInput((Fault(str(path), f"cannot be read: {fault.strerror}"),)) from fault
    except ValueError as fault:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise InvalidInput((Fault(str(path), f"is not {kind}: {fault}"),)) from fault
    if not isinstance(document, dict):
        raise InvalidInput((Fault(str(path), "must hold an object with sections"),))
    faults: list[Fault] = []
    for number, client in enumerate(_entries(document, "clients")):
        _resolve_keys(client, path.parent, f"clients[{number}]", faults)
    if faults:
        raise InvalidInput(tuple(faults))
    return document


def _entries(document: dict[str, Any], section: str) -> list[dict[str, Any]]:
    found = document.get(section)
    return [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []


def _resolve_keys(client: dict[str, Any], folder: Path, path: str, faults: list[Fault]) -> None:
    """`jwks_file` (a JWK set or PEM) and `pem` become `jwks`, as if they had been written so."""
    ways = [name for name in ("jwks", "jwks_file", "pem") if name in client]
    if len(ways) > 1:
        faults.append(Fault(path, f"has {' and '.join(ways)}; one of them is enough"))
        return
    try:
        if "jwks_file" in client:
            where = f"{path}.jwks_file"
            text = (folder / str(client.pop("jwks_file"))).read_text("utf-8")
            client["jwks"] = key_set_of(text)
        elif "pem" in client:
            where = f"{path}.pem"
            client["jwks"] = key_set_of(str(client.pop("pem")))
    except OSError as fault:
        faults.append(Fault(where, f"cannot be read: {fault.strerror}"))
    except ValueError as fault:
        faults.append(Fault(where, str(fault)))


def key_set_of(text: str) -> dict[str, Any]:
    """The key set of a text: a JWK set, or a public key or certificate in PEM.

    Raises ValueError with a sentence.
    """
    if "-----BEGIN" in text:
        return {"keys": [jwk_of_pem(text)]}
    found: dict[str, Any] = json.loads(text)
    return found
