"""Reads libvirt's counters of a disk."""

from collections.abc import Mapping
from typing import Any

from service.hypervisor.handle import libvirt
from service.model.impact import BlockTimes


def times_of(counters: Mapping[str, Any]) -> BlockTimes:
    """`counters`: as virDomainBlockStatsFlags names them."""

    def counter(name: str) -> int | None:
        value = counters.get(name)
        # libvirt writes -1 for a counter that the hypervisor does not have.
        return None if value is None or int(value) < 0 else int(value)

    return BlockTimes(
        writes=counter(libvirt.VIR_DOMAIN_BLOCK_STATS_WRITE_REQ),
        write_ns_total=counter(libvirt.VIR_DOMAIN_BLOCK_STATS_WRITE_TOTAL_TIMES),
        flushes=counter(libvirt.VIR_DOMAIN_BLOCK_STATS_FLUSH_REQ),
        flush_ns_total=counter(libvirt.VIR_DOMAIN_BLOCK_STATS_FLUSH_TOTAL_TIMES),
        reads=counter(libvirt.VIR_DOMAIN_BLOCK_STATS_READ_REQ),
        read_ns_total=counter(libvirt.VIR_DOMAIN_BLOCK_STATS_READ_TOTAL_TIMES),
        errors=counter(libvirt.VIR_DOMAIN_BLOCK_STATS_ERRS),
    )
