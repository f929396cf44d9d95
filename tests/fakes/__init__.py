"""A host, its domains and the agents in them, as libvirt shows them: fakes that keep state and can be told to fail.

    disk = FakeDisk("vda", folder / "vda.qcow2")
    domain = FakeDomain("db1", [disk])                    # running, agent answering, one ext4 on each disk
    host = FakeHost(domain)                               # stands in for service.hypervisor.connection.HostConnection
    guest = host.guest("db1")                             # a real Guest over the fake

    domain.fail_next("snapshot_create", libvirt_error(VIR_ERR_INTERNAL_ERROR, "no space"), after=True)   # it happened AND raised
    domain.fail_next("guest-fsfreeze-thaw", agent_silent(), times=3)      # agent commands by their own name
    domain.delay_next("snapshot_create", 0.3)
    gate = domain.hang_next("snapshot_create")            # blocks until gate.set()
    domain.when_next("snapshot_create", action)           # the world changes just before the call has its effect
    domain.answer_next("guest-info", {"return": []})      # the agent answers nonsense
    domain.move_only("vda")                               # the next snapshot moves one disk of several, and raises
    domain.libvirtd_goes_away(calls=2)                    # the connection breaks; the second call after it works again
    domain.agent.freeze_late(0.2)                         # no answer in time, but frozen 0.2 s later (an orphan freeze)
    domain.agent.answers = False                          # connected, and silent

Afterwards `domain.log` has every call in order, `domain.points` every point in time with whether the guest was frozen in
it, `domain.agent.frozen` and `domain.agent.hook_calls` what became of the guest.

The same contract (tests/live/test_guest_contract.py) is run against the fake and against a real guest.
"""

from tests.fakes.agent import FakeAgent, FakeFilesystem
from tests.fakes.domain import FakeDisk, FakeDomain, PointInTime
from tests.fakes.host import FakeHost
from tests.fakes.libvirt_errors import agent_error, agent_silent, connection_lost, libvirt_error

__all__ = [
    "FakeAgent",
    "FakeDisk",
    "FakeDomain",
    "FakeFilesystem",
    "FakeHost",
    "PointInTime",
    "agent_error",
    "agent_silent",
    "connection_lost",
    "libvirt_error",
]
