"""GET /errors/{code}: what an `error_uri` leads to, for people and for programs."""

import base64
import hashlib
from html import escape
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from maskinporten.errors import Reason
from maskinporten.web.answers import json_response
from maskinporten.web.explanations import EXPLANATIONS

_STYLE: Final = (
    ":root{color-scheme:light dark}body{font:1.05rem/1.6 system-ui,sans-serif;max-width:42rem;"
    "margin:2rem auto;padding:0 1rem}code{font-size:.95em}section{margin-top:2.5rem}"
)
_STYLE_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Final = {
    "cache-control": "public, max-age=3600",
    "vary": "accept, accept-language",
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_LANGUAGES: Final = {"en": "English", "nb": "Norsk bokmål"}
_HEADINGS: Final = {"en": ("What happened", "What to do"), "nb": ("Hva skjedde", "Hva du gjør")}
_NORWEGIAN: Final = frozenset({"nb", "no", "nn"})


def reasons_of(code: str) -> list[Reason]:
    """The rows of the catalogue that carry this code."""
    return [reason for reason in Reason if reason.ref == code]


def document(code: str) -> dict[str, Any]:
    """The code as data: its errors as the wire shows them, and the explanation per language."""
    return {
        "code": code,
        "errors": [
            {
                "error": reason.error,
                "status": reason.status,
                "description": reason.description.replace("{}", "…"),
            }
            for reason in reasons_of(code)
        ],
        "explanations": {
            language: {
                "title": explanation.title,
                "meaning": explanation.meaning,
                "mend": list(explanation.mend),
            }
            for language, explanation in EXPLANATIONS[code].items()
        },
    }


def page(code: str, languages: list[str]) -> str:
    """The code as an HTML page, the languages in the reader's order."""
    rows = "".join(
        f"<li><code>{escape(reason.error)}</code> ({reason.status}): "
        f"{escape(reason.description.replace('{}', '…'))}</li>"
        for reason in reasons_of(code)
    )
    sections = "".join(_section(code, language) for language in languages)
    return _html(languages[0], code, f"<h1>{escape(code)}</h1><ul>{rows}</ul>{sections}")


def _section(code: str, language: str) -> str:
    explanation = EXPLANATIONS[code][language]
    happened, todo = _HEADINGS[language]
    steps = "".join(f"<li>{escape(step)}</li>" for step in explanation.mend)
    return (
        f'<section lang="{language}" id="{language}"><h2>{escape(explanation.title)}</h2>'
        f"<h3>{happened}</h3><p>{escape(explanation.meaning)}</p><h3>{todo}</h3><ul>{steps}</ul>"
        "</section>"
    )


def _html(language: str, title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - Maskinporten</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>"
    )


def _index(language: str, heading: str) -> str:
    links = "".join(
        f'<li><a href="/errors/{code}">{code}</a> {escape(EXPLANATIONS[code][language].title)}</li>'
        for code in EXPLANATIONS
    )
    return _html(language, heading, f"<h1>{escape(heading)}</h1><ul>{links}</ul>")


def _languages(request: Request) -> list[str]:
    """English first, unless the reader's first choice is Norwegian."""
    first = request.headers.get("accept-language", "").split(",")[0].split("-")[0].strip().lower()
    return ["nb", "en"] if first in _NORWEGIAN else ["en", "nb"]


def _wants_json(request: Request) -> bool:
    if "format" in request.query_params:
        return request.query_params["format"] == "json"
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


async def _one(request: Request) -> Response:
    code = request.path_params["code"].upper()
    if code not in EXPLANATIONS:
        if _wants_json(request):
            body = {"error": "not_found", "codes": list(EXPLANATIONS)}
            return json_response(body, 404, _HEADERS)
        heading = "There is no such code"
        return Response(_index(_languages(request)[0], heading), 404, _HEADERS, "text/html")
    if _wants_json(request):
        return json_response(document(code), headers=_HEADERS)
    return Response(page(code, _languages(request)), 200, _HEADERS, "text/html")


async def _all(request: Request) -> Response:
    if _wants_json(request):
        return json_response([document(code) for code in EXPLANATIONS], headers=_HEADERS)
    body = _index(_languages(request)[0], "Error codes")
    return Response(body, 200, _HEADERS, "text/html")


routes: Final[list[BaseRoute]] = [Route("/errors", _all), Route("/errors/{code}", _one)]
