"""A test PKI kept in one folder: its keys, what it issued, what it revoked; served over HTTP."""

import fcntl
import http.server
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from maskinporten import pki
from maskinporten.errors import Fault, InvalidInput
from maskinporten.pki import Generation, Issued

INDEX: Final = "index.json"
ROOT_LIST: Final = "/root.crl"
ISSUING_LIST: Final = "/issuing.crl"
SEALS_LIST: Final = "/seals.crl"
RESPONDER: Final = "/ocsp"
_MAX_REQUEST: Final = 16 * 1024  # octets of an OCSP request
_LIST_LIFETIME: Final = 3600  # seconds; each list is signed when it is asked for


@dataclass(frozen=True, slots=True)
class IssuerFolder:
    """The PKI in `folder`. Its keys open nothing but what trusts its root."""

    folder: Path
    root: Issued
    issuing: Issued

    def issue(self, orgno: str, now: int, *, url: str | None = None, **options: Any) -> Issued:
        """A certificate for the organisation, noted in the index. Options as of `pki`."""
        issued = pki.issue_enterprise(
            self.issuing,
            orgno,
            now,
            crl_url=url and url + ISSUING_LIST,
            ocsp_url=url and url + RESPONDER,
            **options,
        )
        generation = options.get("generation", Generation.SEID2)
        self._keep(issued, f"{orgno}-{generation}", self.issuing, self.root)
        return issued

    def issue_seal(
        self, identifier: str, now: int, *, url: str | None = None, **options: Any
    ) -> Issued:
        """A European seal, by an authority of its own, made when it is first needed."""
        authority = self.find_seal_authority()
        if authority is None:
            authority = pki.make_root("Maskinporten test seal CA", now)
            _write(self.folder / "seals.key.pem", pki.key_pem(authority.key))
            _write(self.folder / "seals.pem", pki.chain_pem(authority.certificate))
        crl_url = url and url + SEALS_LIST
        issued = pki.issue_seal(authority, identifier, now, crl_url=crl_url, **options)
        self._keep(issued, f"{identifier}-seal", authority)
        return issued

    def find_seal_authority(self) -> Issued | None:
        """The authority of the seals; None before the first one."""
        stem = self.folder / "seals"
        return read_issued(stem) if stem.with_suffix(".pem").exists() else None

    def _keep(self, issued: Issued, kind: str, *above: Issued) -> None:
        """Its files, chain and key, and its line in the index."""
        serial = issued.certificate.serial_number
        name = f"{kind}-{serial % 10**8:08d}"
        chain = pki.chain_pem(issued.certificate, *(authority.certificate for authority in above))
        _write(self.folder / f"{name}.pem", chain)
        _write(self.folder / f"{name}.key.pem", pki.key_pem(issued.key))
        with self._index() as index:
            index["issued"][str(serial)] = name

    def name_of(self, issued: Issued) -> str:
        """The name of its files, without their endings."""
        with self._index() as index:
            name: str = index["issued"][str(issued.certificate.serial_number)]
        return name

    def revoke(self, certificate: x509.Certificate, now: int) -> None:
        """From now on the list names it. Raises InvalidInput for a stranger's certificate."""
        serial = str(certificate.serial_number)
        with self._index() as index:
            if serial not in index["issued"]:
                raise InvalidInput((Fault(serial, "is not a certificate of this PKI"),))
            index["revoked"].setdefault(serial, now)

    def list_of(self, authority: Issued, now: int) -> bytes:
        """The authority's list of revoked certificates, signed now."""
        revoked = []
        if authority is not self.root:
            with self._index() as index:
                revoked = [(int(serial), at) for serial, at in index["revoked"].items()]
        return pki.sign_crl(authority, revoked, now, number=now, lifetime=_LIST_LIFETIME)

    def answer(self, request: bytes, now: int) -> bytes:
        """The responder's answer about a certificate of the issuing authority."""
        with self._index() as index:
            revoked = [(int(serial), at) for serial, at in index["revoked"].items()]
            names = list(index["issued"].values())
        known = [_read_certificate(self.folder / f"{name}.pem") for name in names]
        return pki.answer_ocsp(self.issuing, request, known, revoked, now, lifetime=_LIST_LIFETIME)

    def write_trust(self, folder: Path, url: str | None) -> None:
        """A trust directory for the test environment that accepts this PKI and nothing else."""
        folder.mkdir(parents=True, exist_ok=True)
        policies = "".join(f'    "{policy}",\n' for policy in pki.TEST_POLICIES.values())
        tables = ""
        for authority, place in ((self.root, ROOT_LIST), (self.issuing, ISSUING_LIST)):
            fingerprint = authority.certificate.fingerprint(pki.SHA256).hex()
            if url is not None:
                tables += f'\n[[authority]]\nsha256 = "{fingerprint}"\ncrl = ["{url}{place}"]\n'
            if url is not None and authority is self.issuing:
                tables += f'ocsp = ["{url}{RESPONDER}"]\n'
        text = (
            f'environment = "test"\npolicies = [\n{policies}]\n\n[revocation]\n'
            'when_stale = "accept"\nwithout_source = "accept"\nprivate_addresses = true\n'
        )
        _write(folder / "trust.toml", (text + tables).encode())
        _write(folder / "root.pem", pki.chain_pem(self.root.certificate))
        _write(folder / "issuing.pem", pki.chain_pem(self.issuing.certificate))
        if (seals := self.find_seal_authority()) is not None:
            (folder / "eu").mkdir(exist_ok=True)
            _write(folder / "eu" / "seals.pem", pki.chain_pem(seals.certificate))

    @contextmanager
    def _index(self) -> Iterator[dict[str, dict[str, Any]]]:
        """The index, held against other processes and written back."""
        descriptor = os.open(self.folder / INDEX, os.O_RDWR)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            before = file.read()
            index = json.loads(before)
            yield index
            after = json.dumps(index, indent=1) + "\n"
            if after != before:
                file.seek(0)
                file.truncate()
                file.write(after)


def make_issuer_folder(folder: Path, now: int) -> IssuerFolder:
    """The PKI in `folder`, made if it is not there. Raises OSError, InvalidInput."""
    if (folder / INDEX).exists():
        return open_issuer_folder(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = pki.make_root("Maskinporten test root", now)
    issuing = pki.make_issuing_authority(root, "Maskinporten test enterprise CA", now)
    for name, authority in (("root", root), ("issuing", issuing)):
        _write(folder / f"{name}.pem", pki.chain_pem(authority.certificate))
        _write(folder / f"{name}.key.pem", pki.key_pem(authority.key))
    _write(folder / INDEX, b'{"issued": {}, "revoked": {}}\n')
    return IssuerFolder(folder, root, issuing)


def open_issuer_folder(folder: Path) -> IssuerFolder:
    """The PKI that `make_issuer_folder` left there. Raises InvalidInput."""
    if not (folder / INDEX).exists():
        sentence = "holds no test PKI; make one with: maskinporten pki make"
        raise InvalidInput((Fault(str(folder), sentence),))
    return IssuerFolder(folder, read_issued(folder / "root"), read_issued(folder / "issuing"))


def read_issued(stem: Path) -> Issued:
    """Certificate and key beside each other. Raises InvalidInput."""
    path = stem.with_name(stem.name + ".key.pem")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as fault:
        raise InvalidInput((Fault(str(path), "is not a private key we can read"),)) from fault
    if not isinstance(key, rsa.RSAPrivateKey):
        raise InvalidInput((Fault(str(path), "is not an RSA key"),))
    return Issued(_read_certificate(stem.with_name(stem.name + ".pem")), key)


def serve_issuer_folder(
    issuers: IssuerFolder, address: tuple[str, int], clock: Any
) -> http.server.ThreadingHTTPServer:
    """A server for lists and the responder, on a thread of its own until `shutdown`."""
    lists: Mapping[str, Issued] = {ROOT_LIST: issuers.root, ISSUING_LIST: issuers.issuing}

    class Handler(http.server.BaseHTTPRequestHandler):
        """GET a list, POST to the responder."""

        def do_GET(self) -> None:
            authority = lists.get(self.path)
            if self.path == SEALS_LIST:
                authority = issuers.find_seal_authority()
            if authority is None:
                self.send_error(404)
            else:
                self._send(issuers.list_of(authority, int(clock())), "application/pkix-crl")

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            if self.path != RESPONDER or not 0 < length <= _MAX_REQUEST:
                self.send_error(404)
                return
            answer = issuers.answer(self.rfile.read(length), int(clock()))
            self._send(answer, "application/ocsp-response")

        def log_message(self, *_: Any) -> None:
            """Silence: a sandbox's own requests are not worth a line."""

        def _send(self, octets: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(octets)))
            self.end_headers()
            self.wfile.write(octets)

    server = _Server(address, Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that left is no news; anything else is told as ever."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as fault:
        raise InvalidInput((Fault(str(path), "is not a certificate we can read"),)) from fault


def _write(path: Path, octets: bytes) -> None:
    """All or nothing, for the owner's eyes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
    temporary.replace(path)
