"""Norwegian national identity numbers, as far as their form tells (the `pid` claim)."""

import re
from typing import Final

_ELEVEN_DIGITS: Final = re.compile(r"[0-9]{11}", re.ASCII)
_FIRST_WEIGHTS: Final = (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)
_SECOND_WEIGHTS: Final = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)
# A synthetic number has its month moved, by the body that made it.
_MONTH_OFFSETS: Final = (0, 40, 65, 80)
_D_NUMBER_OFFSET: Final = 40  # added to the day


def is_well_formed_pid(text: object) -> bool:
    """Whether `text` has the form of a national identity number, a D-number or a synthetic one.

    Eleven digits, a possible day and month, and both control digits (modulo 11). That such a
    person exists is not looked up; Maskinporten checks the form alone.
    """
    if not isinstance(text, str) or _ELEVEN_DIGITS.fullmatch(text) is None:
        return False
    day, month = int(text[:2]), int(text[2:4])
    possible_day = 1 <= day <= 31 or 1 <= day - _D_NUMBER_OFFSET <= 31  # noqa: PLR2004
    possible_month = any(1 <= month - offset <= 12 for offset in _MONTH_OFFSETS)  # noqa: PLR2004
    digits = [int(digit) for digit in text]
    return (
        possible_day
        and possible_month
        and _weighted(digits, _FIRST_WEIGHTS) % 11 == 0
        and _weighted(digits, _SECOND_WEIGHTS) % 11 == 0
    )


def _weighted(digits: list[int], weights: tuple[int, ...]) -> int:
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=False))
