"""`check`: what this server would run with, and whether it would start."""

import argparse
import asyncio
import dataclasses
import time
from typing import Any

from maskinporten.altinn import altinn_policy
from maskinporten.app import open_services
from maskinporten.commands.serve import prepare
from maskinporten.domain.expiry import Expiring
from maskinporten.settings import PREFIX, Settings


def add_parser(commands: Any) -> None:
    """Declare the command."""
    check = commands.add_parser(
        "check", help="show the settings in force, and open everything once as `serve` would"
    )
    check.set_defaults(run=_check)


def _check(_arguments: argparse.Namespace) -> int:
    settings = Settings.from_environ()
    for field in dataclasses.fields(settings):
        print(f"{PREFIX}{field.name.upper()} = {getattr(settings, field.name)}")
    asyncio.run(prepare(settings))
    print("the database opens, its schema is up to date, and the signing key opens")
    expiring_soon, unasked = asyncio.run(_look(settings))
    for expiring in expiring_soon:
        day = time.strftime("%Y-%m-%d", time.gmtime(expiring.at))
        print(f"{expiring.orgno} {expiring.kind} expires {day}: {expiring.name}")
    for source, scopes in sorted(unasked.items()):
        print(f"{source} is not in {PREFIX}ALTINN: nobody can delegate {', '.join(scopes)}")
    return 0


async def _look(settings: Settings) -> tuple[list[Expiring], dict[str, list[str]]]:
    """What expires soon, and the delegation sources of scopes that we have no line to."""
    async with open_services(settings) as services:
        await services.expiry.look()
        policy = altinn_policy(settings)
        known = policy.lines if policy else {}
        unasked: dict[str, list[str]] = {}
        for scope in services.replica.registry.scopes.values():
            if scope.active and scope.delegation_source and scope.delegation_source not in known:
                unasked.setdefault(scope.delegation_source, []).append(scope.name)
        return services.expiry.found, unasked
