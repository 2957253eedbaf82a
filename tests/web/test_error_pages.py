"""GET /errors: every code that callers meet is explained, in both languages and both forms."""

import base64
import hashlib
import re
from html import escape
from html.parser import HTMLParser
from itertools import pairwise

import httpx
import pytest
from starlette.applications import Starlette

from maskinporten.errors import Reason
from maskinporten.web.error_pages import preferred_languages, prefers_json, routes
from maskinporten.web.explanations import CODES, LANGUAGES, Language, example, explanation, menders

REFS = sorted({reason.ref for reason in Reason if reason.ref is not None})
EXPLAINED = [pytest.param(code, one, id=f"{code} {one}") for code in REFS for one in LANGUAGES]
BOTH = [pytest.param("/errors/MP-121", id="a code"), pytest.param("/errors", id="all codes")]
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(HTMLParser):
    """The elements of a page, once it is found to be nested as it should."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It ends before whatever holds it."""
        assert self.open.pop() == tag

    def all(self, tag: str, attribute: str) -> list[str | None]:
        """The values of an attribute, in the order of the page."""
        return [found.get(attribute) for name, found in self.elements if name == tag]


@pytest.fixture
def http() -> httpx.AsyncClient:
    """The pages alone, without the server around them."""
    pages = httpx.ASGITransport(Starlette(routes=routes))
    return httpx.AsyncClient(transport=pages, base_url="https://maskinporten.example")


def test_nothing_is_unexplained_and_nothing_is_left_over() -> None:
    """The catalogue and the prose name the same codes."""
    assert sorted(CODES) == REFS
    assert len(set(CODES)) == len(CODES)


@pytest.mark.parametrize(("code", "language"), EXPLAINED)
def test_explanation(code: str, language: Language) -> None:
    """Each part is there, as whole sentences, with backticks in pairs."""
    told = explanation(code.lower(), language)
    sentences = (told.meaning, *told.causes, *told.mend)

    assert told.code == code
    assert told.title
    assert not told.title.endswith(".")
    assert isinstance(told.causes, tuple)
    assert len(told.causes) >= 2
    assert isinstance(told.mend, tuple)
    assert len(told.mend) >= 2
    for sentence in sentences:
        assert sentence.endswith(".")
        assert sentence.count("`") % 2 == 0
        assert "  " not in sentence
        assert sentence in str(told)


@pytest.mark.parametrize("code", REFS)
def test_the_two_languages_say_the_same(code: str) -> None:
    """They differ in every sentence, but not in how many there are nor in what is typed."""
    english, norwegian = (explanation(code, language) for language in LANGUAGES)

    assert len(english.causes) == len(norwegian.causes)
    assert len(english.mend) == len(norwegian.mend)
    assert not {english.title, english.meaning, *english.causes, *english.mend} & {
        norwegian.title, norwegian.meaning, *norwegian.causes, *norwegian.mend
    }  # fmt: skip
    typed = [set(re.findall(r"`([^`]+)`", str(told))) for told in (english, norwegian)]
    assert typed[0] == typed[1]


def test_there_is_no_explanation_of_an_unknown_code() -> None:
    """Nor a guess."""
    with pytest.raises(KeyError):
        explanation("MP-999", "en")


@pytest.mark.parametrize("code", REFS)
async def test_page(http: httpx.AsyncClient, code: str) -> None:
    """The page shows the code, what the catalogue says of it, and both explanations."""
    response = await http.get(f"/errors/{code}")
    page = response.text

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert f"<h1>{code}</h1>" in page
    for reason in (row for row in Reason if row.ref == code):
        assert f"<code>{reason.error}</code>" in page
        assert f"<dd>{reason.status}</dd>" in page
        assert escape(reason.description.split("{}", maxsplit=1)[0]) in page
    for language in LANGUAGES:
        told = explanation(code, language)
        for sentence in (told.title, told.meaning, *told.causes, *told.mend):
            assert re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(sentence)) in page
    assert escape(example(code)) in page


@pytest.mark.parametrize("code", REFS)
async def test_json(http: httpx.AsyncClient, code: str) -> None:
    """A program gets the same, by name."""
    rows = [row for row in Reason if row.ref == code]
    response = await http.get(f"/errors/{code}", headers={"accept": "application/json"})
    body = response.json()

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert body["code"] == code
    assert set(body["errors"]) == {row.error for row in rows}
    assert {body["status"]} == {row.status for row in rows}
    assert set(body["descriptions"]) == {row.description.replace("{}", "…") for row in rows}
    assert body["example"] == example(code)
    assert body["who"] == [party.value for party in menders(code)]
    assert body["who"]
    for language in LANGUAGES:
        told = explanation(code, language)
        assert body[language] == {
            "title": told.title,
            "meaning": told.meaning,
            "causes": list(told.causes),
            "mend": list(told.mend),
        }


@pytest.mark.parametrize("spelled", ["MP-121", "mp-121", "Mp-121"])
async def test_capitals_do_not_matter(http: httpx.AsyncClient, spelled: str) -> None:
    """A code that was typed from a log is found."""
    assert (await http.get(f"/errors/{spelled}?format=json")).json()["code"] == "MP-121"


UNKNOWN = [
    pytest.param("MP-999", "MP-999", id="no such number"),
    pytest.param("121", "121", id="without MP"),
    pytest.param("<b>&'\"", "&lt;b&gt;&amp;&#x27;&quot;", id="markup"),
    pytest.param("x" * 41, "x" * 40 + "…", id="long"),
]


@pytest.mark.parametrize(("code", "shown"), UNKNOWN)
async def test_unknown(http: httpx.AsyncClient, code: str, shown: str) -> None:
    """404, with the codes there are; what was asked for is shown but never obeyed."""
    page = await http.get(f"/errors/{code}")
    body = await http.get(f"/errors/{code}", params={"format": "json"})

    assert page.status_code == body.status_code == 404
    assert page.headers["cache-control"] == body.headers["cache-control"] == "no-store"
    assert f"<code>{shown}</code>" in page.text
    assert "<b>" not in page.text
    Outline(page.text)
    assert body.json() == {
        "error": Reason.NOT_FOUND.error,
        "error_description": Reason.NOT_FOUND.description,
        "codes": list(CODES),
    }


@pytest.mark.parametrize("path", ["/errors", "/errors/MP-999"])
async def test_lists_lead_to_pages(http: httpx.AsyncClient, path: str) -> None:
    """Every code is listed in both languages, and every link arrives."""
    page = await http.get(path)
    links = [link for link in Outline(page.text).all("a", "href") if link and link[0] != "#"]

    assert len(links) == len(LANGUAGES) * len(CODES)
    for link, code in zip(links, CODES * 2, strict=True):
        arrived = await http.get(str(page.url.join(link)))
        assert arrived.status_code == 200
        assert f"<h1>{code}</h1>" in arrived.text


async def test_a_page_leads_to_the_list(http: httpx.AsyncClient) -> None:
    """The last link of a page is the list of all codes."""
    page = await http.get("/errors/MP-121")
    link = Outline(page.text).all("a", "href")[-1]

    assert page.url.join(str(link)).path == "/errors"


async def test_list_as_json(http: httpx.AsyncClient) -> None:
    """All codes with a title in each language."""
    body = (await http.get("/errors?format=json")).json()

    assert body == {
        "codes": [
            {"code": code, **{one: explanation(code, one).title for one in LANGUAGES}}
            for code in CODES
        ]
    }


PREFERENCES = [
    pytest.param("", "en", id="nothing said"),
    pytest.param("*", "en", id="anything"),
    pytest.param("en", "en", id="English"),
    pytest.param("nb", "nb", id="bokmål"),
    pytest.param("NB-no", "nb", id="bokmål in Norway, in capitals"),
    pytest.param("no", "nb", id="Norwegian"),
    pytest.param("nn-NO, en;q=0.5", "nb", id="nynorsk before English"),
    pytest.param("nb-NO,nb;q=0.9,en-US;q=0.8,en;q=0.7", "nb", id="a Norwegian browser"),
    pytest.param("en-GB, nb;q=0.8", "en", id="an English one"),
    pytest.param("en;q=0.1, nb ; q=0.2", "nb", id="by weight, with spaces"),
    pytest.param("en, nb", "en", id="a tie"),
    pytest.param("nb;q=0", "en", id="no bokmål"),
    pytest.param("en;q=0, *", "nb", id="anything but English"),
    pytest.param("sv, fr", "en", id="neither"),
    pytest.param("nb;q=often", "en", id="a weight that is no number"),
    pytest.param("nb;q=9", "en", id="a weight out of range"),
    pytest.param("nbx, ;,;q=1", "en", id="noise"),
]


@pytest.mark.parametrize(("header", "first"), PREFERENCES)
async def test_language(http: httpx.AsyncClient, header: str, first: str) -> None:
    """The preferred language comes first; the other follows on the same page."""
    response = await http.get("/errors/MP-250", headers={"accept-language": header})
    outline = Outline(response.text)
    second = {"en": "nb", "nb": "en"}[first]

    assert preferred_languages(header) == (first, second)
    assert outline.all("html", "lang") == [first]
    assert outline.all("article", "lang") == [first, second]
    assert response.headers["content-language"] == f"{first}, {second}"


FORMS = [
    pytest.param("", None, False, id="nothing said"),
    pytest.param("*/*", None, False, id="anything"),
    pytest.param("application/json", None, True, id="JSON"),
    pytest.param("Application/JSON;charset=utf-8", None, True, id="JSON with a parameter"),
    pytest.param("application/json, text/plain, */*", None, True, id="JSON before anything"),
    pytest.param("text/html,application/xml;q=0.9,*/*;q=0.8", None, False, id="a browser"),
    pytest.param("text/html, application/json;q=0.9", None, False, id="HTML before JSON"),
    pytest.param("text/html;q=0.5, application/json", None, True, id="JSON before HTML"),
    pytest.param("application/json;q=0", None, False, id="no JSON"),
    pytest.param("text/html", "json", True, id="the query outranks the header"),
    pytest.param("application/json", "html", False, id="for a page as well"),
    pytest.param("application/json", "xml", True, id="an unknown form says nothing"),
]


@pytest.mark.parametrize(("accept", "wanted", "as_json"), FORMS)
async def test_form(
    http: httpx.AsyncClient, accept: str, wanted: str | None, *, as_json: bool
) -> None:
    """JSON on request, a page otherwise; known, unknown and list alike."""
    query = {"format": wanted} if wanted else {}
    kind = "application/json" if as_json else "text/html; charset=utf-8"

    assert prefers_json(accept, wanted) is as_json
    for path in ("/errors", "/errors/MP-011", "/errors/MP-999"):
        response = await http.get(path, params=query, headers={"accept": accept})
        assert response.headers["content-type"] == kind


@pytest.mark.parametrize("query", ["", "?format=json"])
@pytest.mark.parametrize("path", BOTH)
async def test_headers(http: httpx.AsyncClient, path: str, query: str) -> None:
    """Anyone may keep it for an hour, per language and form; nothing may run or be loaded."""
    headers = (await http.get(path + query)).headers
    policy = dict(
        one.strip().split(" ", maxsplit=1) for one in headers["content-security-policy"].split(";")
    )

    assert headers["cache-control"] == "public, max-age=3600"
    assert headers["vary"] == "Accept, Accept-Language"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert policy.pop("style-src").startswith("'sha256-")
    assert set(policy.values()) == {"'none'"}
    assert policy.keys() == {"default-src", "base-uri", "form-action", "frame-ancestors"}


@pytest.mark.parametrize("path", [*BOTH, pytest.param("/errors/x", id="unknown")])
async def test_the_page_stands_alone(http: httpx.AsyncClient, path: str) -> None:
    """One style sheet, the one whose hash is allowed; no script, no other file, no other host."""
    response = await http.get(path)
    outline = Outline(response.text)
    (style,) = re.findall(r"<style>(.*?)</style>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    assert f"style-src 'sha256-{digest}'" in response.headers["content-security-policy"]
    assert "prefers-color-scheme: dark" in style
    assert not {name for name, _ in outline.elements} & {"script", "link", "img", "iframe", "form"}
    for _, attributes in outline.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in {"style", "src"}
        ]
        assert "//" not in (attributes.get("href") or "")


@pytest.mark.parametrize("path", [*BOTH, pytest.param("/errors/x", id="unknown")])
async def test_the_page_can_be_read_aloud(http: httpx.AsyncClient, path: str) -> None:
    """Landmarks, headings in order, languages named, and every anchor has its target."""
    outline = Outline((await http.get(path)).text)
    names = [name for name, _ in outline.elements]
    ids = [found["id"] for _, found in outline.elements if "id" in found]
    levels = [int(name[1]) for name in names if re.fullmatch("h[1-6]", name)]
    anchors = [link[1:] for link in outline.all("a", "href") if link and link[0] == "#"]

    assert outline.open == []
    assert [names.count(name) for name in ("title", "header", "nav", "main", "h1")] == [1] * 5
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(ids) == len(set(ids))
    assert sorted(anchors) == sorted(LANGUAGES)
    assert set(anchors) <= set(ids)
    assert set(outline.all("article", "aria-labelledby")) <= set(ids)
    assert all(outline.all("nav", "aria-label"))


@pytest.mark.parametrize("path", BOTH)
async def test_only_reading(http: httpx.AsyncClient, path: str) -> None:
    """Nothing can be changed here."""
    assert (await http.head(path)).status_code == 200
    assert (await http.post(path)).status_code == 405
