"""`trust`: which authorities are accepted in `x5c`; add one, compare one, list them all."""

import argparse
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from maskinporten.domain.link import Link
from maskinporten.domain.revocation import authority_id
from maskinporten.errors import Fault, InvalidInput
from maskinporten.pki import chain_pem
from maskinporten.revocation import Revocation
from maskinporten.revocation_folder import beside_database
from maskinporten.settings import PREFIX, Settings
from maskinporten.trust import (
    ANCHORS,
    PUBLISHED_FILE,
    TRUST_FILE,
    Authority,
    Published,
    fingerprint,
    is_self_signed,
    read_certificates,
    read_list_states,
    read_published,
    read_trust,
)


def add_parser(commands: Any) -> None:
    """Declare the command and its parts."""
    command = commands.add_parser(
        "trust",
        help="accept, compare and list certificate authorities",
        description="The authorities whose certificates count in `x5c`. Their certificates come "
        "from them, not from us; their published fingerprints stand in published.toml.",
    )
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--trust", type=Path, metavar="DIR", help=f"instead of {PREFIX}TRUST")
    parts = command.add_subparsers(title="parts", metavar="PART", required=True)
    add = parts.add_parser("add", parents=[where], help="accept the authority in a file")
    add.add_argument("file", type=Path, metavar="FILE", help="PEM or DER")
    add.add_argument(
        "--unpublished", action="store_true", help="though its fingerprint is not published"
    )
    add.add_argument("--anchor", action="store_true", help="a path may end there")
    add.set_defaults(run=_add)
    check = parts.add_parser("check", parents=[where], help="compare files with what is published")
    check.add_argument("files", type=Path, nargs="+", metavar="FILE")
    check.set_defaults(run=_check)
    imported = parts.add_parser(
        "import-list",
        parents=[where],
        help="accept the seal authorities of a European trusted list",
        description="Shows what a country's signed trusted list (ETSI TS 119 612) would change in "
        "the folder eu of the trust directory; --apply does it. What it does not vouch for any "
        "more is removed.",
    )
    imported.add_argument("file", type=Path, metavar="FILE", help="the list as XML")
    imported.add_argument(
        "--signer", type=Path, action="append", required=True, metavar="CERT",
        help="a certificate of the scheme operator, PEM or DER; may be repeated",
    )  # fmt: skip
    imported.add_argument("--apply", action="store_true", help="write it")
    imported.set_defaults(run=_import_list)
    shown = parts.add_parser("list", parents=[where], help="what is accepted, and fresh until when")
    shown.add_argument("--revocation", type=Path, metavar="DIR")
    shown.set_defaults(run=_list)


def _folder(arguments: argparse.Namespace) -> Path:
    named = arguments.trust or Settings.folder_from_environ("TRUST")
    if named is None:
        raise InvalidInput((Fault(f"{PREFIX}TRUST", "must be set, or give --trust DIR"),))
    return Path(named)


def _environment(folder: Path) -> str:
    try:
        return str(tomllib.loads((folder / TRUST_FILE).read_text("utf-8")).get("environment"))
    except (OSError, ValueError) as fault:
        raise InvalidInput((Fault(str(folder / TRUST_FILE), "cannot be read"),)) from fault


def _read(path: Path) -> list[Link]:
    try:
        return read_certificates(path)
    except ValueError as fault:
        raise InvalidInput((Fault(str(path), str(fault)),)) from fault


def _add(arguments: argparse.Namespace) -> int:
    folder = _folder(arguments)
    environment = _environment(folder)
    known = read_published(folder.parent / PUBLISHED_FILE)
    for link in _read(arguments.file):
        name = fingerprint(link.der)
        entry = known.get(name)
        fault = _fault(link, entry, environment, unpublished=arguments.unpublished)
        if fault is not None:
            raise InvalidInput((Fault(f"{arguments.file}: {name}", fault),))
        place = folder / ANCHORS if arguments.anchor else folder
        place.mkdir(exist_ok=True)
        target = place / f"{name[:16]}.pem"
        target.write_bytes(chain_pem(link.certificate))
        role = "anchor" if arguments.anchor or is_self_signed(link) else "intermediate"
        print(f"{target}: {role} {_subject(link)}")
    read_trust(folder, environment)
    return 0


def _fault(
    link: Link, entry: Published | None, environment: str, *, unpublished: bool
) -> str | None:
    if not link.is_ca:
        return "is not the certificate of an authority"
    if entry is None:
        return None if unpublished else "is not published; add --unpublished if you know it"
    if entry.environment != environment:
        return f"{entry.name} belongs to {entry.environment}"
    return None


def _check(arguments: argparse.Namespace) -> int:
    known = read_published(_folder(arguments).parent / PUBLISHED_FILE)
    every = True
    for path in arguments.files:
        for link in _read(path):
            name = fingerprint(link.der)
            entry = known.get(name)
            every = every and entry is not None
            verdict = (
                f"published: {entry.name}, {entry.role}, {entry.environment}"
                if entry
                else "NOT PUBLISHED"
            )
            print(f"{path}: {_subject(link)}\n  sha256 {name}\n  {verdict}")
    return 0 if every else 1


def _import_list(arguments: argparse.Namespace) -> int:
    # Late, for the XML libraries are many and nothing else needs them.
    from maskinporten.commands.trusted_list import import_list  # noqa: PLC0415

    return import_list(_folder(arguments), arguments.file, arguments.signer, apply=arguments.apply)


def _list(arguments: argparse.Namespace) -> int:
    folder = _folder(arguments)
    trust = read_trust(folder, _environment(folder))
    place = arguments.revocation or Settings.folder_from_environ("REVOCATION")
    if place is None and (url := Settings.database_from_environ()[0]):
        place = beside_database(url)
    lists = {}
    if place is not None and place.is_dir():
        revocation = Revocation(trust.publishers, Path(place), time.time, lambda _: None, 900)
        revocation.load()
        lists = dict(revocation.evidence.lists)
    for authority in trust.authorities:
        promised = [found.next_update for found in lists.get(authority_id(authority.link), ())]
        print(_shown(authority, max(promised, default=None)))
    for authority in trust.european:
        promised = [found.next_update for found in lists.get(authority_id(authority.link), ())]
        print(_shown(authority, max(promised, default=None), "anchor of seals"))
    for listed in read_list_states(folder):
        print(f"trusted list {listed.territory} {listed.sequence}: {_until(listed.next_update)}")
    print("policies: " + " ".join(trust.store.policies))
    if not trust.authorities:
        print(f"no authority is accepted yet; see {folder.parent / 'README.md'}", file=sys.stderr)
    return 0


def _shown(authority: Authority, promised: int | None, role: str = "") -> str:
    role = role or ("anchor" if authority.is_anchor else "intermediate")
    lines = [f"{role} {_subject(authority.link)}", f"  sha256 {authority.sha256}"]
    published = authority.published
    lines.append(f"  published as {published.name}" if published else "  not published")
    lines.append(f"  valid until {_date(authority.link.not_after)}")
    lines += [f"  list {url}" for url in authority.crl]
    lines += [f"  responder {url}" for url in authority.ocsp]
    if authority.crl:
        lines.append(f"  list promised until {_date(promised) if promised else '(none yet)'}")
    return "\n".join(lines)


def _until(next_update: int) -> str:
    day = _date(next_update)
    if next_update < time.time():
        return f"EXPIRED {day}; import its successor"
    return f"promised until {day}"


def _subject(link: Link) -> str:
    return link.certificate.subject.rfc4514_string()


def _date(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))
