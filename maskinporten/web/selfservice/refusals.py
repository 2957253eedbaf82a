"""Errors in the shape that self-service clients read: `errors[].errorMessage`, always one."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from starlette.responses import Response

from maskinporten.errors import Fault, InvalidInput, Reason, Refused, Unavailable
from maskinporten.store import Conflict
from maskinporten.web.answers import json_response, refused_by

_NAMED_FAULTS: Final = 3
_MAX_FAULTS: Final = 100


def refusal(fault: Exception, trace: str, object_name: str) -> Response:
    """The answer for whatever was raised."""
    refused, faults = _read(fault, trace)
    status = refused.reason.status
    body = {
        "status": status,
        "timestamp": _instant(),
        "correlation_id": trace,
        "error": refused.reason.error,
        "error_description": refused.description,
        "errors": [_element(one, object_name) for one in faults[:_MAX_FAULTS]],
    }
    return json_response(body, status, _headers(refused, fault))


def _read(fault: Exception, trace: str) -> tuple[Refused, tuple[Fault, ...]]:
    if isinstance(fault, InvalidInput):
        named = "; ".join(str(one) for one in fault.faults[:_NAMED_FAULTS])
        return Refused(Reason.INPUT_INVALID, named=(named,)), fault.faults
    if isinstance(fault, Conflict):
        fault = Refused(Reason.STATE_CONFLICT, named=("Others were quicker; repeat the request",))
    refused = refused_by(fault, trace)
    return refused, (Fault("", refused.description),)


def _element(fault: Fault, object_name: str) -> dict[str, Any]:
    return {
        "errorMessage": str(fault),
        "isFieldError": bool(fault.path),
        "objectName": object_name,
        "fieldIdentifier": fault.path,
    }


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
