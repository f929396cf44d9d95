"""A relay before PostgreSQL: it can fall silent without hanging up, as a server that stands still and a network that swallows do."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from sqlalchemy import make_url


class PostgresqlRelay:
    """`url` is what a client connects to. As a context it is open."""

    def __init__(self, url: str, folder: Path) -> None:
        self._target = make_url(url)
        self._folder = folder
        self._listener = socket.socket()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._muted: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.is_mute = False
        """Nothing is passed on, on connections that are still to come as well."""
        self.round_trips = 0
        """How often a client has spoken after the server, or first."""
        self._client_spoke_last: dict[socket.socket, bool] = {}

    def __enter__(self) -> Self:
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            pairs = list(self._pairs)
        for end in (end for pair in pairs for end in pair):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    @property
    def url(self) -> str:
        port = self._listener.getsockname()[1]
        through = self._target.set(host="127.0.0.1", port=port).difference_update_query(["host"])
        return through.render_as_string(hide_password=False)

    def mute_open_ones(self) -> None:
        """The connections that are open now hang for ever; new ones work."""
        with self._lock:
            self._muted |= {end for pair in self._pairs for end in pair}

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connected()
            with self._lock:
                self._pairs.append((client, server))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, target, client), daemon=True).start()

    def _connected(self) -> socket.socket:
        host = str(self._target.query.get("host") or self._target.host or "127.0.0.1")
        port = self._target.port or 5432
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _copy(self, source: socket.socket, target: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                with self._lock:
                    self.round_trips += source is client and not self._client_spoke_last.get(client, False)
                    self._client_spoke_last[client] = source is client
                if not (self.is_mute or source in self._muted):
                    target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
