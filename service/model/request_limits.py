"""What fields of requests and of policies may hold, wherever they are read: what a policy stores, a job does not refuse."""

PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
"""Names have no control characters: PostgreSQL refuses NUL, and the others only hide the real name."""
LABEL_KEY = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"
DISK_TARGET = r"^[A-Za-z0-9_.:-]{1,64}$"
MAX_NAME = 255
"""Characters of the name of a domain or of a repository. A longer one is refused."""
MAX_HOST_NAME = 64
"""Characters. A longer one is refused."""
MAX_LABEL_VALUE = 255
"""Characters. A longer one is refused."""
MAX_LABELS = 32
"""Labels of a job or of a selector. A request with more is refused."""
MAX_DISKS = 64
"""Disks that a request or a policy may name. A request with more is refused."""
MIN_RATE_BYTES = 1024
"""Bytes a second. A lower limit is refused: a copy with it would hardly end."""
MAX_RATE_BYTES = 2**50
"""Bytes a second. A higher limit is refused."""
MAX_IMPACT_MS = 600_000
"""Milliseconds of latency. A higher limit is refused."""
MIN_FREEZE_TIMEOUT_MS = 1_000
"""Milliseconds. A shorter timeout of a freeze is refused."""
MAX_FREEZE_TIMEOUT_MS = 600_000
"""Milliseconds. A longer timeout of a freeze is refused."""
MIN_HOLD_MS = 100
"""Milliseconds. A shorter hold is refused."""
MAX_HOLD_MS = 600_000
"""Milliseconds. A longer hold is refused."""
MAX_TRANSFERS = 256
"""Transfers, or guests, at once. A higher limit is refused."""
DEMANDABLE = ("crash", "filesystem", "application_unverified", "application")
"""The verdicts that may be demanded: the other two say nothing of how consistent a point is."""
