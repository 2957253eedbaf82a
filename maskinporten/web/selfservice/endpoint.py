"""What an endpoint of the self-service API is: a row of a table, and one request to it."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from maskinporten.domain.grant import Certificates
from maskinporten.domain.registry import Registry
from maskinporten.domain.selfservice.caller import Right
from maskinporten.domain.selfservice.case import Case
from maskinporten.errors import Fault, InvalidInput
from maskinporten.store import Store

MAX_PAGE_SIZE: Final = 10_000
_TRUE: Final = frozenset({"true", "1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, parsed. `fresh_id` is a new name, should the rule need one."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None
    fresh_id: str = ""
    request: str | None = None  # digest of the body, where there is an Idempotency-Key

    def flag(self, name: str) -> bool:
        """Whether a switch of the query is on: `true`, in capitals or not."""
        return self.query.get(name, "").lower() in _TRUE

    def find_flag(self, name: str) -> bool | None:
        """The switch, or None where the query does not name it."""
        return self.flag(name) if name in self.query else None

    def wanted(self, name: str) -> str:
        """A parameter of the query that must be there. Raises InvalidInput."""
        value = self.query.get(name)
        if not value:
            raise InvalidInput((Fault(name, "must be given in the query"),))
        return value

    def find_number(self, name: str, highest: int) -> int | None:
        """A whole number of the query, or None. Raises InvalidInput."""
        text = self.query.get(name)
        if text is None:
            return None
        digits = text.lstrip("0") or text[:1]
        if not digits.isdecimal() or not digits.isascii() or int(digits[:20]) > highest:
            raise InvalidInput((Fault(name, f"must be a whole number from 0 to {highest}"),))
        return int(digits)


@dataclass(frozen=True, slots=True)
class Past:
    """What looking back leans on: the audit trail, and what the token endpoint trusts."""

    store: Store
    certificates: Certificates | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method on one path.

    `answer` gives what is shown: a thing, an iterable of things where `many`, or where it `writes`
    a `Decision`. `view` makes JSON of a thing. `right` is None where no token is needed.
    """

    method: str
    path: str
    summary: str
    answer: Callable[[Case, Call], Any] = lambda _case, _call: None
    recall: Callable[[Case, Call, Past], Awaitable[Any]] | None = None  # instead: looks back
    view: Callable[[Any, Registry], Any] = lambda thing, _registry: thing
    right: Right | None = None
    writes: bool = False
    many: bool = False
    status: int = 200
    query: tuple[str, ...] = ()  # names of `openapi.PARAMETERS`; those ending in ! must be there
    required: tuple[str, ...] = ()  # members that the body must have
    takes: Any = None  # a msgspec Struct of the body, or `str` for text/plain
    gives: Any = None  # the type of the answer, or of its elements; None: no body
    object_name: str = ""
    tag: Callable[[Any], Any] | None = None  # the part of the thing that its ETag stands for
    own_base: str | None = None  # a base of its own, instead of the usual three


def digest(body: bytes) -> str:
    """The digest by which a repeated request is known."""
    return hashlib.sha256(body).hexdigest()
