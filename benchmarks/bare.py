"""What FastAPI itself costs: routes that only return bytes they have in memory. `python -m benchmarks.bare PORT FOLDER`."""

import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response

from service.app import NO_TELEMETRY

MEDIA_TYPE = "application/json"


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    # The server's options are those of the service.
    uvicorn.run(create(folder), host="127.0.0.1", port=port, log_config=None, access_log=False, server_header=False, timeout_keep_alive=30)


def create(folder: Path) -> FastAPI:
    """`folder` holds the bodies to return, named as the calls."""
    app = FastAPI(openapi_url=None, telemetry=NO_TELEMETRY)
    job, page, created = ((folder / name).read_bytes() for name in ("get_job", "list", "create"))

    @app.get("/def/get_job")
    def _get_job() -> Response:
        return Response(job, media_type=MEDIA_TYPE)

    @app.get("/async/get_job")
    async def _get_job_async() -> Response:
        return Response(job, media_type=MEDIA_TYPE)

    @app.get("/def/list")
    def _list() -> Response:
        return Response(page, media_type=MEDIA_TYPE)

    @app.get("/async/list")
    async def _list_async() -> Response:
        return Response(page, media_type=MEDIA_TYPE)

    @app.post("/def/create")
    def _create(body: dict[str, Any]) -> Response:
        return Response(created, status_code=202 if body else 422, media_type=MEDIA_TYPE)

    @app.post("/async/create")
    async def _create_async(body: dict[str, Any]) -> Response:
        return Response(created, status_code=202 if body else 422, media_type=MEDIA_TYPE)

    return app


if __name__ == "__main__":
    main()
