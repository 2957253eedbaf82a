"""Errors in the shape that self-service clients read: `errors[].errorMessage`, always one."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct
from starlette.responses import Response

from maskinporten.errors import Fault, InvalidInput, Reason, Refused, Unavailable
from maskinporten.store import Conflict
from maskinporten.web.answers import json_response, refused_by

_NAMED_FAULTS: Final = 3
_MAX_FAULTS: Final = 100


class FieldError(Struct):
    """One thing that is wrong, in a sentence, and where."""

    errorMessage: str  # noqa: N815 - names of the original
    isFieldError: bool  # noqa: N815
    objectName: str  # noqa: N815
    fieldIdentifier: str  # noqa: N815


class ErrorBody(Struct):
    """What went wrong, for programs and people."""

    status: int
    timestamp: str
    correlation_id: str
    error: str
    error_description: str
    errors: list[FieldError]


def refusal(fault: Exception, trace: str, object_name: str) -> Response:
    """The answer for whatever was raised."""
    refused, faults = _read(fault, trace)
    status = refused.reason.status
    body = ErrorBody(
        status=status,
        timestamp=_instant(),
        correlation_id=trace,
        error=refused.reason.error,
        error_description=refused.description,
        errors=[
            FieldError(str(one), bool(one.path), object_name, one.path)
            for one in faults[:_MAX_FAULTS]
        ],
    )
    return json_response(body, status, _headers(refused, fault))


def _read(fault: Exception, trace: str) -> tuple[Refused, tuple[Fault, ...]]:
    if isinstance(fault, InvalidInput):
        named = "; ".join(str(one) for one in fault.faults[:_NAMED_FAULTS])
        return Refused(Reason.INPUT_INVALID, named=(named,)), fault.faults
    if isinstance(fault, Conflict):
        fault = Refused(Reason.STATE_CONFLICT, named=("Others were quicker; repeat the request",))
    refused = refused_by(fault, trace)
    return refused, (Fault("", refused.description),)


def _headers(refused: Refused, fault: Exception) -> Mapping[str, str]:
    reason = refused.reason
    if isinstance(fault, Unavailable):
        return {"retry-after": str(fault.retry_after)}
    if reason is Reason.ACCESS_TOKEN_MISSING:
        return {"www-authenticate": "Bearer"}
    if reason is Reason.ACCESS_TOKEN_INVALID:
        return {"www-authenticate": 'Bearer error="invalid_token"'}
    if reason is Reason.ADMIN_SCOPE_MISSING:
        scopes = refused.named[0]
        return {"www-authenticate": f'Bearer error="insufficient_scope", scope="{scopes}"'}
    return {}


def _instant() -> str:
    now = datetime.fromtimestamp(time.time(), UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
