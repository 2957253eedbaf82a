"""The folder of revocation evidence that the workers of a node share, and keep over restarts.

lock            held by the one worker that fetches
fetches.json    what became of each fetch, for the operator's page
*.crl, *.ocsp   lists and answers, each as its publisher signed it
watched/        certificates in use: responders are asked about them
learned/        places of lists that certificates of proven paths name (European seals)
"""

import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from maskinporten.domain.link import Invalid, Link, read_link
from maskinporten.domain.path import Path as CertificatePath
from maskinporten.domain.revocation import authority_id, list_urls
from maskinporten.settings import Settings

MAX_WATCHED: Final = 10_000  # certificates asked about by OCSP
MAX_LEARNED: Final = 2_000  # places of lists that were learned from certificates
FORGOTTEN_AFTER: Final = 7 * 24 * 3600  # seconds after which an unused certificate is not asked of
_MAX_URLS: Final = 2  # of one certificate
_MAX_URL_LENGTH: Final = 500
_log = logging.getLogger(__name__)


class Publisher(Protocol):
    """An authority and where it publishes what it revoked (`trust.Authority`)."""

    @property
    def link(self) -> Link:
        """Its certificate."""
        ...

    @property
    def crl(self) -> tuple[str, ...]:
        """Where its lists lie."""
        ...

    @property
    def ocsp(self) -> tuple[str, ...]:
        """Where its responders answer."""
        ...


@dataclass(frozen=True, slots=True)
class ListSource:
    """A list: whose, where it is published, where we keep it."""

    authority: Link
    url: str
    path: Path


@dataclass(frozen=True, slots=True)
class AnswerSource:
    """An answer about one certificate: whose, who can be asked, where we keep it."""

    authority: Link
    link: Link
    urls: tuple[str, ...]
    path: Path


class RevocationFolder:
    """One worker's view of the folder. What it notes in memory is written by `write_noted`."""

    def __init__(self, publishers: Sequence[Publisher], folder: Path) -> None:
        self.publishers = tuple(publishers)
        self._by_authority = {authority_id(p.link): p for p in publishers}
        self._folder = folder
        self._noted: dict[Path, bytes] = {}
        self._learned: dict[Path, ListSource] = {}
        self._lock: int | None = None
        for name in ("watched", "learned"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def note(self, path: CertificatePath) -> None:
        """Every certificate of the path below its anchor is in use, and may be asked about."""
        for link, issuer in zip(path.links, path.links[1:], strict=False):
            name = authority_id(issuer)
            publisher = self._by_authority.get(name)
            if link is path.links[0] or (publisher is not None and publisher.ocsp):
                digest = hashlib.sha256(link.der).hexdigest()
                self._note(self._folder / "watched" / f"{name.hex()}-{digest}.cer", link.der)

    def learn(self, path: CertificatePath) -> Iterator[ListSource]:
        """The places of lists that its certificates name, where we know none of the issuer.

        The path holds, so an authority of ours vouches for what they say.
        """
        for link, issuer in zip(path.links, path.links[1:], strict=False):
            publisher = self._by_authority.get(authority_id(issuer))
            if publisher is not None and (publisher.crl or publisher.ocsp):
                continue
            for url in list_urls(link)[:_MAX_URLS]:
                if len(url) <= _MAX_URL_LENGTH and url.isprintable():
                    source = self._source(issuer, url)
                    place = self._folder / "learned" / f"{source.path.stem}.src"
                    self._note(place, url.encode() + b"\n" + issuer.der)
                    yield source

    def _note(self, path: Path, octets: bytes) -> None:
        if len(self._noted) < MAX_WATCHED:
            self._noted[path] = octets

    def write_noted(self, now: float) -> None:
        """Tell the one who fetches; what is there already is only dated anew."""
        noted, self._noted = self._noted, {}
        for path, octets in noted.items():
            if path.exists():
                os.utime(path, (now, now))
            else:
                write_whole(path, octets, now)

    def watched(self) -> Iterator[Link]:
        """The certificates that were in use these days, on any worker of the node."""
        for path in (self._folder / "watched").glob("*.cer"):
            try:
                yield read_link(path.read_bytes())
            except (Invalid, OSError):
                continue

    def lists(self) -> Iterator[ListSource]:
        """Every list that is fetched: the configured ones, and those learned."""
        for publisher in self.publishers:
            for url in publisher.crl:
                yield self._source(publisher.link, url)
        for path in sorted((self._folder / "learned").glob("*.src"))[:MAX_LEARNED]:
            if path not in self._learned:
                try:
                    place, _, der = path.read_bytes().partition(b"\n")
                    self._learned[path] = self._source(read_link(der), place.decode())
                except (Invalid, OSError, UnicodeDecodeError) as fault:
                    _log.warning("%s is passed over: %s", path.name, fault)
                    continue
            yield self._learned[path]

    def answers(self) -> Iterator[AnswerSource]:
        """Every answer that is asked for."""
        for watched in sorted((self._folder / "watched").glob("*.cer"))[:MAX_WATCHED]:
            name, _, digest = watched.stem.partition("-")
            publisher = self._by_authority.get(bytes.fromhex(name))
            if publisher is None or not publisher.ocsp:
                continue
            try:
                link = read_link(watched.read_bytes())
            except (Invalid, OSError):
                continue
            yield AnswerSource(
                publisher.link, link, publisher.ocsp, self._folder / f"{digest}.ocsp"
            )

    def _source(self, authority: Link, url: str) -> ListSource:
        name = hashlib.sha256(authority_id(authority) + url.encode()).hexdigest()
        return ListSource(authority, url, self._folder / f"{name}.crl")

    def forget(self, now: float) -> None:
        """What nobody has used for a week."""
        for noted in (*self._folder.glob("watched/*.cer"), *self._folder.glob("learned/*.src")):
            if noted.stat().st_mtime < now - FORGOTTEN_AFTER:
                noted.unlink(missing_ok=True)
                self._learned.pop(noted, None)
                kind = ".ocsp" if noted.suffix == ".cer" else ".crl"
                (self._folder / f"{noted.stem.rpartition('-')[2]}{kind}").unlink(missing_ok=True)

    def hold_lock(self) -> bool:
        """Whether this worker is the one that fetches, from now until `close`."""
        if self._lock is None:
            descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def close(self) -> None:
        """Let another worker fetch."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write_fetches(self, fetches: Mapping[str, Any], now: float) -> None:
        """For the page of every worker."""
        write_whole(self._folder / "fetches.json", json.dumps(fetches).encode(), now)

    def read_fetches(self) -> dict[str, Any]:
        """What became of each fetch, by the name of its file; empty where nobody has fetched."""
        try:
            found = json.loads((self._folder / "fetches.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def folder_of_evidence(settings: Settings) -> Path | None:
    """Where evidence outlives a restart: as set, or beside an SQLite database; else None."""
    if settings.revocation is not None or settings.trust is None:
        return settings.revocation
    return beside_database(settings.database_url)


def beside_database(url: str) -> Path | None:
    """The folder beside an SQLite database; None for another kind."""
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        return None
    return Path(parts.path).with_name(Path(parts.path).name + "-revocation")


def write_whole(path: Path, octets: bytes, at: float) -> None:
    """All or nothing, for readers that may look at any moment; dated by our own clock."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
        os.utime(temporary, (at, at))
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
