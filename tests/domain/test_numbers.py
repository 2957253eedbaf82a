"""Organisation numbers, identity numbers, scope names: one character on either side."""

import pytest

from maskinporten.domain.client import is_client_id, is_key_id
from maskinporten.domain.orgno import find_orgno, iso6523, read_orgno
from maskinporten.domain.person import is_well_formed_pid
from maskinporten.domain.scope import (
    Scope,
    ScopeName,
    is_scope_token,
    read_prefix,
    read_scope_name,
)

ORGNOS = [
    pytest.param("991825827", True, id="the Digitalisation Agency"),
    pytest.param("974761076", True, id="the Tax Administration"),
    pytest.param("310702641", True, id="a synthetic one"),
    pytest.param("991825828", False, id="another check digit"),
    pytest.param("99182582", False, id="eight digits"),
    pytest.param("9918258270", False, id="ten digits"),
    pytest.param("99182582x", False, id="a letter"),
    pytest.param("٩٩١٨٢٥٨٢٧", False, id="digits of another script"),
    pytest.param("991825827\n", False, id="a newline after"),
    pytest.param("", False, id="nothing"),
    pytest.param(991825827, False, id="a number"),
    pytest.param(None, False, id="null"),
    pytest.param("910000020", True, id="check digit 11 stands as 0"),
    pytest.param("000000000", False, id="nobody"),
]


@pytest.mark.parametrize(("text", "right"), ORGNOS)
def test_orgno(text: object, right: bool) -> None:  # noqa: FBT001 - a column of the table
    """Nine digits and modulo 11."""
    assert (find_orgno(text) is not None) is right


def test_no_check_digit_is_ten() -> None:
    """Where the rule asks for 10, no last digit makes a number right."""
    bodies = (f"{n:08d}" for n in range(10_000_000, 10_000_200))
    found = {body: [d for d in range(10) if find_orgno(f"{body}{d}")] for body in bodies}

    assert {len(digits) for digits in found.values()} == {0, 1}


def test_an_orgno_that_is_none_is_a_sentence() -> None:
    """The author of a file learns what was expected."""
    assert iso6523(read_orgno("991825827"))["ID"] == "0192:991825827"
    with pytest.raises(ValueError, match="nine digits"):
        read_orgno("1")


PIDS = [
    pytest.param("25922947409", True, id="a synthetic one, month + 80"),
    pytest.param("01010750160", True, id="an ordinary one"),
    pytest.param("41010750126", False, id="a D-number with other digits"),
    pytest.param("25922947408", False, id="second control digit"),
    pytest.param("25922947419", False, id="first control digit"),
    pytest.param("00000000000", False, id="day and month 0"),
    pytest.param("2592294740", False, id="ten digits"),
    pytest.param("259229474090", False, id="twelve digits"),
    pytest.param("2592294740a", False, id="a letter"),
    pytest.param(25922947409, False, id="a number"),
]


@pytest.mark.parametrize(("text", "right"), PIDS)
def test_pid(text: object, right: bool) -> None:  # noqa: FBT001 - a column of the table
    """Eleven digits, a possible day and month, two control digits."""
    assert is_well_formed_pid(text) is right


def pid_with(day_and_month: str) -> str:
    """A number of that day and month whose control digits are right."""
    for serial in range(10_000):
        for control in range(100):
            text = f"{day_and_month}85{serial:03d}{control:02d}"
            if is_well_formed_pid(text):
                return text
        if serial > 3:
            break
    return ""


@pytest.mark.parametrize(
    "day_and_month",
    ["0101", "3112", "4101", "7112", "0141", "3152", "0166", "3177", "0181", "3192"],
)
def test_pid_days_and_months_there_are(day_and_month: str) -> None:
    """D-numbers add 40 to the day; synthetic numbers add 40, 65 or 80 to the month."""
    assert pid_with(day_and_month)


@pytest.mark.parametrize("day_and_month", ["0001", "3201", "4001", "7201", "0100", "0113", "0193"])
def test_pid_days_and_months_there_are_not(day_and_month: str) -> None:
    """One beyond on either side."""
    assert not pid_with(day_and_month)


SCOPES = [
    pytest.param("skatt:inntekt", True, id="plain"),
    pytest.param("991825827:x", True, id="an organisation number as prefix"),
    pytest.param("altinn:a/b:c:d.read", True, id="several colons and a slash"),
    pytest.param("nav:trygdeopplysninger/øk", True, id="a Norwegian letter"),
    pytest.param("a:" + "b" * 253, True, id="255 characters"),
    pytest.param("a:" + "b" * 254, False, id="256 characters"),
    pytest.param("skatt", False, id="no colon"),
    pytest.param("skatt:", False, id="no subscope"),
    pytest.param(":x", False, id="no prefix"),
    pytest.param("Skatt:x", False, id="a capital in the prefix"),
    pytest.param("skatt:a b", False, id="a space"),
    pytest.param('skatt:"', False, id="a quote"),
    pytest.param("skatt:\\", False, id="a backslash"),
    pytest.param("skatt:\x7f", False, id="a control character"),
]


@pytest.mark.parametrize(("name", "right"), SCOPES)
def test_scope_name(name: str, right: bool) -> None:  # noqa: FBT001 - a column of the table
    """A name for the registry: prefix, first colon, subscope."""
    if right:
        assert read_scope_name(name) == name
        assert is_scope_token(name)
    else:
        with pytest.raises(ValueError, match=r"must|prefix"):
            read_scope_name(name)


def test_a_scope_is_split_at_its_first_colon() -> None:
    """Further colons belong to the subscope."""
    scope = Scope(name=ScopeName("a:b:c"), owner_orgno=read_orgno("991825827"), description="")

    assert (scope.prefix, scope.subscope) == ("a", "b:c")


def test_prefix() -> None:
    """At most 64 characters, lower case, beginning with a letter or digit."""
    assert read_prefix("a" * 64)
    for wrong in ("a" * 65, "", "-a", "A", "a:b"):
        with pytest.raises(ValueError, match="prefix"):
            read_prefix(wrong)


def test_ids() -> None:
    """Client ids and key ids are short ASCII (attacks 4 and 28)."""
    assert is_client_id("MOVE_IP_991825827")
    assert is_client_id("x" * 255)
    assert is_key_id("a.b_c-1")
    for wrong in ("", "x" * 256, "a\0", "\uff41", "a b", None, 7):
        assert not is_client_id(wrong)
        assert not is_key_id(wrong)
