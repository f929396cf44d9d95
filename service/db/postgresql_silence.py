"""How long PostgreSQL may be silent before it counts as unavailable. Also for a process that has no driver of PostgreSQL."""

ANSWER_S = 20.0
"""Seconds to wait for an answer of PostgreSQL. After that the connection is closed, and the database counts as unavailable."""
TCP: dict[str, int] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""Parameters of libpq by which a dead network is noticed. Seconds; `tcp_user_timeout` in milliseconds."""
