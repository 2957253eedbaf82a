"""Organisation numbers of Norway's Central Coordinating Register for Legal Entities."""

import re
from collections.abc import Mapping
from typing import Final, NewType

OrgNo = NewType("OrgNo", str)
"""Nine digits, the last of them a correct check digit. Made by `read_orgno` only."""

_NINE_DIGITS: Final = re.compile(r"[0-9]{9}", re.ASCII)
_WEIGHTS: Final = (3, 2, 7, 6, 5, 4, 3, 2)
NOBODY: Final = OrgNo("000000000")  # the consumer of probes (`domain.probe`)
ISO_6523_NORWAY: Final = "0192"
AUTHORITY: Final = "iso6523-actorid-upis"


def find_orgno(text: object) -> OrgNo | None:
    """The organisation number that `text` is, or None.

    Weights 3 2 7 6 5 4 3 2, modulo 11; the check digit is 11 minus the rest, and 11 stands as 0.
    A rest of 1 would need the check digit 10, so no organisation has such a number.
    Synthetic numbers of the test register obey the same rule. Nine zeros are nobody's.
    """
    if not isinstance(text, str) or text == NOBODY or _NINE_DIGITS.fullmatch(text) is None:
        return None
    total = sum(int(digit) * weight for digit, weight in zip(text, _WEIGHTS, strict=False))
    return OrgNo(text) if (11 - total % 11) % 11 == int(text[8]) else None


def read_orgno(text: object) -> OrgNo:
    """The organisation number that `text` is. Raises ValueError with a sentence for its author."""
    orgno = find_orgno(text)
    if orgno is None:
        sentence = "must be a Norwegian organisation number: nine digits, the last a check digit"
        raise ValueError(sentence)
    return orgno


def iso6523(orgno: OrgNo) -> Mapping[str, str]:
    """The `consumer` and `supplier` claims' shape (Maskinporten: access token)."""
    return {"authority": AUTHORITY, "ID": f"{ISO_6523_NORWAY}:{orgno}"}
