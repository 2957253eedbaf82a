"""`check`: what this server would run with, and whether it would start."""

import argparse
import asyncio
import dataclasses
from typing import Any

from maskinporten.commands.serve import prepare
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
    return 0
