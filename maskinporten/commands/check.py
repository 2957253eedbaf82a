"""`check`: what this server would run with, and whether it would start."""

import argparse
import asyncio
import dataclasses
import time
from typing import Any

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
    for expiring in asyncio.run(_expiring(settings)):
        day = time.strftime("%Y-%m-%d", time.gmtime(expiring.at))
        print(f"{expiring.orgno} {expiring.kind} expires {day}: {expiring.name}")
    return 0


async def _expiring(settings: Settings) -> list[Expiring]:
    async with open_services(settings) as services:
        await services.expiry.look()
        return services.expiry.found
