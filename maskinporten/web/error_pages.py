"""Where `error_uri` points: what a code means and how it is mended, as a page or as JSON.

The pages are pure functions of the catalogue and the caller's two preferences. They hold no
script, load nothing, and know nothing of the request that was refused.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from maskinporten.errors import Reason
from maskinporten.web.explanations import (
    CODES,
    LANGUAGES,
    Explanation,
    Language,
    Party,
    example,
    explanation,
    menders,
)

_MAX_AGE: Final = 3600  # seconds; a newer release may explain better
_MAX_ECHO: Final = 40  # characters of an unknown code that are shown
_HOLE: Final = "…"  # stands for the named part of a description
_HTML: Final = "text/html"
_JSON: Final = "application/json"

_STYLE: Final = """
:root { color-scheme: light dark; --line: #767676; --soft: #f2f2f2; --link: #0b4f9e; }
@media (prefers-color-scheme: dark) { :root { --line: #8f8f8f; --soft: #262626; --link: #9ecbff; } }
body { font: 1.0625rem/1.55 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 44rem; padding: 1rem; }
a { color: var(--link); }
article { border-top: 1px solid var(--line); margin-top: 2rem; }
code, pre { background: var(--soft); font-family: ui-monospace, monospace; font-size: .9em; }
code { overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: .75rem; }
dt { font-weight: 600; }
dd { margin: 0 0 .5rem; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
_HEADERS: Final = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "vary": "Accept, Accept-Language",
}


class _Labels(NamedTuple):
    """The words around the explanations, in one language."""

    language: str
    languages: str
    all_codes: str
    unknown: str
    not_a_code: str
    error: str
    status: str
    description: str
    causes: str
    mend: str
    example: str
    who: str
    parties: Mapping[Party, str]


_LABELS: Final[Mapping[Language, _Labels]] = {
    "en": _Labels(
        language="English",
        languages="Languages",
        all_codes="All error codes",
        unknown="Unknown error code",
        not_a_code="There is no such code here:",
        error="OAuth error",
        status="HTTP status",
        description="Description",
        causes="Usual causes",
        mend="What to do",
        example="Example",
        who="Who can mend it",
        parties={
            Party.CONSUMER: "the consumer, whose organisation the token speaks for",
            Party.SUPPLIER: "the supplier, who runs the client for a consumer",
            Party.PROVIDER: "the provider, who owns the API and its scope",
        },
    ),
    "nb": _Labels(
        language="Norsk bokmål",
        languages="Språk",
        all_codes="Alle feilkoder",
        unknown="Ukjent feilkode",
        not_a_code="Denne koden finnes ikke her:",
        error="OAuth-feil",
        status="HTTP-status",
        description="Beskrivelse",
        causes="Vanlige årsaker",
        mend="Dette kan dere gjøre",
        example="Eksempel",
        who="Hvem kan rette feilen",
        parties={
            Party.CONSUMER: "konsumenten, virksomheten tokenet gjelder for",
            Party.SUPPLIER: "leverandøren, som drifter klienten for en konsument",
            Party.PROVIDER: "tilbyderen, som eier API-et og scopet",
        },
    ),
}


def reasons(code: str) -> tuple[Reason, ...]:
    """Every row of the catalogue that carries the code, in its order."""
    return tuple(reason for reason in Reason if reason.ref == code)


def code_json(code: str, languages: Iterable[Language]) -> dict[str, Any]:
    """A known code for a program: what went over the wire, and the prose for its user."""
    rows = reasons(code)
    prose: dict[str, Any] = {}
    for language in languages:
        told = explanation(code, language)
        prose[language] = {
            "title": told.title,
            "meaning": told.meaning,
            "causes": told.causes,
            "mend": told.mend,
        }
    return {
        "code": code,
        "errors": _distinct(row.error for row in rows),
        "status": rows[0].status,
        "descriptions": _distinct(_stem(row) for row in rows),
        "example": example(code),
        "who": [party.value for party in menders(code)],
        **prose,
    }


def code_page(code: str, languages: tuple[Language, ...]) -> str:
    """A known code for a person: one article for each language, the preferred one first."""
    title = f"{code}: {explanation(code, languages[0]).title}"
    articles = "".join(_article(explanation(code, language), language) for language in languages)
    index = _LABELS[languages[0]].all_codes
    body = f'{articles}<p><a href="../errors">{escape(index)}</a></p>'
    return _page(title, code, languages, body)


def index_json(languages: Iterable[Language]) -> dict[str, Any]:
    """All codes with their titles."""
    wanted = tuple(languages)
    titles = [{one: explanation(code, one).title for one in wanted} for code in CODES]
    return {"codes": [{"code": code, **title} for code, title in zip(CODES, titles, strict=True)]}


def index_page(languages: tuple[Language, ...]) -> str:
    """All codes, each leading to its page."""
    title = _LABELS[languages[0]].all_codes
    sections = "".join(
        _section(language, _LABELS[language].all_codes, _links(language, "errors/"))
        for language in languages
    )
    return _page(title, title, languages, sections)


def unknown_json() -> dict[str, Any]:
    """A code that is not ours, in the shape of every other error, with those that are."""
    reason = Reason.NOT_FOUND
    return {
        "error": reason.error,
        "error_description": reason.description,
        "codes": CODES,
    }


def unknown_page(code: str, languages: tuple[Language, ...]) -> str:
    """A code that is not ours, and those that are."""
    title = _LABELS[languages[0]].unknown
    shown = code if len(code) <= _MAX_ECHO else code[:_MAX_ECHO] + _HOLE
    sections = "".join(
        _section(
            language,
            _LABELS[language].unknown,
            f"<p>{escape(_LABELS[language].not_a_code)} <code>{escape(shown)}</code></p>"
            f"{_links(language, '')}",
        )
        for language in languages
    )
    return _page(title, title, languages, sections)


def preferred_languages(accept_language: str) -> tuple[Language, ...]:
    """Both languages, the preferred one first (RFC 9110 section 12.5.4); English on a tie.

    Any Norwegian counts as bokmål: `nn` and `no` are better served by it than by English.
    """
    asked = _weights(accept_language)
    others = asked.get("*", 0.0)
    english = [weight for tag, weight in asked.items() if tag.split("-")[0] == "en"]
    norwegian = [w for tag, w in asked.items() if tag.split("-")[0] in {"nb", "nn", "no"}]
    if max(norwegian, default=others) > max(english, default=others):
        return "nb", "en"
    return LANGUAGES


def prefers_json(accept: str, wanted: str | None = None) -> bool:
    """JSON where it is asked for by name and a page is not asked for more (RFC 9110, 12.5.1)."""
    if wanted in {"json", "html"}:
        return wanted == "json"
    asked = _weights(accept)
    as_json = asked.get(_JSON, 0.0)
    return as_json > 0 and as_json >= asked.get(_HTML, 0.0)


async def errors_endpoint(request: Request) -> Response:
    """GET /errors."""
    languages = preferred_languages(_header(request, "accept-language"))
    if _wants_json(request):
        return _answer(index_json(languages), languages)
    return _answer(index_page(languages), languages)


async def error_endpoint(request: Request) -> Response:
    """GET /errors/{code}."""
    languages = preferred_languages(_header(request, "accept-language"))
    asked: str = request.path_params["code"]
    code = asked.upper()
    if code in CODES:
        known = code_json(code, languages) if _wants_json(request) else code_page(code, languages)
        return _answer(known, languages)
    unknown = unknown_json() if _wants_json(request) else unknown_page(asked, languages)
    return _answer(unknown, languages, Reason.NOT_FOUND.status)


routes: list[Route] = [
    Route("/errors", errors_endpoint, methods=["GET"]),
    Route("/errors/{code}", error_endpoint, methods=["GET"]),
]


def _answer(
    content: str | dict[str, Any], languages: tuple[Language, ...], status: int = 200
) -> Response:
    # What is unknown today may be explained by the next release: nobody keeps a 404.
    cache = f"public, max-age={_MAX_AGE}" if status == 200 else "no-store"  # noqa: PLR2004 - OK
    headers = {**_HEADERS, "cache-control": cache, "content-language": ", ".join(languages)}
    if isinstance(content, str):
        return HTMLResponse(content, status, headers)
    return JSONResponse(content, status, headers)


def _wants_json(request: Request) -> bool:
    return prefers_json(_header(request, "accept"), request.query_params.get("format"))


def _header(request: Request, name: str) -> str:
    """A header that is sent twice is one list (RFC 9110 section 5.2)."""
    return ",".join(request.headers.getlist(name))


_WEIGHT: Final = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def _weights(header: str) -> dict[str, float]:
    """What is asked for and how much; what cannot be read is not asked for."""
    found: dict[str, float] = {}
    for member in header.lower().split(","):
        name, *parameters = (part.strip() for part in member.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        if name and _WEIGHT.fullmatch(weight):
            found[name] = max(float(weight), found.get(name, 0.0))
    return found


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _stem(reason: Reason) -> str:
    return reason.description.replace("{}", _HOLE)


def _prose(text: str) -> str:
    """Escaped, with what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _facts(code: str, labels: _Labels) -> str:
    rows = reasons(code)
    facts = (
        (labels.error, _distinct(f"<code>{escape(row.error)}</code>" for row in rows)),
        (labels.status, _distinct(str(row.status) for row in rows)),
        (labels.description, _distinct(f'<q lang="en">{escape(_stem(row))}</q>' for row in rows)),
    )
    return "".join(
        f"<dt>{escape(label)}</dt>" + "".join(f"<dd>{value}</dd>" for value in values)
        for label, values in facts
    )


def _article(told: Explanation, language: Language) -> str:
    labels = _LABELS[language]
    return _section(
        language,
        told.title,
        f"<p>{_prose(told.meaning)}</p>"
        f"<dl>{_facts(told.code, labels)}</dl>"
        f"<h3>{escape(labels.causes)}</h3>{_list(map(_prose, told.causes))}"
        f"<h3>{escape(labels.mend)}</h3>{_list(map(_prose, told.mend))}"
        f"<h3>{escape(labels.example)}</h3>"
        f'<pre tabindex="0"><code>{escape(example(told.code))}</code></pre>'
        f"<h3>{escape(labels.who)}</h3>"
        f"{_list(escape(labels.parties[party]) for party in menders(told.code))}",
    )


def _section(language: Language, title: str, inner: str) -> str:
    return (
        f'<article lang="{language}" id="{language}" aria-labelledby="{language}-title">'
        f'<h2 id="{language}-title">{escape(title)}</h2>{inner}</article>\n'
    )


def _links(language: Language, folder: str) -> str:
    return _list(
        f'<a href="{folder}{escape(code)}">{escape(code)}</a>: '
        f"{escape(explanation(code, language).title)}"
        for code in CODES
    )


def _page(title: str, heading: str, languages: tuple[Language, ...], body: str) -> str:
    first = _LABELS[languages[0]]
    anchors = " ".join(
        f'<a href="#{one}" lang="{one}" hreflang="{one}">{escape(_LABELS[one].language)}</a>'
        for one in languages
    )
    return (
        f'<!DOCTYPE html>\n<html lang="{languages[0]}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} - Maskinporten</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<header><h1>{escape(heading)}</h1>\n"
        f'<nav aria-label="{escape(first.languages)}">{anchors}</nav></header>\n'
        f"<main>\n{body}</main>\n</body>\n</html>\n"
    )
