"""Trusted lists: what becomes an anchor, and every way in which a list does not hold."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.signer import XMLSigner

from maskinporten import pki, trusted_list
from maskinporten.cli import main
from maskinporten.pki import DAY, Issued
from maskinporten.trust import read_trust
from maskinporten.trusted_list import NotTrusted, TrustedList, read_trusted_list
from tests.chains import YEAR, authority, enterprise, root, trust_folder
from tests.seals import eu_issuing, eu_root
from tests.trusted_lists import (
    STATUS,
    TSL,
    TYPES,
    USE,
    ListOf,
    Service,
    operator,
    sign_xml,
    signed_list,
    written,
)
from tests.world import NOW


def read(octets: bytes, *signers: Issued, now: int = NOW) -> TrustedList:
    """The list, by the operator's certificate unless told else."""
    return read_trusted_list(octets, [s.certificate for s in signers or (operator(),)], now)


def names(found: TrustedList) -> list[tuple[bytes, bool]]:
    """The authorities, each with whether it is qualified."""
    return [(each.link.der, each.qualified) for each in found.authorities]


def test_a_signed_list() -> None:
    """Territory, number, dates, and the authorities for seals."""
    found = read(signed_list())

    assert (found.territory, found.sequence) == ("DE", 7)
    assert (found.issued, found.next_update) == (NOW - DAY, NOW + DAY)
    assert names(found) == [(eu_issuing().der, True)]
    assert found.authorities[0].name == "Seals"


def test_any_of_the_operator_s_certificates_may_have_signed() -> None:
    """An operator announces its next certificate before it uses it."""
    assert names(read(signed_list(by=operator("next")), operator(), operator("next")))


PKC: dict[str, Any] = {"kind": TYPES + "CA/PKC", "status": STATUS + "recognisedatnationallevel"}
SERVICES: list[Any] = [
    pytest.param(Service(), [True], id="qualified, granted"),
    pytest.param(Service(**PKC), [False], id="not qualified, recognised"),
    pytest.param(Service(status=STATUS + "withdrawn"), [], id="withdrawn"),
    pytest.param(Service(kind=TYPES + "CA/PKC"), [], id="granted, of a kind that is recognised"),
    pytest.param(Service(kind=TYPES + "TSA/QTST"), [], id="time stamps"),
    pytest.param(Service(use=USE + "ForeSignatures"), [], id="for people"),
    pytest.param(Service(since=NOW), [True], id="in force from this second"),
    pytest.param(Service(since=NOW + 1), [], id="in force in a second"),
]


@pytest.mark.parametrize(("service", "qualified"), SERVICES)
def test_services(service: Service, qualified: list[bool]) -> None:
    """Only those for seals that are in force at this moment."""
    found = read(signed_list(ListOf((service,))))

    assert [each.qualified for each in found.authorities] == qualified


USELESS: list[Any] = [
    pytest.param(Service(enterprise().certificate), id="no authority"),
    pytest.param(Service(octets=b"0"), id="no certificate"),
    pytest.param(
        Service(authority("gone", eu_root(), dated=(NOW - YEAR, NOW - 1)).certificate), id="expired"
    ),
]


@pytest.mark.parametrize("service", USELESS)
def test_certificates_of_no_use_are_passed_over_and_counted(service: Service) -> None:
    """One odd entry among hundreds does not cost a country its list."""
    found = read(signed_list(ListOf((service, Service()))))

    assert names(found) == [(eu_issuing().der, True)]
    assert found.passed_over == 1


def test_the_same_authority_twice_is_one_and_qualified_if_any_says_so() -> None:
    """Lists name an authority once for each of its services."""
    assert names(read(signed_list(ListOf((Service(**PKC), Service()))))) == [
        (eu_issuing().der, True)
    ]


def tampered(octets: bytes, old: bytes, new: bytes) -> bytes:
    """With one thing changed after it was signed."""
    assert old in octets
    return octets.replace(old, new, 1)


def wrapped() -> bytes:
    """A list of the attacker's around the signed one, whose signature was moved up."""
    genuine = etree.fromstring(signed_list())
    (signature,) = genuine.findall("{http://www.w3.org/2000/09/xmldsig#}Signature")
    genuine.remove(signature)
    genuine.set("Id", "list")
    evil = etree.fromstring(ListOf((Service(root().certificate),)).xml().encode())
    evil.set("Id", "evil")
    evil.append(genuine)
    evil.append(signature)
    return etree.tostring(evil)


def beside() -> bytes:
    """The signature covers a small element beside the list, and not the list."""
    document = etree.fromstring(ListOf().xml().encode())
    etree.SubElement(document, f"{{{TSL}}}Extra", Id="small").text = "signed"
    signer = XMLSigner(signature_algorithm=SignatureMethod.RSA_SHA256)
    signed = signer.sign(
        document, key=operator().key, cert=[operator().certificate], reference_uri="#small"
    )
    return etree.tostring(signed)


def bomb() -> bytes:
    """A billion laughs before the list."""
    entities = '<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
    )
    return f"<!DOCTYPE x [{entities}]>{ListOf().xml()}".encode()


XXE = b'<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
BAD: list[Any] = [
    pytest.param(lambda: ListOf().xml().encode(), "does not hold", id="not signed"),
    pytest.param(lambda: signed_list(by=operator("thief")), "does not hold", id="another signer"),
    pytest.param(
        lambda: signed_list(by=operator("old", until=NOW - 1)), "does not hold", id="an expired one"
    ),
    pytest.param(lambda: tampered(signed_list(), b">DE<", b">FR<"), "does not hold", id="changed"),
    pytest.param(
        lambda: tampered(
            signed_list(ListOf((Service(status=STATUS + "withdrawn"),))), b"withdrawn", b"granted"
        ),
        "does not hold",
        id="a withdrawn service made granted",
    ),
    pytest.param(beside, "does not cover", id="signature over something beside it"),
    pytest.param(
        lambda: sign_xml(f'<Other xmlns="{TSL}"/>'), "does not cover", id="another document"
    ),
    pytest.param(
        lambda: signed_list(digest_algorithm=DigestAlgorithm.SHA224), "does not hold", id="SHA-224"
    ),
    pytest.param(lambda: signed_list(ListOf(next_update="")), "NextUpdate", id="closed"),
    pytest.param(
        lambda: signed_list(ListOf(next_update=f"<dateTime>{written(NOW - 1)}</dateTime>")),
        "expired",
        id="expired",
    ),
    pytest.param(
        lambda: signed_list(ListOf(issued=written(NOW + 1))), "future", id="of the future"
    ),
    pytest.param(lambda: signed_list(ListOf(issued="2026")), "not a time", id="no time"),
    pytest.param(
        lambda: signed_list(ListOf(issued="2026-02-30T00:00:00Z")), "not a time", id="no day"
    ),
    pytest.param(lambda: signed_list(ListOf(territory="../x")), "not a country", id="a path"),
    pytest.param(lambda: signed_list(ListOf(sequence="-1")), "not a number", id="no number"),
    pytest.param(bomb, "document type", id="a billion laughs"),
    pytest.param(lambda: XXE + signed_list().partition(b"?>")[2], "document type", id="XXE"),
    pytest.param(lambda: signed_list().decode().encode("utf-16"), "UTF-8", id="UTF-16"),
    pytest.param(
        lambda: tampered(signed_list(), b"UTF-8", b"UTF-7"), "UTF-8", id="UTF-7 by its own words"
    ),
    pytest.param(lambda: b"<" * 100_000, "does not hold", id="no XML"),
    pytest.param(lambda: b"<a>" * 100_000, "does not hold", id="nested without end"),
    pytest.param(lambda: b"", "does not hold", id="nothing"),
    pytest.param(lambda: b" " * (trusted_list.MAX_LIST + 1), "longer than", id="too long"),
]


@pytest.mark.parametrize(("make", "detail"), BAD)
def test_refuses_a_list(make: Callable[[], bytes], detail: str) -> None:
    """One wrong thing at a time."""
    with pytest.raises(NotTrusted, match=detail):
        read(make())


def test_signature_wrapping_brings_no_anchor_of_the_attacker() -> None:
    """Only what the signature covers is read, wherever it lies in the file."""
    try:
        found = read(wrapped())
    except NotTrusted:
        return
    assert names(found) == [(eu_issuing().der, True)]


def test_a_comment_does_not_cut_a_text_in_two() -> None:
    """What canonical XML leaves out is not read either."""
    octets = tampered(signed_list(), b"<SchemeTerritory>DE<", b"<SchemeTerritory>D<!-- -->E<")

    assert read(octets).territory == "DE"


@pytest.mark.parametrize(("now", "holds"), [(NOW, True), (NOW + 1, False)])
def test_the_operator_s_certificate_must_be_valid(now: int, *, holds: bool) -> None:
    """On both sides of its last second."""
    brief = operator("brief", until=NOW)
    octets = signed_list(by=brief)
    if holds:
        read(octets, brief, now=now)
    else:
        with pytest.raises(NotTrusted, match="expired"):
            read(octets, brief, now=now)


@pytest.mark.parametrize(("now", "holds"), [(NOW + DAY, True), (NOW + DAY + 1, False)])
def test_next_update(now: int, *, holds: bool) -> None:
    """On both sides of the promise."""
    if holds:
        read(signed_list(), now=now)
    else:
        with pytest.raises(NotTrusted, match="NextUpdate"):
            read(signed_list(), now=now)


class Desk:
    """An operator at work, now."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.trust, self._folder, self._capsys = trust_folder(folder), folder, capsys
        self.now = int(time.time())
        since, until = self.now - DAY, self.now + YEAR
        self.operator = operator("of today", since=since, until=until)
        self.signer = folder / "operator.pem"
        self.signer.write_bytes(pki.chain_pem(self.operator.certificate))
        self.first, self.second = (
            authority(name, eu_root(), dated=(since, until)) for name in ("first", "second")
        )

    def service(self, issued: Issued, **changes: Any) -> Service:
        """Granted since a minute ago."""
        return Service(issued.certificate, since=self.now - 60, **changes)

    def run(self, *services: Service, sequence: int = 7, apply: bool = True) -> tuple[int, str]:
        """`trust import-list` of a list of these services: exit code and what was said."""
        of = ListOf(
            services,
            sequence=str(sequence),
            issued=written(self.now - 60),
            next_update=f"<dateTime>{written(self.now + DAY)}</dateTime>",
        )
        file = self._folder / "list.xml"
        file.write_bytes(signed_list(of, self.operator))
        return self.command(
            "import-list", str(file), "--signer", str(self.signer), *["--apply"] * apply
        )

    def command(self, *arguments: str) -> tuple[int, str]:
        """A part of `trust`."""
        code = main(["trust", arguments[0], "--trust", str(self.trust), *arguments[1:]])
        said = self._capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """With an empty folder `eu`."""
    return Desk(tmp_path, capsys)


def test_import_list_shows_and_only_apply_writes(desk: Desk) -> None:
    """What it would do stands on the screen before anything is done."""
    code, said = desk.run(desk.service(desk.first), apply=False)
    assert code == 0
    assert "+ de-" in said
    assert "nothing was written" in said
    assert not (desk.trust / "eu").exists()
    assert desk.run(desk.service(desk.first))[0] == 0
    trust = read_trust(desk.trust, "test")
    assert [a.link.der for a in trust.european] == [desk.first.der]
    code, said = desk.command("list")
    assert "anchor of seals" in said
    assert "trusted list DE 7: promised until" in said


def test_what_a_list_does_not_vouch_for_any_more_is_removed(desk: Desk) -> None:
    """And what an operator put there by hand, or another country's list, stays."""
    first, second = map(desk.service, (desk.first, desk.second))
    desk.run(first, second)
    by_hand = desk.trust / "eu" / "by-hand.pem"
    by_hand.write_bytes(pki.chain_pem(eu_root().certificate))
    code, said = desk.run(
        desk.service(desk.first, **PKC), desk.service(desk.second, status=STATUS + "withdrawn"),
        sequence=8,
    )  # fmt: skip

    assert code == 0
    assert said.count("\n- de-") == 2
    trust = read_trust(desk.trust, "test")
    assert {a.link.der for a in trust.european} == {desk.first.der, eu_root().der}
    assert trust.seals.unqualified == {desk.first.der}


def test_an_older_list_does_not_come_back(desk: Desk) -> None:
    """A withdrawn authority would come back with it."""
    desk.run(desk.service(desk.first), sequence=8)
    code, said = desk.run(desk.service(desk.second), sequence=7)
    assert code == 1
    assert "older than 8" in said
    assert desk.run(desk.service(desk.second), sequence=8)[0] == 0


def test_import_list_says_what_is_wrong(desk: Desk, tmp_path: Path) -> None:
    """One sentence for each fault, and nothing changes."""
    assert "vouches for no authority" in desk.run(desk.service(desk.first, use="x"))[1]
    (tmp_path / "no.pem").write_text("no")
    file = str(tmp_path / "list.xml")
    for arguments, sentence in (
        ((file, "--signer", str(tmp_path / "no.pem")), "not a certificate"),
        ((file, "--signer", str(tmp_path / "away.pem")), "cannot be read"),
        ((str(tmp_path / "away"), "--signer", str(desk.signer)), "cannot be read"),
        ((str(desk.signer), "--signer", str(desk.signer)), "does not hold"),
    ):
        code, said = desk.command("import-list", *arguments, "--apply")
        assert code == 1
        assert sentence in said
    assert not (desk.trust / "eu").exists()
