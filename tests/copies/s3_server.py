"""moto's S3 server, as a program: `python -m tests.copies.s3_server [keeps-locks]`. It says its port on standard output.

moto lets a lock be shortened. With `keeps-locks` it refuses that, as Amazon documents it.
"""

import sys
from datetime import UTC, datetime
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3 import exceptions, models
from werkzeug.serving import make_server


def keep_locks() -> None:
    lengthened = models.S3Backend.put_object_retention

    def refuse_less(backend: Any, bucket: str, key: str, version_id: str | None, retention: Any) -> None:
        there = backend.get_object(bucket, key, version_id=version_id)
        if there is not None and there.lock_until is not None and _time(retention[1]) < _time(there.lock_until):
            raise exceptions.AccessDeniedByLock
        lengthened(backend, bucket, key, version_id, retention)

    models.S3Backend.put_object_retention = refuse_less  # type: ignore[method-assign,assignment] # as a better server would


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


if __name__ == "__main__":
    if sys.argv[1:] == ["keeps-locks"]:
        keep_locks()
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True, request_handler=MotoRequestHandler)
    print(server.port, flush=True)
    server.serve_forever()
