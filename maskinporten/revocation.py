"""Keeps revocation evidence fresh in the background; a token request never waits for the network.

Lists and answers lie in one folder that the workers of a node share. One of them, whoever holds
the lock, fetches; every one reads what changed. A download replaces the file of before only once
its issuer's signature holds and it is not older.
"""

import asyncio
import fcntl
import hashlib
import ipaddress
import logging
import os
import socket
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

import httpcore  # noqa: F401 - httpx would import it late; a worker forked meanwhile would wait
import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from maskinporten.domain.link import Invalid, Link, read_link
from maskinporten.domain.path import Path as CertificatePath
from maskinporten.domain.revocation import (
    CertificateStatus,
    Evidence,
    RevocationList,
    authority_id,
    read_crl,
    read_ocsp,
)

POLL: Final = 2.0  # seconds between two looks at the folder
RETRY: Final = 60  # seconds after a download that failed
MAX_DOWNLOAD: Final = 64 * 1024 * 1024  # octets; the largest Norwegian lists are a few million
DEADLINE: Final = 30.0  # seconds for one download
MAX_WATCHED: Final = 10_000  # certificates asked about by OCSP
FORGOTTEN_AFTER: Final = 7 * 24 * 3600  # seconds after which an unused certificate is not asked of
_log = logging.getLogger(__name__)
_Read = TypeVar("_Read", RevocationList, CertificateStatus)


class Unfetched(Exception):
    """A download did not give what was wanted; what was there before stays."""


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
class _List:
    authority: Link
    url: str
    path: Path


@dataclass(frozen=True, slots=True)
class _Answer:
    authority: Link
    link: Link
    urls: tuple[str, ...]
    path: Path


class Revocation:
    """One worker's part in it. `heard` is told whenever there is other evidence than before."""

    def __init__(
        self,
        publishers: tuple[Publisher, ...],
        folder: Path,
        clock: Callable[[], float],
        heard: Callable[[Evidence], None],
        refresh: int,
        *,
        private_addresses: bool = False,
    ) -> None:
        self.evidence = Evidence()
        self._publishers = publishers
        self._by_authority = {authority_id(p.link): p for p in publishers}
        self._folder = folder
        self._clock = clock
        self._heard = heard
        self._refresh = refresh
        self._private_addresses = private_addresses
        self._read: dict[Path, tuple[tuple[int, int], RevocationList | CertificateStatus]] = {}
        self._due: dict[Path, float] = {}
        self._unwatched: dict[str, tuple[bytes, bytes]] = {}
        self._lock: int | None = None
        (folder / "watched").mkdir(parents=True, exist_ok=True)

    def watch(self, path: CertificatePath) -> None:
        """Note that this leaf is in use: responders are asked about it, where there are any."""
        leaf, issuer = path.links[0], path.links[1]
        name = authority_id(issuer)
        if len(self._unwatched) < MAX_WATCHED:
            self._unwatched[hashlib.sha256(leaf.der).hexdigest()] = name, leaf.der

    def watched(self) -> Iterator[Link]:
        """The certificates that were in use these days, on any worker of the node."""
        for path in (self._folder / "watched").glob("*.cer"):
            try:
                yield read_link(path.read_bytes())
            except (Invalid, OSError):
                continue

    async def follow(self) -> None:
        """Read what changed, and fetch what is due if this worker holds the lock; for ever."""
        try:
            while True:
                try:
                    await self.refresh()
                except Exception:  # noqa: BLE001 - the loop outlives any fault; logged whole
                    _log.exception("revocation evidence was not refreshed")
                await asyncio.sleep(POLL)
        finally:
            self.close()

    async def refresh(self) -> None:
        """One round of `follow`."""
        await asyncio.to_thread(self._write_watched)
        if self._holds_lock():
            await self._fetch()
        await asyncio.to_thread(self.load)

    def load(self) -> None:
        """Read the folder; whatever no longer holds against its issuer is passed over."""
        changed = False
        lists: defaultdict[bytes, list[RevocationList]] = defaultdict(list)
        statuses = {}
        now = int(self._clock())
        for source in self._lists():
            found, new = self._read_file(source.path, _list_reader(source, now))
            changed |= new
            if found is not None:
                lists[found.authority].append(found)
        for answer in self._answers():
            status, new = self._read_file(answer.path, _answer_reader(answer, now))
            changed |= new
            if status is not None:
                statuses[status.authority, status.serial] = status
        sources = frozenset(authority_id(p.link) for p in self._publishers if p.crl or p.ocsp)
        if changed or sources != self.evidence.sources:
            kept = {name: tuple(found) for name, found in lists.items()}
            self.evidence = Evidence(kept, statuses, sources)
            self._heard(self.evidence)

    def close(self) -> None:
        """Let another worker fetch."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _holds_lock(self) -> bool:
        if self._lock is None:
            descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def _lists(self) -> Iterator[_List]:
        for publisher in self._publishers:
            for url in publisher.crl:
                key = authority_id(publisher.link) + url.encode()
                name = hashlib.sha256(key).hexdigest()
                yield _List(publisher.link, url, self._folder / f"{name}.crl")

    def _answers(self) -> Iterator[_Answer]:
        for watched in sorted((self._folder / "watched").glob("*.cer"))[:MAX_WATCHED]:
            name, _, digest = watched.stem.partition("-")
            publisher = self._by_authority.get(bytes.fromhex(name))
            if publisher is None or not publisher.ocsp:
                continue
            try:
                link = read_link(watched.read_bytes())
            except (Invalid, OSError):
                continue
            path = self._folder / f"{digest}.ocsp"
            yield _Answer(publisher.link, link, publisher.ocsp, path)

    def _write_watched(self) -> None:
        """Note for the one who fetches which certificates are in use."""
        waiting, self._unwatched = self._unwatched, {}
        for digest, (authority, der) in waiting.items():
            path = self._folder / "watched" / f"{authority.hex()}-{digest}.cer"
            if path.exists():
                os.utime(path, (self._clock(), self._clock()))
            else:
                _write(path, der, self._clock())

    def _read_file(self, path: Path, read: Callable[[bytes], _Read]) -> tuple[_Read | None, bool]:
        """What the file says, and whether it says something new."""
        try:
            stat = path.stat()
            version = stat.st_ctime_ns, stat.st_ino
            known = self._read.get(path)
            if known is not None and known[0] == version:
                return known[1], False  # type: ignore[return-value] # one kind of content a path
            found = read(path.read_bytes())
        except OSError:
            return None, self._read.pop(path, None) is not None
        except Invalid as fault:
            _log.warning("%s is passed over: %s", path.name, fault)
            return None, self._read.pop(path, None) is not None
        self._read[path] = version, found
        return found, True

    async def _fetch(self) -> None:
        """Every download that is due, a few at a time."""
        now = self._clock()
        self._forget(now)
        lists = [source for source in self._lists() if self._is_due(source.path, now)]
        answers = [answer for answer in self._answers() if self._is_due(answer.path, now)]
        if not lists and not answers:
            return
        room = asyncio.Semaphore(8)
        timeout = httpx.Timeout(DEADLINE / 3)
        async with httpx.AsyncClient(timeout=timeout, follow_redirects=False) as http:
            await asyncio.gather(
                *(self._fetch_list(http, source, room) for source in lists),
                *(self._fetch_answer(http, answer, room) for answer in answers),
            )

    def _forget(self, now: float) -> None:
        for watched in (self._folder / "watched").glob("*.cer"):
            if watched.stat().st_mtime < now - FORGOTTEN_AFTER:
                watched.unlink(missing_ok=True)
                digest = watched.stem.partition("-")[2]
                (self._folder / f"{digest}.ocsp").unlink(missing_ok=True)

    def _is_due(self, path: Path, now: float) -> bool:
        """By what this worker fetched, or what lies there from one before it."""
        if path not in self._due:
            try:
                self._due[path] = path.stat().st_mtime + self._refresh
            except OSError:
                return True
        return now >= self._due[path] or now < self._due[path] - 2 * self._refresh

    async def _fetch_list(
        self, http: httpx.AsyncClient, source: _List, room: asyncio.Semaphore
    ) -> None:
        async def download() -> bytes | None:
            der = await self._download(http, "GET", source.url)
            found = await asyncio.to_thread(read_crl, der, source.authority, int(self._clock()))
            return self._news(source.path, found, der)

        async with room:
            await self._keep(source.path, source.url, download)

    async def _fetch_answer(
        self, http: httpx.AsyncClient, answer: _Answer, room: asyncio.Semaphore
    ) -> None:
        request = ocsp.OCSPRequestBuilder().add_certificate(
            answer.link.certificate,
            answer.authority.certificate,
            hashes.SHA1(),  # noqa: S303 - names the issuer, as RFC 5019 prescribes; proves nothing
        )
        body = request.build().public_bytes(Encoding.DER)

        async def download() -> bytes | None:
            der = await self._download(http, "POST", answer.urls[0], body)
            found = read_ocsp(der, answer.link, answer.authority, int(self._clock()))
            return self._news(answer.path, found, der)

        async with room:
            await self._keep(answer.path, answer.urls[0], download)

    def _news(
        self, path: Path, found: RevocationList | CertificateStatus, der: bytes
    ) -> bytes | None:
        """The octets, if they say more than what we have; None if they are the same."""
        known = self._read.get(path)
        if known is None or not path.exists():
            return der
        if found.this_update < known[1].this_update:
            raise Unfetched("older than what we have")
        return der if found.sha256 != known[1].sha256 else None

    async def _keep(
        self, path: Path, url: str, download: Callable[[], Awaitable[bytes | None]]
    ) -> None:
        """Put the download in place of the one before, or say why not and try again soon."""
        now = self._clock()
        try:
            async with asyncio.timeout(DEADLINE):
                octets = await download()
            if octets is not None:
                await asyncio.to_thread(_write, path, octets, now)
        except (Unfetched, Invalid, httpx.HTTPError, OSError, TimeoutError) as fault:
            _log.warning("%s was not fetched: %s %s", url, type(fault).__name__, fault)
            self._due[path] = now + min(RETRY, self._refresh)
        else:
            self._due[path] = now + self._refresh

    async def _download(
        self, http: httpx.AsyncClient, method: str, url: str, body: bytes | None = None
    ) -> bytes:
        """The body at one of our configured addresses. Raises Unfetched, httpx.HTTPError."""
        target = httpx.URL(url)
        await self._verify_address(target)
        headers = {"content-type": "application/ocsp-request"} if body is not None else {}
        async with http.stream(method, url, content=body, headers=headers) as response:
            self._verify_peer(response)
            if response.status_code != httpx.codes.OK:
                raise Unfetched(f"status {response.status_code}")
            octets = bytearray()
            async for part in response.aiter_bytes():
                octets += part
                if len(octets) > MAX_DOWNLOAD:
                    raise Unfetched("too long")
        return bytes(octets)

    async def _verify_address(self, url: httpx.URL) -> None:
        """No private address, unless the profile allows them. Raises Unfetched."""
        if self._private_addresses:
            return
        loop = asyncio.get_running_loop()
        port = url.port or 80
        for *_, place in await loop.getaddrinfo(url.host, port, type=socket.SOCK_STREAM):
            _verify_public(str(place[0]))

    def _verify_peer(self, response: httpx.Response) -> None:
        """And it was none of those that answered (a name may change between look and call)."""
        if self._private_addresses:
            return
        stream = response.extensions.get("network_stream")
        peer = stream.get_extra_info("server_addr") if stream is not None else None
        if peer is not None:
            _verify_public(str(peer[0]))


def _list_reader(source: _List, now: int) -> Callable[[bytes], RevocationList]:
    return lambda der: read_crl(der, source.authority, now)


def _answer_reader(answer: _Answer, now: int) -> Callable[[bytes], CertificateStatus]:
    return lambda der: read_ocsp(der, answer.link, answer.authority, now)


def _verify_public(address: str) -> None:
    if not ipaddress.ip_address(address.partition("%")[0]).is_global:
        raise Unfetched(f"{address} is not a public address")


def _write(path: Path, octets: bytes, at: float) -> None:
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
