"""The API page in a real browser: it loads, it asks nobody else, and an operation can be tried."""

import base64
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.browser import browsing
from tests.conftest import Starter
from tests.selfservice.organisations import admin_world
from tests.test_cli import free_port, run, serving, started, wait_until_ready, written
from tests.world import CONSUMER, assertion, form

PAGE = "swagger-ui/index.html"


def test_people_can_read_and_try_the_api(tmp_path: Path) -> None:
    """Whole server, real Chromium: no console error, no request elsewhere, a 200 with a token."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/"
    settings = serving(tmp_path, ISSUER=issuer, PORT=str(port), WORKERS="1", DRAIN="0")
    assert run("apply", written(tmp_path, admin_world()), **settings).returncode == 0

    with started("serve", cwd=tmp_path, **settings), browsing(tmp_path) as browser:
        wait_until_ready(issuer)
        now = int(time.time())
        admin = f"admin-{CONSUMER}"
        grant = assertion(admin, scope="idporten:dcr.read", aud=issuer, iat=now, exp=now + 60)
        token = httpx.post(f"{issuer}token", data=form(grant)).json()["access_token"]
        browser.open(issuer + PAGE)
        browser.wait("return document.querySelector('main').ariaBusy === 'false'")
        listed = browser.run("return [...document.querySelectorAll('details')].map((d) => d.id)")
        document = httpx.get(f"{issuer}v3/api-docs").json()
        operations = [
            operation["operationId"]
            for item in document["paths"].values()
            for operation in item.values()
            if isinstance(operation, dict)
        ]
        assert sorted(listed) == sorted(operations)
        browser.run(
            "document.getElementById('token').value = arguments[0];"
            "const found = document.getElementById('getClients');"
            "found.open = true; found.scrollIntoView();",
            token,
        )
        browser.wait("return document.querySelector('#getClients form') !== null")
        browser.run("document.querySelector('#getClients form').requestSubmit()")
        status = browser.wait("return document.querySelector('#getClients .status')?.textContent")
        answer = browser.run("return document.querySelector('#getClients .answer').textContent")
        shot = base64.b64decode(browser.ask("GET", "screenshot"))
        console = browser.log("browser")
        net = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]

    (tmp_path / "page.png").write_bytes(shot)
    assert status == "200"
    assert f'"client_id": "{admin}"' in answer
    faults = [entry for entry in console if entry["level"] in {"WARNING", "SEVERE"}]
    assert not faults
    sent = [event for event in net if event["method"] == "Network.requestWillBeSent"]
    # The browser's own new tab speaks too; what counts is what our page asks for.
    ours = [event["params"] for event in sent if event["params"]["documentURL"].startswith(issuer)]
    asked = [one["request"]["url"] for one in ours]
    assert f"{issuer}api/v1/clients" in asked
    assert {urlsplit(url)._replace(path="", query="").geturl() + "/" for url in asked} == {issuer}


async def test_the_page_may_load_from_here_alone(start: Starter) -> None:
    """A strict policy on each of its files; nothing inline, nothing from elsewhere."""
    server = await start()
    for name in ("index.html", "page.js", "page.css", "icon.svg"):
        answer = await server.http.get(f"/swagger-ui/{name}")
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "innerHTML" not in answer.text


@pytest.mark.parametrize("path", ["/swagger-ui", "/swagger-ui/", "/docs"])
async def test_other_names_lead_to_the_page(start: Starter, path: str) -> None:
    """Where people look for it."""
    answer = await (await start()).http.get(path)

    assert (answer.status_code, answer.headers["location"]) == (307, f"/{PAGE}")
