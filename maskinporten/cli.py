"""The command line. Exit codes: 0 done, 1 not done (and why), 2 asked for something senseless."""

import argparse
import logging
from collections.abc import Sequence

from maskinporten import __version__
from maskinporten.commands import (
    admin,
    altinn,
    backup,
    check,
    dev,
    history,
    keys,
    pki,
    registry,
    serve,
    token,
    trust,
)
from maskinporten.commands.sentences import told

_COMMANDS = (dev, serve, token, registry, admin, keys, backup, pki, trust, altinn, check, history)
_EPILOG = """\
Begin with `maskinporten dev`: a whole small world on this machine, with a token to look at.
`serve` is configured by environment variables named MASKINPORTEN_…; the README lists them.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line, as `--help` shows it."""
    made = argparse.ArgumentParser(
        prog="maskinporten",
        description="A machine-to-machine OAuth 2.0 token server, compatible with Maskinporten.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"maskinporten {__version__}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.add_parser(commands)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; every foreseeable fault is a sentence on standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    arguments = parser().parse_args(argv)
    return told(lambda: arguments.run(arguments))
