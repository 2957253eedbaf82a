"""A stand-in for Altinn, to try suppliers, system users and consents against; it fails on command.

It answers the three questions of `domain.altinn` at their real paths, from a small file that is
read again whenever it changes, and asks for tokens of the issuer it was told to believe.
"""

import http.server
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from maskinporten.altinn_file import Known, SystemUser, read_known
from maskinporten.domain.altinn import (
    CONSENT_PATH,
    CONSENT_SCOPE,
    DELEGATIONS_PATH,
    DELEGATIONS_SCOPE,
    SYSTEM_USER_PATH,
    SYSTEM_USER_SCOPE,
)
from maskinporten.domain.details import ORGANIZATION_URN
from maskinporten.domain.orgno import find_orgno
from maskinporten.errors import InvalidInput
from maskinporten.validator import KeysUnavailable, TokenInvalid, TrustedIssuer, Validator

FAULT_MODES: Final = ("none", "slow", "down", "lying", "html", "huge", "redirect")
FAULT_STATUSES: Final = ("401", "403", "404", "429", "500", "503")
_MAX_BODY: Final = 64 * 1024  # octets
_MAX_SECONDS: Final = 600.0
_ELSEWHERE: Final = "974760673"  # the organisation a lying answer speaks of
_BREATH: Final = 0.05  # seconds between two looks at whether it is still to be slow
_CREATED: Final = "2024-01-01T00:00:00+00:00"
_NAMES: Final = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562, appendix A


class FaultMode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it fails. `seconds` is for `slow`."""

    mode: str = "none"
    seconds: float = 3.0


class StandIn:
    """What it knows and how it fails now; and its answers, as status and JSON."""

    def __init__(self, path: Path, issuer: str, clock: Callable[[], float] = time.time) -> None:
        self.fault = FaultMode()
        self.asked = 0  # questions that reached it, whatever became of them
        self._path = path
        self._clock = clock
        self._validator = Validator([TrustedIssuer(issuer)])
        self._known = read_known(path)
        self._version = self._look()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the issuer's keys."""
        self._validator.close()

    @property
    def known(self) -> Known:
        """The file as it is; as it was, while it cannot be read."""
        with self._lock:
            version = self._look()
            if version != self._version:
                try:
                    self._known = read_known(self._path)
                except InvalidInput as fault:
                    print(f"kept as it was: {fault}", flush=True)  # noqa: T201 - its operator reads
                self._version = version
            return self._known

    def refused(self, authorization: str, path: str) -> tuple[int, Any] | None:
        """Why the caller's token does not open this path; None where it does."""
        wanted = {
            DELEGATIONS_PATH: DELEGATIONS_SCOPE,
            SYSTEM_USER_PATH: SYSTEM_USER_SCOPE,
            CONSENT_PATH: CONSENT_SCOPE,
        }[path]
        try:
            token = self._validator.validate(authorization.removeprefix("Bearer "))
        except TokenInvalid as fault:
            return HTTPStatus.UNAUTHORIZED, _problem(401, f"The token is invalid: {fault.code}")
        except KeysUnavailable:
            return HTTPStatus.UNAUTHORIZED, _problem(401, "The issuer's keys cannot be fetched")
        if wanted not in token.scopes:
            return HTTPStatus.FORBIDDEN, _problem(403, f"The token needs the scope {wanted}")
        return None

    def delegations(self, query: Mapping[str, str]) -> tuple[int, Any]:
        """Who has delegated what (Altinn: Maskinporten delegations)."""
        consumer, supplier = query.get("consumerorg", ""), query.get("supplierorg", "")
        if find_orgno(consumer) is None or find_orgno(supplier) is None:
            return HTTPStatus.BAD_REQUEST, _problem(400, "An organisation number is not valid")
        found = [
            _delegation(entry.consumer_org, entry.supplier_org, list(entry.scopes))
            for entry in self.known.delegations
            if (entry.consumer_org, entry.supplier_org) == (consumer, supplier)
            and query.get("scope", "") in entry.scopes
        ]
        if self.fault.mode == "lying":
            found = [_delegation(_ELSEWHERE, supplier, [query.get("scope", "")])]
        return HTTPStatus.OK, found

    def system_user(self, query: Mapping[str, str]) -> tuple[int, Any]:
        """The one system user (Altinn: system user by external id)."""
        owner, vendor = query.get("systemUserOwnerOrgNo"), query.get("systemProviderOrgNo")
        client = query.get("clientId")
        if not (owner and vendor and client):
            return HTTPStatus.BAD_REQUEST, _problem(400, "A parameter is missing")
        reference = query.get("externalRef") or owner
        for entry in self.known.system_users:
            if (
                (entry.owner, entry.vendor) == (owner, vendor)
                and client in entry.clients
                and (entry.external_ref or entry.owner) == reference
            ):
                lying = self.fault.mode == "lying"
                return HTTPStatus.OK, _system_user(entry, _ELSEWHERE if lying else owner)
        return HTTPStatus.NOT_FOUND, _problem(404, "No such system user")

    def consent(self, body: Any) -> tuple[int, Any]:
        """The consent, if it holds between these two (Altinn: consent lookup)."""
        if not isinstance(body, dict):
            return HTTPStatus.BAD_REQUEST, _problem(400, "The body is not an object")
        asked = str(body.get("id")).lower()
        found = next((c for c in self.known.consents if str(c.id) == asked), None)
        if found is None:
            return HTTPStatus.NOT_FOUND, _problem(404, "Consent not found", "AM-00001")
        now = datetime.fromtimestamp(self._clock(), UTC)
        until = found.valid_to or now + timedelta(days=365)
        if found.state == "revoked":
            return HTTPStatus.BAD_REQUEST, _problem(400, "Consent is revoked", "AM-00011")
        if (body.get("from"), body.get("to")) != (found.giver, ORGANIZATION_URN + found.to):
            return HTTPStatus.BAD_REQUEST, _problem(400, "Another party", "AM-00012")
        if until <= now:
            return HTTPStatus.BAD_REQUEST, _problem(400, "Consent is expired", "AM-00013")
        if found.state != "accepted":
            return HTTPStatus.BAD_REQUEST, _problem(400, "Consent is not accepted", "AM-00014")
        receiver = _ELSEWHERE if self.fault.mode == "lying" else found.to
        return HTTPStatus.OK, {
            "id": asked,
            "from": found.giver,
            "to": ORGANIZATION_URN + receiver,
            "handledBy": None,
            "consented": found.consented.isoformat(),
            "validTo": until.isoformat(),
            "consentRights": [
                {
                    "action": right.action,
                    "resource": [{"type": "urn:altinn:resource", "value": right.resource}],
                    "metadata": right.metadata or None,
                }
                for right in found.rights
            ],
        }

    def set_fault(self, body: bytes) -> tuple[int, Any]:
        """PUT /faults: how it shall fail from now on."""
        try:
            wanted = msgspec.json.decode(body, type=FaultMode)
        except msgspec.DecodeError as fault:
            return HTTPStatus.BAD_REQUEST, _problem(400, str(fault))
        modes = (*FAULT_MODES, *FAULT_STATUSES)
        if wanted.mode not in modes or not 0 <= wanted.seconds <= _MAX_SECONDS:
            sentence = f"mode is one of {', '.join(modes)}; seconds is 0 to {_MAX_SECONDS:g}"
            return HTTPStatus.BAD_REQUEST, _problem(400, sentence)
        self.fault = wanted
        return HTTPStatus.OK, msgspec.to_builtins(wanted)

    def _look(self) -> tuple[int, int]:
        try:
            stat = self._path.stat()
        except OSError:
            return 0, 0
        return stat.st_mtime_ns, stat.st_ino


def serve_standin(standin: StandIn, address: tuple[str, int]) -> http.server.ThreadingHTTPServer:
    """A server for it, on a thread of its own until `shutdown`. Raises OSError."""

    class Handler(_Handler):
        """With this stand-in."""

    Handler.standin = standin
    server = _Server(address, Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silence: callers that give up are what faults are for."""


class _Handler(http.server.BaseHTTPRequestHandler):
    standin: StandIn
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Two of the questions, and /faults."""
        self._answer()

    def do_POST(self) -> None:
        """The third."""
        self._answer()

    def do_PUT(self) -> None:
        """PUT /faults."""
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Silence: the questions are the server's to log."""

    def _answer(self) -> None:
        length = self.headers.get("content-length") or "0"
        if not length.isdecimal() or int(length) > _MAX_BODY:
            self.close_connection = True
            self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _problem(413, "The body is too long"))
            return
        body = self.rfile.read(int(length))
        url = urlsplit(self.path)
        path = url.path.strip("/")
        if path == "faults":
            self._answer_faults(body)
            return
        questions = {
            ("GET", DELEGATIONS_PATH.strip("/")): DELEGATIONS_PATH,
            ("GET", SYSTEM_USER_PATH): SYSTEM_USER_PATH,
            ("POST", CONSENT_PATH): CONSENT_PATH,
        }
        question = questions.get((self.command, path))
        if question is None:
            self._send(HTTPStatus.NOT_FOUND, _problem(404, "No such path"))
            return
        self.standin.asked += 1
        if self._fail():
            return
        refused = self.standin.refused(self.headers.get("authorization") or "", question)
        if refused is not None:
            self._send(*refused)
        elif question == CONSENT_PATH:
            try:
                asked = json.loads(body)
            except ValueError:
                asked = None
            self._send(*self.standin.consent(asked))
        else:
            query = dict(parse_qsl(url.query))
            ask = (
                self.standin.delegations
                if question == DELEGATIONS_PATH
                else (self.standin.system_user)
            )
            self._send(*ask(query))

    def _answer_faults(self, body: bytes) -> None:
        if self.command == "PUT":
            self._send(*self.standin.set_fault(body))
        else:
            self._send(HTTPStatus.OK, msgspec.to_builtins(self.standin.fault))

    def _fail(self) -> bool:
        """Fail as told; False where the answer is still to be given."""
        fault = self.standin.fault
        if fault.mode == "down":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.mode == "html":
            self._write(HTTPStatus.OK, b"<!doctype html><p>Back soon", "text/html")
        elif fault.mode == "huge":
            self._write(HTTPStatus.OK, b"[" + b" " * 1_000_000 + b"]", "application/json")
        elif fault.mode == "redirect":
            self._write(HTTPStatus.FOUND, b"", "text/html", {"location": "/faults"})
        elif fault.mode in FAULT_STATUSES:
            self._send(int(fault.mode), _problem(int(fault.mode), "As told"))
        else:
            due = time.monotonic() + (fault.seconds if fault.mode == "slow" else 0.0)
            while time.monotonic() < due and self.standin.fault is fault:
                time.sleep(_BREATH)
            return False
        return True

    def _send(self, status: int, body: Any) -> None:
        problem = status >= HTTPStatus.BAD_REQUEST
        kind = "application/problem+json" if problem else "application/json"
        self._write(status, msgspec.json.encode(body), kind)

    def _write(
        self, status: int, octets: bytes, kind: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", f"{kind}; charset=utf-8")
        self.send_header("content-length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)


def _problem(status: int, detail: str, code: str | None = None) -> dict[str, Any]:
    """A problem document (RFC 9457), with Altinn's own code where it has one."""
    shown: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return shown | ({"code": code} if code else {})


def _delegation(consumer: str, supplier: str, scopes: list[str]) -> dict[str, Any]:
    return {
        "consumer_org": consumer,
        "supplier_org": supplier,
        "delegation_scheme_Id": str(uuid.uuid5(_NAMES, f"{consumer} {supplier} {scopes}")),
        "scopes": scopes,
        "created": _CREATED,
        "resourceid": "stand-in",
    }


def _system_user(entry: SystemUser, owner: str) -> dict[str, Any]:
    name = f"{entry.owner} {entry.vendor} {entry.system_id} {entry.external_ref}"
    return {
        "id": str(entry.id or uuid.uuid5(_NAMES, name)),
        "integrationTitle": entry.system_id,
        "systemId": entry.system_id,
        "productName": entry.system_id,
        "reporteeOrgNo": owner,
        "created": _CREATED,
        "isDeleted": entry.deleted,
        "supplierName": "Vendor",
        "supplierOrgno": entry.vendor,
        "externalRef": entry.external_ref or entry.owner,
        "userType": "standard",
    }
