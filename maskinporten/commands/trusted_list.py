"""`trust import-list`: from a country's signed trusted list to anchors of seals."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography import x509

from maskinporten.errors import Fault, InvalidInput
from maskinporten.pki import chain_pem
from maskinporten.trust import EUROPEAN, UNQUALIFIED, fingerprint, read_list_states
from maskinporten.trusted_list import (
    MAX_LIST,
    ListedAuthority,
    NotTrusted,
    TrustedList,
    read_trusted_list,
)

_PEM = b"-----BEGIN"


def import_list(folder: Path, file: Path, signers: Sequence[Path], *, apply: bool) -> int:
    """Show what the list would change, and change it under `apply`. Raises InvalidInput."""
    certificates = [certificate for path in signers for certificate in _read_signer(path)]
    try:
        with file.open("rb") as opened:
            listed = read_trusted_list(opened.read(MAX_LIST + 1), certificates, int(time.time()))
    except OSError as fault:
        sentence = f"cannot be read: {fault.strerror}"
        raise InvalidInput((Fault(str(file), sentence),)) from fault
    except NotTrusted as fault:
        raise InvalidInput((Fault(str(file), str(fault)),)) from fault
    for state in read_list_states(folder):
        if state.territory == listed.territory and state.sequence > listed.sequence:
            sentence = (
                f"is number {listed.sequence}, older than {state.sequence}, which is in force"
            )
            raise InvalidInput((Fault(str(file), sentence),))
    if not listed.authorities:
        raise InvalidInput((Fault(str(file), "vouches for no authority for seals"),))
    place = folder / EUROPEAN
    wanted = {_path(place, listed, each): each for each in listed.authorities}
    stem = f"{listed.territory.lower()}-*.pem"
    present = {*place.glob(stem), *(place / UNQUALIFIED).glob(stem)}
    _show(listed, wanted, present, file)
    if apply:
        _write(place, listed, wanted, present)
        print(f"written to {place}; a restart takes it up")
    else:
        print("nothing was written; add --apply")
    return 0


def _read_signer(path: Path) -> list[x509.Certificate]:
    try:
        octets = path.read_bytes()
        if _PEM in octets:
            return x509.load_pem_x509_certificates(octets)
        return [x509.load_der_x509_certificate(octets)]
    except OSError as fault:
        sentence = f"cannot be read: {fault.strerror}"
        raise InvalidInput((Fault(str(path), sentence),)) from fault
    except ValueError as fault:
        raise InvalidInput((Fault(str(path), "is not a certificate in PEM or DER"),)) from fault


def _path(place: Path, listed: TrustedList, authority: ListedAuthority) -> Path:
    """The territory stands in the name, so that its next list knows what to replace."""
    name = f"{listed.territory.lower()}-{fingerprint(authority.link.der)[:16]}.pem"
    return (place if authority.qualified else place / UNQUALIFIED) / name


def _show(
    listed: TrustedList, wanted: Mapping[Path, ListedAuthority], present: set[Path], file: Path
) -> None:
    until = time.strftime("%Y-%m-%d", time.gmtime(listed.next_update))
    print(f"{file}: trusted list {listed.territory} {listed.sequence}, promised until {until}")
    for path, authority in sorted(wanted.items()):
        mark = "=" if path in present else "+"
        kind = "qualified" if authority.qualified else "unqualified"
        subject = authority.link.certificate.subject.rfc4514_string()
        print(f"{mark} {path.name} {kind} {subject}")
    for path in sorted(present - wanted.keys()):
        print(f"- {path.name}")
    if listed.passed_over:
        print(f"{listed.passed_over} certificates are expired or of no use to a path; passed over")


def _write(
    place: Path, listed: TrustedList, wanted: Mapping[Path, ListedAuthority], present: set[Path]
) -> None:
    (place / UNQUALIFIED).mkdir(parents=True, exist_ok=True)
    for path, authority in wanted.items():
        path.write_bytes(chain_pem(authority.link.certificate))
    for path in present - wanted.keys():
        path.unlink()
    state = f"sequence = {listed.sequence}\nnext_update = {listed.next_update}\n"
    (place / f"{listed.territory.lower()}.toml").write_text(state, "ascii")
