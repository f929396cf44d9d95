"""/docs works where there is no internet: everything that it loads comes from the service, and it may load nothing else."""

import re
import tomllib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

ROOT = Path(__file__).parents[2]


def policy(api: TestClient, path: str) -> dict[str, str]:
    header = api.get(path).headers["content-security-policy"]
    return {name: sources for name, _, sources in (part.strip().partition(" ") for part in header.split(";"))}


def loaded(html: str) -> list[str]:
    """All but what stands in the page itself: an icon of no bytes keeps browsers from asking for one, which would need the token."""
    return [path for path in re.findall(r'(?:src|href)="([^"]+)"', html) if path != "data:,"]


def test_the_page_loads_only_what_the_service_has(api: TestClient) -> None:
    page = api.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert len(loaded(page.text)) == 3
    for path in loaded(page.text):
        assert path.startswith("/docs/")
        answer = api.get(path)
        assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff")
        assert answer.headers["content-type"].partition(";")[0] in ("text/javascript", "text/css")
        assert len(answer.content) > 100


def test_the_page_may_load_nothing_else(api: TestClient) -> None:
    allowed = policy(api, "/docs")
    assert allowed["default-src"] == "'none'"
    assert allowed["script-src"] == allowed["connect-src"] == "'self'"
    assert not any("http" in sources or "*" in sources for sources in allowed.values())


def test_the_description_is_found_where_the_token_stands_in_the_address(api: TestClient) -> None:
    """https://me:TOKEN@host/docs: fetch() refuses a path, which has the token in it then."""
    assert "url: `${window.location.origin}/openapi.json`" in api.get("/docs/start.js").text


def test_no_script_stands_in_the_page_itself(api: TestClient) -> None:
    """The policy would keep it from running."""
    assert re.findall(r"<script[^>]*>([^<]+)</script>|\son\w+=", api.get("/docs").text) == []


@pytest.mark.parametrize("path", ["/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/start.js"])
def test_its_files_take_the_token_as_the_page_does(api: TestClient, path: str) -> None:
    token = api.headers["authorization"].partition(" ")[2]
    assert api.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    del api.headers["authorization"]
    assert api.get(path, auth=("anybody", token)).status_code == 200


@pytest.mark.parametrize("path", ["/docs/", "/docs/LICENSE", "/docs/..%2fauth.py", "/docs/swagger-ui/swagger-ui.css"])
def test_nothing_but_its_files_is_given_out(api: TestClient, path: str) -> None:
    assert api.get(path).status_code == 404


def test_an_installed_service_has_the_files_and_their_licence() -> None:
    """By what the build is told to take along."""
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    taken = {path for pattern in package_data["service.api"] for path in (ROOT / "service" / "api").glob(pattern) if path.is_file()}
    assert taken == {path for path in (ROOT / "service" / "api" / "static").rglob("*") if path.is_file()}
    assert {"docs.html", "start.js", "swagger-ui-bundle.js", "swagger-ui.css", "LICENSE", "NOTICE"} <= {path.name for path in taken}
