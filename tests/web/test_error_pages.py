"""GET /errors/{code}: an explanation for every code, in two languages and two forms."""

import pytest

from maskinporten.errors import Reason
from maskinporten.web.explanations import EXPLANATIONS
from tests.world import Server

CODES = sorted({reason.ref for reason in Reason if reason.ref})


def test_every_code_is_explained_in_both_languages_and_none_is_left_over() -> None:
    """The catalogue and the explanations are one set."""
    assert sorted(EXPLANATIONS) == CODES
    assert all(set(languages) == {"en", "nb"} for languages in EXPLANATIONS.values())


@pytest.mark.parametrize("code", CODES)
async def test_a_page_for_people(server: Server, code: str) -> None:
    """HTML in both languages, with the OAuth error, and no way to run a script."""
    response = await server.http.get(f"/errors/{code.lower()}")

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    for language in ("en", "nb"):
        assert f'<section lang="{language}"' in response.text
    for reason in Reason:
        if reason.ref == code:
            assert reason.error in response.text


async def test_the_readers_language_comes_first(server: Server) -> None:
    """A Norwegian browser reads Norwegian first."""
    headers = {"accept-language": "nb-NO,nb;q=0.9,en;q=0.8"}
    text = (await server.http.get("/errors/MP-121", headers=headers)).text

    assert text.startswith('<!doctype html><html lang="nb">')
    assert text.index('lang="nb" id') < text.index('lang="en" id')


@pytest.mark.parametrize(
    ("url", "headers"),
    [("/errors/MP-012", {"accept": "application/json"}), ("/errors/MP-012?format=json", {})],
)
async def test_json_for_programs(server: Server, url: str, headers: dict[str, str]) -> None:
    """The same as data."""
    body = (await server.http.get(url, headers=headers)).json()

    assert body["code"] == "MP-012"
    assert body["errors"][0]["error"] == "invalid_grant"
    assert body["explanations"]["nb"]["mend"]


async def test_an_unknown_code_lists_those_there_are(server: Server) -> None:
    """404 in both forms, and what was asked for is not repeated."""
    page = await server.http.get("/errors/<script>")
    data = await server.http.get("/errors/MP-999?format=json")
    index = await server.http.get("/errors")

    assert page.status_code == data.status_code == 404
    assert "<script>" not in page.text.lower()
    assert data.json()["codes"] == list(EXPLANATIONS)
    assert "MP-303" in index.text
    assert len((await server.http.get("/errors?format=json")).json()) == len(CODES)
