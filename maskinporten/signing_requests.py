"""Certificates of authorities for our signing keys: the request out, the answer in."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7, pkcs12
from cryptography.x509 import Certificate
from cryptography.x509.oid import NameOID

from maskinporten.domain.jwk import rsa_members, thumbprint
from maskinporten.domain.keystep import StepRefused
from maskinporten.domain.orgno import find_orgno
from maskinporten.domain.registry import Registry
from maskinporten.domain.rotation import RotationPolicy
from maskinporten.domain.signing import SealedKey, SigningRequest
from maskinporten.domain.signing_certificate import planned_end, verify_chain
from maskinporten.errors import Fault, InvalidInput
from maskinporten.keyring import Keyring

MAX_FILE: Final = 256 * 1024  # octets


def subject_of(name: str, organization: str, orgno: str) -> x509.Name:
    """The subject that is asked for. Raises InvalidInput."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization[:64]))
    if orgno:
        if find_orgno(orgno) is None:
            raise InvalidInput((Fault("--orgno", "must be nine digits with their check digit"),))
        identifier = f"NTRNO-{orgno}"
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_IDENTIFIER, identifier))
        attributes.insert(0, x509.NameAttribute(NameOID.COUNTRY_NAME, "NO"))
    return x509.Name(attributes)


def write_request(path: Path, pem: bytes) -> None:
    """The request as a file, before its key is kept. Raises InvalidInput."""
    try:
        path.write_bytes(pem)
    except OSError as fault:
        sentence = f"cannot be written: {fault.strerror}"
        raise InvalidInput((Fault(str(path), sentence),)) from fault


def import_certificate(
    paths: Sequence[Path],
    password_file: Path | None,
    keyring: Keyring,
    registry: Registry,
    policy: RotationPolicy,
    now: int,
) -> tuple[SealedKey, SigningRequest | None]:
    """The prepared key that the files make, and the request they answer, closed.

    A PKCS #12 brings its own key. Raises StepRefused with one sentence, InvalidInput.
    """
    password = _read(password_file).rstrip(b"\r\n") if password_file else None
    certificates: list[Certificate] = []
    private_key = None
    for path in paths:
        found, brought = _parse(_read(path), password)
        certificates += found
        private_key = private_key or brought
    request = None
    if private_key is None:
        request = _answered(certificates, registry)
        private_key = keyring.private_key(request)
        request = replace(request, sealed="")
    kid = thumbprint(*rsa_members(private_key.public_key()))
    if kid in registry.signing_keys:
        raise StepRefused(f"the key {kid} is there already; a key is used once")
    ders = [one.public_bytes(Encoding.DER) for one in certificates]
    chain = verify_chain(ders, private_key.public_key(), planned_end(policy, now), now)
    return keyring.seal_key(private_key, chain, now), request


def _answered(certificates: Sequence[Certificate], registry: Registry) -> SigningRequest:
    for certificate in certificates:
        try:
            kid = thumbprint(*rsa_members(certificate.public_key()))  # type: ignore[arg-type]
        except (AttributeError, ValueError):
            continue
        request: SigningRequest | None = registry.signing_requests.get(kid)
        if request is not None and request.sealed:
            return request
    raise StepRefused("no certificate in the file is for a key that `keys csr` has made here")


def _parse(octets: bytes, password: bytes | None) -> tuple[list[Certificate], RSAPrivateKey | None]:
    """Certificates, and the private key where the file is a PKCS #12. Raises StepRefused."""
    if password is None:
        if found := _certificates(octets):
            return found, None
        raise StepRefused("is no PEM, DER or PKCS #7; a PKCS #12 needs --password-file")
    try:
        store = pkcs12.load_pkcs12(octets, password)
    except ValueError as fault:
        raise StepRefused("is no PKCS #12, or the password is another's") from fault
    if not isinstance(store.key, RSAPrivateKey) or store.cert is None:
        raise StepRefused("holds no RSA key with a certificate")
    others = [extra.certificate for extra in store.additional_certs]
    return [store.cert.certificate, *others], store.key


def _certificates(octets: bytes) -> list[Certificate]:
    """The certificates of a file in any of the usual forms; none where it is none of them."""
    readers: list[Callable[[bytes], list[Certificate]]] = [
        pkcs7.load_pem_pkcs7_certificates,
        x509.load_pem_x509_certificates,
        pkcs7.load_der_pkcs7_certificates,
        lambda der: [x509.load_der_x509_certificate(der)],
    ]
    for read in readers:
        try:
            return read(octets)
        except (ValueError, UnsupportedAlgorithm):
            continue
    return []


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_FILE + 1)
    except OSError as fault:
        sentence = f"cannot be read: {fault.strerror}"
        raise InvalidInput((Fault(str(path), sentence),)) from fault
    if len(octets) > MAX_FILE:
        raise InvalidInput((Fault(str(path), f"is longer than {MAX_FILE} octets"),))
    return octets
