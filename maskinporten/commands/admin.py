"""`admin`, `prefix`: what only those who run the server do. It opens the self-service API."""

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maskinporten.administration import administer
from maskinporten.commands.registry import key_set_of, opened
from maskinporten.domain.manifest import describe
from maskinporten.domain.registry import Change, Registry
from maskinporten.domain.selfservice.bootstrap import admit, give_out
from maskinporten.errors import Fault, InvalidInput
from maskinporten.replica import Replica
from maskinporten.settings import PREFIX


def add_parser(commands: Any) -> None:
    """Declare both commands."""
    admin = commands.add_parser(
        "admin",
        help="let an organisation run its own affairs by the self-service API",
        description="Registers a client of the organisation with access to the admin scopes. The "
        "first one is your own, with --operator: it makes the prefix idporten and those scopes.",
    )
    admin.add_argument("orgno", metavar="ORGNO")
    admin.add_argument("--client-id", metavar="ID", help="admin-ORGNO, unless another is given")
    admin.add_argument(
        "--key", type=Path, metavar="FILE",
        help="public key: PEM or a JWK set; without one its enterprise certificate speaks",
    )  # fmt: skip
    admin.add_argument(
        "--operator", action="store_true", help="you run this server: prefixes are yours to give"
    )
    admin.set_defaults(run=lambda a: asyncio.run(_admin(a)))
    prefix = commands.add_parser(
        "prefix",
        help="give a prefix of scopes to an organisation",
        description="The organisation may make scopes under the prefix from now on. Their owner "
        "becomes another where the prefix had one.",
    )
    prefix.add_argument("prefix", metavar="PREFIX")
    prefix.add_argument("orgno", metavar="ORGNO")
    prefix.add_argument("--withdraw", action="store_true", help="take it back: no new scopes")
    prefix.set_defaults(run=lambda a: asyncio.run(_prefix(a)))
    for command in (admin, prefix):
        command.add_argument("--database", metavar="URL", help=f"instead of {PREFIX}DATABASE_URL")


async def _admin(arguments: argparse.Namespace) -> int:
    jwks = _read_keys(arguments.key)
    client_id = arguments.client_id or f"admin-{arguments.orgno}"
    now = int(time.time())

    def decide(registry: Registry) -> Change:
        return admit(registry, now, arguments.orgno, client_id, jwks, operator=arguments.operator)

    await _commit(arguments, "admin", decide, now)
    print(f"client_id {client_id}")
    for key in (jwks or {}).get("keys", []):
        print(f"kid {key['kid']}")
    return 0


async def _prefix(arguments: argparse.Namespace) -> int:
    now = int(time.time())
    data = {
        "prefix": arguments.prefix,
        "owner_orgno": arguments.orgno,
        "active": not arguments.withdraw,
    }
    await _commit(arguments, "prefix", lambda registry: give_out(registry, now, data), now)
    return 0


async def _commit(
    arguments: argparse.Namespace, command: str, decide: Callable[[Registry], Change], now: int
) -> None:
    async with opened(arguments.database) as store:
        replica = Replica(store, time.time)
        before = await replica.catch_up()
        caller = {"kind": "operator"}
        revision, change = await administer(store, replica, decide, caller, command, now)
        print("\n".join([*describe(change, before), f"the registry is at revision {revision}"]))


def _read_keys(path: Path | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    try:
        return key_set_of(path.read_text("utf-8"))
    except OSError as fault:
        raise InvalidInput((Fault(str(path), f"cannot be read: {fault.strerror}"),)) from fault
    except ValueError as fault:
        raise InvalidInput((Fault(str(path), str(fault)),)) from fault
