"""Every fault of a command that can be foreseen, as a sentence on standard error."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Final

from maskinporten.errors import InvalidInput, Unavailable
from maskinporten.keyring import KeyDoesNotOpen, KeyNotInToken
from maskinporten.store import Conflict, SchemaTooNew

_SENTENCES: Final[Mapping[type[Exception], str]] = {
    Unavailable: "the database cannot be used: {}",
    SchemaTooNew: "the database is newer than this program ({}); use the later release",
    KeyDoesNotOpen: "the signing key {} does not open under this key-encryption key; set "
    "MASKINPORTEN_KEY_ENCRYPTION_KEY to the one the database was made with",
    KeyNotInToken: "the signing key {} lies in a PKCS #11 token, and the one that "
    "MASKINPORTEN_PKCS11_MODULE and MASKINPORTEN_PKCS11_TOKEN name does not have it",
    Conflict: "someone else keeps changing the registry; run the command again",
}


def told(work: Callable[[], int]) -> int:
    """The exit code of the work: its own, or 1 after a sentence about what stopped it."""
    try:
        return work()
    except InvalidInput as invalid:
        for fault in invalid.faults:
            _complain(str(fault))
        return 1
    except tuple(_SENTENCES) as fault:
        _complain(_SENTENCES[type(fault)].format(fault))
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


def _complain(sentence: str) -> None:
    print(f"maskinporten: {sentence}", file=sys.stderr)
