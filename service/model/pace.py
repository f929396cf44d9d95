"""How fast a copy may read while its guest runs: slower when the guest's disks are slow, then not at all, then the copy is given up."""

from dataclasses import dataclass

FIRST_BYTES_S = 64 << 20
"""Bytes a second after the first look above the limit. Each further look above the limit halves the pace."""
LEAST_BYTES_S = 4 << 20
"""Bytes a second. A pace below this is 0: a copy that slow would hold the overlays for too long."""
PATIENCE_S = 60.0
"""Seconds. If the disks stay above the limit for so long although nothing is read, the copy is given up."""
CALM_LOOKS = 4
"""Looks in a row without a latency above the limit, after which the pace is doubled."""
IS_QUIET_SHARE = 0.8
"""The share of the limit below which a latency counts as calm. Without this gap the pace would change at every look."""


@dataclass
class PaceRule:
    """`bytes_s` None: as fast as possible. 0: nothing is read. `limit_ms` None: the guest's latency changes nothing."""

    limit_ms: float | None
    patience_s: float = PATIENCE_S
    bytes_s: int | None = None
    #: The latency of the last look above the limit.
    last_latency_ms: float | None = None
    _calm_looks: int = 0
    _suffers_since: float | None = None

    def look(self, now_s: float, latency_ms: float | None) -> None:
        """`latency_ms`: the worst mean latency of all disks since the last looks. None: no request has ended, or none was measured."""
        if self.limit_ms is None:
            return
        if latency_ms is not None and latency_ms > self.limit_ms:
            self._too_slow(now_s, latency_ms)
            return
        self._suffers_since = None
        if latency_ms is None or latency_ms <= self.limit_ms * IS_QUIET_SHARE:
            self._calm()

    def is_given_up(self, now_s: float) -> bool:
        """The guest has suffered for the whole patience, and nothing was read all that time."""
        return self._suffers_since is not None and self.bytes_s == 0 and now_s - self._suffers_since >= self.patience_s

    def _too_slow(self, now_s: float, latency_ms: float) -> None:
        self.last_latency_ms = latency_ms
        self._calm_looks = 0
        if self.bytes_s is None:
            self.bytes_s = FIRST_BYTES_S
        elif self.bytes_s:
            halved = self.bytes_s // 2
            self.bytes_s = halved if halved >= LEAST_BYTES_S else 0
        if self.bytes_s == 0 and self._suffers_since is None:
            self._suffers_since = now_s

    def _calm(self) -> None:
        self._calm_looks += 1
        if self.bytes_s is None or self._calm_looks < CALM_LOOKS:
            return
        self._calm_looks = 0
        if self.bytes_s == 0:
            self.bytes_s = LEAST_BYTES_S
        elif self.bytes_s >= FIRST_BYTES_S:
            self.bytes_s = None
        else:
            self.bytes_s *= 2
