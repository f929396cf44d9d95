"""/docs: Swagger UI. A user types a bearer token into this page, so all its files come from this service."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

STATIC = Path(__file__).parents[1] / "static"
PAGE = STATIC / "docs.html"
ASSETS = {
    "swagger-ui-bundle.js": (STATIC / "swagger-ui" / "swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": (STATIC / "swagger-ui" / "swagger-ui.css", "text/css"),
    "start.js": (STATIC / "start.js", "text/javascript"),
}
HEADERS = {
    # Swagger UI sets styles on its elements, and its style sheet contains icons as data.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def page() -> Response:
    return Response(PAGE.read_bytes(), media_type="text/html", headers=HEADERS)


def _asset(request: Request) -> Response:
    path, media_type = ASSETS[request.url.path.rpartition("/")[2]]
    return Response(path.read_bytes(), media_type=media_type, headers={**HEADERS, "Cache-Control": "private, max-age=3600"})


assets = [Route(f"/docs/{name}", _asset) for name in ASSETS]
