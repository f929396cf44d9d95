"""QEMU is killed after it has dropped the repository from a disk, and before what it had copied was written out.

A fake QEMU writes nothing. So the header of the disk is changed here as the real one changes it when a pull ends.
"""

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.errors import RepositoryGone, RestoreNotWrittenOut
from service.hypervisor.guest import Guest
from service.jobs import restore_flatten, restore_written_out
from service.jobs.restore_flatten import Flattening
from service.jobs.restore_source import Archive
from service.jobs.restore_written_out import Copies
from tests.fakes.domain import RUNNING, FakeDomain
from tests.jobs.restoring import RestoreScene, first_byte
from tests.scenes.deaths import die, recovered
from tests.scenes.graves import Grave
from tests.scenes.host import error_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> RestoreScene:
    return RestoreScene(sqlite_database, tmp_path)


def restored(scene: RestoreScene) -> FakeDomain:
    (new,) = scene.new_domains()
    return new


def pull_ends_in_the_header(domain: FakeDomain) -> None:
    path = domain.source("vda")
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", path], check=True, capture_output=True)


def kill(domain: FakeDomain) -> None:
    pull_ends_in_the_header(domain)
    domain.kill_qemu()


def once_whole(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch, what: Callable[[FakeDomain], object]) -> None:
    """`what` happens when the job has seen that the disk is whole, and before it has seen a flush."""
    real = Copies.can_end
    happened: list[object] = []

    def can_end(copies: Copies, guest: Guest) -> bool:
        if not happened:
            happened.append(what(restored(scene)))
        return real(copies, guest)

    monkeypatch.setattr(Copies, "can_end", can_end)


def assert_mended(scene: RestoreScene, job: Job, *, starts: int = 2) -> None:
    assert job.state == "succeeded", error_of(job)
    new = restored(scene)
    assert new.state_now == RUNNING
    assert (new.log.count("start"), new.log.count("block_pull")) == (starts, 2)
    assert first_byte(new.source("vda")) == 2
    assert "<backingStore" not in new.inactive_xml()


def test_a_qemu_that_is_killed_then_reads_what_it_lost_from_the_repository_again(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    once_whole(scene, monkeypatch, kill)
    assert_mended(scene, scene.restore("instant"))


def test_a_domain_that_was_started_since_then_and_has_written_nothing_is_mended(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_and_started(domain: FakeDomain) -> None:
        kill(domain)
        domain.start()
        domain.is_idle = True
        domain.written.clear()

    once_whole(scene, monkeypatch, killed_and_started)
    real = Guest.destroy

    def destroy(guest: Guest) -> None:
        real(guest)
        restored(scene).is_idle = False

    monkeypatch.setattr(Guest, "destroy", destroy)
    assert_mended(scene, scene.restore("instant"), starts=3)


def test_a_domain_that_has_written_to_a_disk_that_lacks_data_is_left_to_a_person(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_and_started(domain: FakeDomain) -> None:
        kill(domain)
        domain.start()

    once_whole(scene, monkeypatch, killed_and_started)
    job = scene.restore("instant")
    assert (job.state, error_of(job)["code"]) == ("failed", RestoreNotWrittenOut.code)
    assert restored(scene).state_now == RUNNING


def test_a_domain_that_is_shut_down_then_is_believed(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch) -> None:
    def shut_down(domain: FakeDomain) -> None:
        pull_ends_in_the_header(domain)
        domain.shut_off()

    once_whole(scene, monkeypatch, shut_down)
    job = scene.restore("instant")
    assert job.state == "succeeded", error_of(job)
    assert restored(scene).log.count("start") == 1


def test_a_guest_that_flushes_nothing_is_left_with_a_warning(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_written_out, "FLUSH_PATIENCE_S", 0.0)
    once_whole(scene, monkeypatch, lambda domain: setattr(domain, "is_idle", True))
    job = scene.restore("instant")
    assert job.state == "succeeded", error_of(job)
    assert [phase["outcome"] for phase in job.phases if phase["name"] == "flatten"] == ["warning"]


def test_a_repository_that_stays_away_ends_the_restore(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(domain: FakeDomain) -> None:
        kill(domain)
        monkeypatch.setattr(restore_flatten, "PATIENCE_S", 0.0)

    once_whole(scene, monkeypatch, killed)
    real = Archive.call

    def call(archive: Archive, step: str, **arguments: Any) -> dict[str, Any]:
        if step == "stand_on_again":
            raise RepositoryGone(path=archive.path, reason="unplugged")
        return real(archive, step, **arguments)

    monkeypatch.setattr(Archive, "call", call)
    job = scene.restore("instant")
    assert (job.state, error_of(job)["code"]) == ("failed", RestoreNotWrittenOut.code)


# --- the worker dies, too -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name", "after"), [(Guest, "block_pull", True), (Copies, "can_end", False), (Flattening, "_mend", False)]
)
def test_the_next_attempt_does_not_believe_a_disk_whose_qemu_was_killed(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool
) -> None:
    if name == "_mend":
        once_whole(scene, monkeypatch, kill)
    grave = Grave(monkeypatch, owner, name, after=after)
    scene.ask_restore("instant")
    job = recovered(scene, die(scene, grave.reached))
    if name != "_mend":
        kill(restored(scene))
    assert_mended(scene, next_attempt(scene, job))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), [(Guest, "redefine"), (Guest, "start")])
def test_a_death_while_the_disk_is_mended_is_continued(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool
) -> None:
    reached = threading.Event()

    def killed(domain: FakeDomain) -> None:
        kill(domain)
        Grave(monkeypatch, owner, name, after=after, reached=reached)

    once_whole(scene, monkeypatch, killed)
    scene.ask_restore("instant")
    job = recovered(scene, die(scene, reached))
    assert_mended(scene, next_attempt(scene, job))


def test_the_next_attempt_waits_for_a_flush_of_the_qemu_that_has_copied_and_starts_no_other(
    scene: RestoreScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    grave = Grave(monkeypatch, Copies, "can_end", after=False)
    scene.ask_restore("instant")
    job = recovered(scene, die(scene, grave.reached))
    pull_ends_in_the_header(restored(scene))
    job = next_attempt(scene, job)
    assert job.state == "succeeded", error_of(job)
    assert restored(scene).log.count("start") == 1


def test_a_copy_by_qemu_img_that_was_killed_at_its_end_is_not_believed(scene: RestoreScene, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Flattening._step

    def shut_down_first(flattening: Flattening, guest: Guest, target: str) -> None:
        if restored(scene).state_now == RUNNING:
            restored(scene).shut_off()
        real(flattening, scene.host.guest(guest.uuid), target)

    monkeypatch.setattr(Flattening, "_step", shut_down_first)
    grave = Grave(monkeypatch, Archive, "call", after=False, step="make_whole")
    scene.ask_restore("instant")
    job = recovered(scene, die(scene, grave.reached))
    pull_ends_in_the_header(restored(scene))
    job = next_attempt(scene, job)
    assert job.state == "succeeded", error_of(job)
    scene.repository.rename(scene.repository.with_name("elsewhere"))
    assert first_byte(restored(scene).source("vda")) == 2


def next_attempt(scene: RestoreScene, job: Job) -> Job:
    assert job.state == "queued", job.error
    scene.execution.execute(scene.claim())
    return scene.job(job.id)
