"""The command line. Exit codes: 0 done, 1 not done (and why), 2 asked for something senseless."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Final

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
from maskinporten.errors import InvalidInput, Unavailable
from maskinporten.keyring import KeyDoesNotOpen, KeyNotInToken
from maskinporten.store import Conflict, SchemaTooNew

_COMMANDS = (dev, serve, token, registry, admin, keys, backup, pki, trust, altinn, check, history)
_EPILOG = """\
Begin with `maskinporten dev`: a whole small world on this machine, with a token to look at.
`serve` is configured by environment variables named MASKINPORTEN_…; the README lists them.
"""

_SENTENCES: Final[Mapping[type[Exception], str]] = {
    Unavailable: "the database cannot be used: {}",
    SchemaTooNew: "the database is newer than this program ({}); use the later release",
    KeyDoesNotOpen: "the signing key {} does not open under this key-encryption key; set "
    "MASKINPORTEN_KEY_ENCRYPTION_KEY to the one the database was made with",
    KeyNotInToken: "the signing key {} lies in a PKCS #11 token, and not in the one that "
    "MASKINPORTEN_PKCS11_MODULE and MASKINPORTEN_PKCS11_TOKEN name",
    Conflict: "someone else keeps changing the registry; run the command again",
}


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
    try:
        code: int = arguments.run(arguments)
    except InvalidInput as invalid:
        for fault in invalid.faults:
            _complain(str(fault))
        return 1
    except tuple(_SENTENCES) as fault:
        _complain(_SENTENCES[type(fault)].format(fault))
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return code


def _complain(sentence: str) -> None:
    print(f"maskinporten: {sentence}", file=sys.stderr)
