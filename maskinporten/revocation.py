"""Keeps revocation evidence fresh in the background; a token request never waits for the network.

Lists and answers lie in one folder that the workers of a node share. One of them, whoever holds
the lock, fetches; every one reads what changed. A download replaces the file of before only once
its issuer's signature holds and it is not older.
"""

import asyncio
import hashlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from maskinporten.domain.link import Invalid, Link
from maskinporten.domain.path import Path as CertificatePath
from maskinporten.domain.revocation import (
    RETRY,
    CertificateStatus,
    Evidence,
    RevocationList,
    authority_id,
    next_fetch,
    read_crl,
    read_ocsp,
)
from maskinporten.downloads import DEADLINE, Unfetched, download, open_http
from maskinporten.revocation_folder import (
    MAX_LEARNED,
    AnswerSource,
    ListSource,
    Publisher,
    RevocationFolder,
    write_whole,
)

POLL: Final = 2.0  # seconds between two looks at the folder
PATIENCE: Final = 60  # seconds for which evidence learned of just now is worth waiting for
_AT_ONCE: Final = 8  # downloads
_log = logging.getLogger(__name__)
_Read = TypeVar("_Read", RevocationList, CertificateStatus)


class Revocation:
    """One worker's part in it. `heard` is told whenever there is other evidence than before."""

    def __init__(
        self,
        publishers: Sequence[Publisher],
        folder: Path,
        clock: Callable[[], float],
        heard: Callable[[Evidence], None],
        refresh: int,
        *,
        private_addresses: bool = False,
    ) -> None:
        self.evidence = Evidence()
        self._folder = RevocationFolder(publishers, folder)
        self._clock = clock
        self._heard = heard
        self._refresh = refresh
        self._private_addresses = private_addresses
        self._read: dict[Path, tuple[tuple[int, int], RevocationList | CertificateStatus]] = {}
        self._due: dict[Path, float] = {}
        self._fetches: dict[str, dict[str, Any]] = {}
        self._learned_at: dict[Path, float] = {}

    def watch(self, path: CertificatePath) -> bool:
        """Note that these certificates are in use: responders are asked about them. Never waits."""
        self._folder.note(path)
        return False

    def watch_learning(self, path: CertificatePath) -> bool:
        """The same, where authorities are too many to configure: the path says where lists lie.

        Whether a list was learned of just now and is worth waiting for.
        """
        self._folder.note(path)
        now, waiting = self._clock(), False
        if len(self._learned_at) > MAX_LEARNED:
            self._learned_at.clear()
        for source in self._folder.learn(path):
            since = self._learned_at.setdefault(source.path, now)
            waiting = waiting or (source.path not in self._read and now < since + PATIENCE)
        return waiting

    def watched(self) -> Iterator[Link]:
        """The certificates that were in use these days, on any worker of the node."""
        return self._folder.watched()

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
        await asyncio.to_thread(self._folder.write_noted, self._clock())
        if self._folder.hold_lock():
            await self._fetch()
        await asyncio.to_thread(self.load)

    def load(self) -> None:
        """Read the folder; whatever no longer holds against its issuer is passed over."""
        changed = False
        lists: defaultdict[bytes, list[RevocationList]] = defaultdict(list)
        statuses = {}
        sources = {authority_id(p.link) for p in self._folder.publishers if p.crl or p.ocsp}
        now = int(self._clock())
        for source in self._folder.lists():
            found, new = self._read_file(source.path, _list_reader(source, now))
            changed |= new
            sources.add(authority_id(source.authority))
            if found is not None:
                lists[found.authority].append(found)
        for answer in self._folder.answers():
            status, new = self._read_file(answer.path, _answer_reader(answer, now))
            changed |= new
            if status is not None:
                statuses[status.authority, status.serial] = status
        if changed or sources != self.evidence.sources:
            kept = {name: tuple(found) for name, found in lists.items()}
            self.evidence = Evidence(kept, statuses, frozenset(sources))
            self._heard(self.evidence)

    def close(self) -> None:
        """Let another worker fetch."""
        self._folder.close()

    def report(self) -> list[dict[str, Any]]:
        """For each list and each responder: how fresh it is, and what became of the last fetch."""
        fetches = self._folder.read_fetches()
        found: list[dict[str, Any]] = []
        for source in self._folder.lists():
            known = self._read.get(source.path)
            found.append(_row(source.authority, "crl", source.url, known))
            found[-1] |= fetches.get(source.path.name, {})
        for answer in self._folder.answers():
            known = self._read.get(answer.path)
            found.append(_row(answer.authority, "ocsp", answer.urls[0], known))
            found[-1] |= {"serial_number": str(answer.link.serial)}
            found[-1] |= fetches.get(answer.path.name, {})
        return found

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
        self._folder.forget(now)
        lists = [source for source in self._folder.lists() if self._is_due(source.path, now)]
        answers = [answer for answer in self._folder.answers() if self._is_due(answer.path, now)]
        if not lists and not answers:
            return
        room = asyncio.Semaphore(_AT_ONCE)
        async with open_http() as http:
            await asyncio.gather(
                *(self._fetch_list(http, source, room) for source in lists),
                *(self._fetch_answer(http, answer, room) for answer in answers),
            )
        kept = {path.name for path in self._due}
        self._fetches = {name: row for name, row in self._fetches.items() if name in kept}
        await asyncio.to_thread(self._folder.write_fetches, self._fetches, now)

    def _is_due(self, path: Path, now: float) -> bool:
        """By what this worker fetched, or what lies there from one before it."""
        if path not in self._due:
            try:
                fetched = int(path.stat().st_mtime)
            except OSError:
                return True
            known = self._read.get(path)
            self._due[path] = next_fetch(fetched, known[1] if known else None, self._refresh)
        return now >= self._due[path] or now < self._due[path] - 2 * self._refresh

    async def _fetch_list(
        self, http: httpx.AsyncClient, source: ListSource, room: asyncio.Semaphore
    ) -> None:
        async def fetch(url: str) -> tuple[RevocationList, bytes]:
            der = await download(http, url, private_addresses=self._private_addresses)
            now = int(self._clock())
            return await asyncio.to_thread(read_crl, der, source.authority, now), der

        async with room:
            await self._keep(source.path, (source.url,), fetch)

    async def _fetch_answer(
        self, http: httpx.AsyncClient, answer: AnswerSource, room: asyncio.Semaphore
    ) -> None:
        request = ocsp.OCSPRequestBuilder().add_certificate(
            answer.link.certificate,
            answer.authority.certificate,
            hashes.SHA1(),  # noqa: S303 - names the issuer, as RFC 5019 prescribes; proves nothing
        )
        ask = request.build().public_bytes(Encoding.DER)

        async def fetch(url: str) -> tuple[CertificateStatus, bytes]:
            der = await download(http, url, ask, private_addresses=self._private_addresses)
            return read_ocsp(der, answer.link, answer.authority, int(self._clock())), der

        async with room:
            await self._keep(answer.path, answer.urls, fetch)

    def _is_news(self, path: Path, found: RevocationList | CertificateStatus) -> bool:
        """Whether it says more than what we have. Raises Unfetched where it is older."""
        known = self._read.get(path)
        if known is None or not path.exists():
            return True
        if found.this_update < known[1].this_update:
            raise Unfetched("older than what we have")
        return found.sha256 != known[1].sha256

    async def _keep(
        self,
        path: Path,
        urls: Sequence[str],
        fetch: Callable[[str], Awaitable[tuple[RevocationList | CertificateStatus, bytes]]],
    ) -> None:
        """Put the download in place of the one before, or say why not and try again soon.

        The first of the addresses that gives something of use is enough.
        """
        now = int(self._clock())
        row = self._fetches.setdefault(path.name, {"last_fetch": None})
        for url in urls:
            try:
                async with asyncio.timeout(DEADLINE):
                    found, octets = await fetch(url)
                if self._is_news(path, found):
                    await asyncio.to_thread(write_whole, path, octets, now)
            except Exception as fault:  # noqa: BLE001 - one source's oddness is not the others'
                _log.warning("%s was not fetched: %s %s", url, type(fault).__name__, fault)
                row["last_error"] = f"{type(fault).__name__}: {fault}"[:200]
                row["last_error_at"] = now
                self._due[path] = now + min(RETRY, self._refresh)
            else:
                row |= {"last_fetch": now, "last_error": None}
                self._due[path] = next_fetch(now, found, self._refresh)
                break
        row["next_fetch"] = int(self._due[path])


def _list_reader(source: ListSource, now: int) -> Callable[[bytes], RevocationList]:
    return lambda der: read_crl(der, source.authority, now)


def _answer_reader(answer: AnswerSource, now: int) -> Callable[[bytes], CertificateStatus]:
    return lambda der: read_ocsp(der, answer.link, answer.authority, now)


def _row(
    authority: Link,
    kind: str,
    url: str,
    known: tuple[tuple[int, int], RevocationList | CertificateStatus] | None,
) -> dict[str, Any]:
    evidence = known[1] if known else None
    return {
        "authority": authority.certificate.subject.rfc4514_string(),
        "authority_sha256": hashlib.sha256(authority.der).hexdigest(),
        "kind": kind,
        "url": url,
        "this_update": evidence.this_update if evidence else None,
        "next_update": evidence.next_update if evidence else None,
    }
