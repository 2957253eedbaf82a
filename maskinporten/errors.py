"""Every way to be told no, in one table; and what it means when we cannot answer at all.

    Exception
    ├── Refused       the caller is wrong, or not allowed: a row of `Reason`
    └── Unavailable   we are wrong, or something we lean on is away: 503 and a `Retry-After`

Anything else that is raised is a defect of ours and becomes a blank 500 with a trace id.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple, Self

_ASSERTION: Final = "Invalid assertion. "
_CLIENT: Final = _ASSERTION + "Client authentication failed. "


class Reason(Enum):
    """The whole catalogue. The row's name is log key, metric label and test expectation.

    `ref` is what callers quote to support and where `error_uri` points (None: Maskinporten gives
    no code there). `error` is the member of RFC 6749 section 5.2. `status` is the HTTP status.
    `description` is the public sentence; `{}` takes the one named part Maskinporten puts there.
    """

    # fmt: off
    # RFC 6749: the request itself
    REQUEST_MALFORMED      = None, "invalid_request", 400, "Malformed request. {}"
    METHOD_NOT_ALLOWED     = None, "invalid_request", 405, "Use a method of the Allow header"
    NOT_FOUND              = None, "invalid_request", 404, "No such resource"
    GRANT_TYPE_MISSING     = None, "invalid_request", 400, "Missing parameter grant_type"
    GRANT_TYPE_UNSUPPORTED = None, "unsupported_grant_type", 400, "Unsupported grant_type"
    ASSERTION_MISSING      = None, "invalid_request", 400, "Missing parameter assertion"
    # RFC 7515, 7519, 7523: the assertion
    ASSERTION_MALFORMED    = "MP-011", "invalid_request", 400, (
        _ASSERTION + "Invalid parameter value. The assertion is not a well-formed JWT")
    ALGORITHM_REFUSED      = "MP-011", "invalid_request", 400, (
        _ASSERTION + "Invalid parameter value. alg must be RS256, RS384 or RS512")
    HEADER_REFUSED         = "MP-011", "invalid_request", 400, (
        _ASSERTION + "Invalid parameter value. JWT header {}")
    CLAIM_INVALID          = "MP-011", "invalid_request", 400, (
        _ASSERTION + "Invalid parameter value. JWT claim {}")
    CLAIM_UNKNOWN          = "MP-011", "invalid_request", 400, (
        _ASSERTION + "Invalid parameter value. The JWT has a claim that is not documented")
    CONSUMER_IS_CLIENT     = None, "invalid_request", 400, (
        "Validation of JWT claim failed: The combination consumer_org in claim "
        "and delegation scope on client is invalid")
    ON_BEHALF_OF_INVALID   = None, "invalid_request", 400, (
        "Validation of JWT claim failed: iss_onbehalfof is invalid for the client or the request")
    TARGET_INVALID         = None, "invalid_target", 400, (
        "Each resource must be an absolute URI without a fragment")
    GRANT_SPENT            = "MP-012", "invalid_grant", 400, (
        "Validation of JWT Bearer grant failed. Grant is used before")
    # who is calling
    CLIENT_UNKNOWN         = "MP-100", "invalid_grant", 400, _CLIENT + "Client not found."
    KEY_ID_UNKNOWN         = None, "invalid_grant", 400, (
        _CLIENT + "Unknown key identifier (kid) for client.")
    KEY_ID_MISSING         = None, "invalid_grant", 400, (
        _CLIENT + "Invalid JWT. The client requires pre-registered jwk "
        "and no key identifier (kid) provided")
    SIGNER_MISSING         = None, "invalid_grant", 400, (
        _CLIENT + "Invalid JWT. The header has neither kid nor x5c")
    AUDIENCE_INVALID       = "MP-110", "invalid_grant", 400, _CLIENT + "Invalid JWT claim aud"
    CERTIFICATE_INVALID    = "MP-120", "invalid_grant", 400, (
        _CLIENT + "The JWT is signed with an invalid certificate.")
    KEY_EXPIRED            = "MP-121", "invalid_grant", 400, _CLIENT + "Expired key."
    ORGNO_MISMATCH         = "MP-122", "invalid_grant", 400, (
        _CLIENT + "Invalid JWT. Invalid organization number for client. "
        "Does not match certificate orgno")
    X5C_MALFORMED          = "MP-123", "invalid_grant", 400, _CLIENT + "Invalid JWT header x5c"
    SIGNATURE_INVALID      = "MP-124", "invalid_grant", 400, _CLIENT + "Invalid JWT signature."
    GRANT_EXPIRED          = "MP-130", "invalid_grant", 400, _ASSERTION + "JWT is expired"
    GRANT_TOO_LONG         = None, "invalid_grant", 400, (
        _ASSERTION + "The JWT lives longer than 120 seconds from iat to exp")
    ISSUED_AHEAD           = None, "invalid_grant", 400, _ASSERTION + "Issue time is after now"
    NOT_YET_VALID          = None, "invalid_grant", 400, _ASSERTION + "JWT is not yet valid"
    # what it may have
    SCOPE_MALFORMED        = "MP-200", "invalid_scope", 400, (
        "Token request contains malformed scopes")
    SCOPE_NOT_ON_CLIENT    = "MP-200", "invalid_scope", 400, (
        "Token request contains invalid scopes for client, {}")
    SCOPE_NOT_FOR_CLIENT_TYPE = "MP-201", "invalid_scope", 400, (
        "Token request contains scopes not allowed for maskinporten")
    SCOPE_NOT_GRANTED      = "MP-250", "forbidden", 403, (
        "Consumer has not been granted access to the scope {}")
    SCOPE_NOT_DELEGATED    = "MP-251", "forbidden", 403, (
        "Consumer {} has not delegated access to the scope {} to supplier {}")
    # RFC 9396: authorization_details
    DETAILS_TYPE_UNKNOWN   = "MP-301", "invalid_authorization_details", 400, (
        "Unknown type in authorization_details")
    DETAILS_MALFORMED      = "MP-302", "invalid_authorization_details", 400, (
        "Unknown or malformed fields in authorization_details")
    DETAILS_REFUSED        = "MP-303", "invalid_authorization_details", 400, (
        "Invalid values in authorization_details. {}")
    SYSTEM_USER_UNKNOWN    = "MP-303", "invalid_altinn_customer_configuration", 400, (
        "Invalid values in authorization_details. {}")
    # RFC 6750, RFC 9110: the self-service API
    ACCESS_TOKEN_MISSING   = None, "invalid_token", 401, (
        "Send an access token: Authorization: Bearer …")
    ACCESS_TOKEN_INVALID   = None, "invalid_token", 401, "The access token does not hold. {}"
    ADMIN_SCOPE_MISSING    = None, "insufficient_scope", 403, (
        "The access token needs one of the scopes {}")
    NOT_YOURS              = None, "not_found", 404, "There is no such {} among yours"
    NOT_OWNER              = None, "forbidden", 403, (
        "The {} does not exist, or another organisation owns it")
    INPUT_INVALID          = None, "invalid_request", 400, "Invalid input. {}"
    STATE_CONFLICT         = None, "conflict", 409, "{}"
    CHANGED_MEANWHILE      = None, "precondition_failed", 412, (
        "It has changed since you read it; read it again, then change it")
    # ourselves
    TEMPORARILY_AWAY       = None, "temporarily_unavailable", 503, (
        "The request could not be answered just now, and may be repeated as it is")
    BROKEN                 = None, "server_error", 500, "The server failed to answer"
    # fmt: on

    ref: str | None
    error: str
    status: int
    description: str

    def __new__(cls, ref: str | None, error: str, status: int, description: str) -> Self:
        """Rows that look alike on the wire stay different reasons."""
        row = object.__new__(cls)
        row._value_ = len(cls.__members__)
        row.ref, row.error, row.status, row.description = ref, error, status, description
        return row


class Refused(Exception):
    """The caller is told `reason`. `detail` is for our own log and never leaves the house.

    `named` fills the holes of the reason's description. Only values that have passed their own
    grammar (a scope, an organisation number, a claim's documented name) may stand there.
    """

    def __init__(self, reason: Reason, detail: str = "", *, named: tuple[str, ...] = ()) -> None:
        super().__init__(f"{reason.name}: {detail}" if detail else reason.name)
        self.reason = reason
        self.detail = detail
        self.named = named
        # What our audit says of the certificate the caller brought, once it was read.
        self.certificate: Mapping[str, str | int] = {}

    @property
    def description(self) -> str:
        """The public sentence with its named parts."""
        return self.reason.description.format(*self.named)


class Unavailable(Exception):
    """Something we lean on is away; the caller may repeat the same request after `retry_after` s.

    Nothing was spent and nothing was stored.
    """

    def __init__(self, detail: str, retry_after: int = 2) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class InvalidInput(Exception):
    """A declaration (a registry file, a self-service body, a setting) has faults; nothing is kept.

    `faults` holds every fault that was found, never just the first.
    """

    def __init__(self, faults: tuple["Fault", ...]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = faults


class Fault(NamedTuple):
    """One thing that is wrong: where (`clients[2].scopes[0]`, or empty) and a sentence about it."""

    path: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}: {self.sentence}" if self.path else self.sentence
