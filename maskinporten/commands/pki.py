"""`pki`: a test PKI for organisations' certificates, in a folder of your own."""

import argparse
import getpass
import re
import sys
import time
from pathlib import Path
from typing import Any

from maskinporten import pki
from maskinporten.domain.orgno import read_orgno
from maskinporten.errors import Fault, InvalidInput
from maskinporten.issuer_folder import (
    make_issuer_folder,
    open_issuer_folder,
    read_issued,
    serve_issuer_folder,
)
from maskinporten.pki import DAY, Generation
from maskinporten.trust import read_certificates

_HOST = "127.0.0.1"
_IDENTIFIER = re.compile(r"[A-Z]{5}-[A-Za-z0-9]{1,64}", re.ASCII)  # ETSI EN 319 412-1


def add_parser(commands: Any) -> None:
    """Declare the command and its parts."""
    command = commands.add_parser(
        "pki",
        help="make, issue, revoke and serve test certificates of organisations",
        description="A test PKI: a root, an issuing authority, enterprise certificates of both "
        "generations. It proves nothing to anyone who was not told to trust its root.",
    )
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--folder", type=Path, default=Path(".dev/pki"), metavar="DIR", help="default .dev/pki"
    )
    parts = command.add_subparsers(title="parts", metavar="PART", required=True)
    make = parts.add_parser("make", parents=[folder], help="a root and an issuing authority")
    make.set_defaults(run=_make)
    issue = parts.add_parser("issue", parents=[folder], help="a certificate for an organisation")
    issue.add_argument("orgno", metavar="ORGNO")
    issue.add_argument("--name", default="Test Organisation AS")
    issue.add_argument("--generation", choices=[*Generation], default=Generation.SEID2)
    issue.add_argument("--days", type=int, default=1095, help="default 1095, three years")
    issue.add_argument("--url", help="where `pki serve` answers; stands in the certificate")
    issue.add_argument("--p12", type=Path, metavar="FILE", help="also write PKCS #12")
    issue.set_defaults(run=_issue)
    seal = parts.add_parser("seal", parents=[folder], help="a European electronic seal")
    seal.add_argument("identifier", metavar="ID", help="organizationIdentifier: VATDE-123456789")
    seal.add_argument("--name", default="Test Business")
    seal.add_argument("--unqualified", action="store_true", help="an advanced seal, no more")
    seal.add_argument("--days", type=int, default=1095, help="default 1095, three years")
    seal.add_argument("--url", help="where `pki serve` answers; stands in the certificate")
    seal.set_defaults(run=_seal)
    revoke = parts.add_parser("revoke", parents=[folder], help="name a certificate in the list")
    revoke.add_argument("file", type=Path, metavar="FILE", help="its PEM or DER")
    revoke.set_defaults(run=_revoke)
    serve = parts.add_parser("serve", parents=[folder], help="the lists and the OCSP responder")
    serve.add_argument("--port", type=int, default=8089)
    serve.set_defaults(run=_serve)
    trust = parts.add_parser("trust", parents=[folder], help="a trust directory for this PKI")
    trust.add_argument("directory", type=Path, metavar="DIR")
    trust.add_argument("--url", help="where `pki serve` answers, such as http://127.0.0.1:8089")
    trust.set_defaults(run=_trust)
    unpack = parts.add_parser("unpack", help="PKCS #12, as issuers deliver it, to PEM")
    unpack.add_argument("file", type=Path, metavar="FILE")
    unpack.add_argument("--to", type=Path, required=True, metavar="STEM", help="STEM.pem, …")
    unpack.set_defaults(run=_unpack)
    for part in (issue, unpack):
        part.add_argument("--password-file", type=Path, metavar="FILE", help="else it is asked for")


def _make(arguments: argparse.Namespace) -> int:
    issuers = make_issuer_folder(arguments.folder, int(time.time()))
    print(f"root and issuing authority in {issuers.folder}")
    return 0


def _issue(arguments: argparse.Namespace) -> int:
    try:
        orgno = read_orgno(arguments.orgno)
    except ValueError as fault:
        raise InvalidInput((Fault(arguments.orgno, str(fault)),)) from fault
    if arguments.days < 1:
        raise InvalidInput((Fault("--days", "must be at least 1"),))
    issuers = open_issuer_folder(arguments.folder)
    issued = issuers.issue(
        orgno,
        int(time.time()),
        url=arguments.url,
        name=arguments.name,
        generation=Generation(arguments.generation),
        lifetime=arguments.days * DAY,
    )
    stem = arguments.folder / issuers.name_of(issued)
    print(f"--cert-chain {stem}.pem --key {stem}.key.pem")
    if arguments.p12 is not None:
        chain = [issuers.issuing.certificate, issuers.root.certificate]
        octets = pki.write_pkcs12(issued, chain, _password(arguments))
        arguments.p12.touch(mode=0o600)
        arguments.p12.write_bytes(octets)
        print(arguments.p12)
    return 0


def _seal(arguments: argparse.Namespace) -> int:
    if not _IDENTIFIER.fullmatch(arguments.identifier):
        sentence = "must be a type, a country and an identifier, such as VATDE-123456789"
        raise InvalidInput((Fault(arguments.identifier, sentence),))
    if arguments.days < 1:
        raise InvalidInput((Fault("--days", "must be at least 1"),))
    issuers = open_issuer_folder(arguments.folder)
    issued = issuers.issue_seal(
        arguments.identifier,
        int(time.time()),
        url=arguments.url,
        name=arguments.name,
        country=arguments.identifier[3:5],
        qualified=not arguments.unqualified,
        lifetime=arguments.days * DAY,
    )
    stem = arguments.folder / issuers.name_of(issued)
    print(f"--cert-chain {stem}.pem --key {stem}.key.pem")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    try:
        leaf = read_certificates(arguments.file)[0]
    except ValueError as fault:
        raise InvalidInput((Fault(str(arguments.file), str(fault)),)) from fault
    open_issuer_folder(arguments.folder).revoke(leaf.certificate, int(time.time()))
    print(f"revoked: serial number {leaf.serial}")
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    issuers = open_issuer_folder(arguments.folder)
    server = serve_issuer_folder(issuers, (_HOST, arguments.port), time.time)
    url = f"http://{_HOST}:{server.server_port}"
    print(f"{url}/root.crl\n{url}/issuing.crl\n{url}/seals.crl\n{url}/ocsp", flush=True)
    try:
        while True:
            time.sleep(3600)
    finally:
        server.shutdown()


def _trust(arguments: argparse.Namespace) -> int:
    open_issuer_folder(arguments.folder).write_trust(arguments.directory, arguments.url)
    print(f"MASKINPORTEN_TRUST={arguments.directory.resolve()}")
    return 0


def _unpack(arguments: argparse.Namespace) -> int:
    try:
        octets = arguments.file.read_bytes()
        issued, chain = pki.read_pkcs12(octets, _password(arguments))
        certificates = arguments.to.with_name(arguments.to.name + ".pem")
        key = arguments.to.with_name(arguments.to.name + ".key.pem")
        certificates.write_bytes(pki.chain_pem(issued.certificate, *chain))
        key.touch(mode=0o600)
        key.write_bytes(pki.key_pem(issued.key))
        read_issued(arguments.to)
    except (OSError, ValueError) as fault:
        raise InvalidInput((Fault(str(arguments.file), str(fault)),)) from fault
    print(f"--cert-chain {certificates} --key {key}")
    return 0


def _password(arguments: argparse.Namespace) -> bytes:
    if arguments.password_file is not None:
        try:
            text: str = arguments.password_file.read_text("utf-8")
        except OSError as fault:
            raise InvalidInput((Fault(str(fault.filename), str(fault.strerror)),)) from fault
        return text.rstrip("\n").encode()
    if not sys.stdin.isatty():
        raise InvalidInput((Fault("--password-file", "must be given where nobody can be asked"),))
    return getpass.getpass("password of the PKCS #12 file: ").encode()
