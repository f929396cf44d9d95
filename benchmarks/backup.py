"""Backups, increments and restores beside virtnbdbackup and a plain copy. What a guest feels of them, how soon a restored guest answers."""

import random
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import backup_faults, interleaving
from benchmarks.backup_contestants import CHANGED, GIB, Convert, Stillpoint, Virtnbdbackup, resumed
from benchmarks.backup_faults import STORAGE_MB, UnderFault
from benchmarks.filled_guest import FilledGuest
from benchmarks.instant import FirstAnswer
from benchmarks.interleaving import Course, Numbers, Plan, Turn
from benchmarks.report import Report, program_version
from benchmarks.service_process import Client, ServiceProcess
from benchmarks.usage import used_by
from tests.lab import images, kvm
from tests.lab.bad_storage import storage
from tests.lab.command import run
from tests.lab.daemon import Daemon, uri
from tests.lab.places import LabError, open_dir

DISK_MB, DATA_MB = 1024, 300
TIMES = 10
"""A disk so many times as large."""
LARGE_GIB = 10
ROUNDS, ANSWER_ROUNDS, FEWER = 7, 5, 3
"""At most so many rounds of the first course, of the first answers, and of what takes a minute each. The whole takes 20 minutes."""
SETTINGS = {"STILLPOINT_REPOSITORY_LOOK_SECONDS": "3600"}


@dataclass(frozen=True)
class Bench:
    """What all courses share."""

    plan: Plan
    stack: ExitStack
    client: Client
    scratch: Path
    service_pid: int

    def guest(self, name: str, times: int = 1) -> FilledGuest:
        guest = FilledGuest(name, disk_mb=DISK_MB * times, data_mb=DATA_MB * times)
        self.stack.callback(guest.destroy)
        guest.start_and_wait()
        self.client.wait_domain(guest.name)
        return guest

    def rounds(self, most: int) -> Plan:
        return Plan(min(self.plan.rounds, most), self.plan.seed)


def measure(plan: Plan) -> Report:
    with ExitStack() as stack:
        daemon = Daemon()
        daemon.ensure()
        stack.callback(daemon.stop)
        # Below /var/tmp, because the QEMU of a system libvirtd runs as another user and writes its scratch file there.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stillpoint-bench-", dir="/var/tmp")))
        scratch.chmod(0o777)
        service = stack.enter_context(ServiceProcess("all", scratch / "state", SETTINGS))
        bench = Bench(plan, stack, service.client(), scratch, service.pid)
        backups = _backups(bench)
        answers = _answers(bench, "first answer, 1 GiB disk", 1, bench.rounds(ANSWER_ROUNDS))
        answers_large = _answers(bench, f"first answer, {TIMES} GiB disk", TIMES, bench.rounds(FEWER))
        faults = _faults(bench)
        large = _large(bench)
        versions = _versions()
    courses = [backups, answers, answers_large, faults, large]
    settings = {
        "accelerator": versions.pop("accelerator"),
        "disk_mb": DISK_MB,
        "data_mb": DATA_MB,
        "changed": CHANGED,
        "hangs_s": backup_faults.HANGS_S,
    }
    return Report("backup", plan.seed, courses, _figures(*courses), settings, versions)


# --- courses --------------------------------------------------------------------------------------


def _backups(bench: Bench) -> Course:
    guest, peer = bench.guest("bench-backup"), bench.guest("bench-virtnbd")
    ours = Stillpoint(guest, bench.client, bench.scratch, bench.service_pid)
    theirs, convert = Virtnbdbackup(peer, bench.scratch), Convert(guest, bench.scratch)
    chance = random.Random(bench.plan.seed)
    contestants: dict[str, tuple[FilledGuest, Turn]] = {
        "stillpoint": (guest, lambda: ours.turn(chance)),
        "stillpoint snapshot": (guest, ours.snapshot),
        "virtnbdbackup": (peer, lambda: theirs.turn(chance)),
        "qemu-img convert": (guest, convert.turn),
    }
    for one in (guest, peer):
        one.domain.suspend()
    course = interleaving.run(
        "backup, increment, restore", {name: _resumed(*each) for name, each in contestants.items()}, bench.rounds(ROUNDS)
    )
    for one in (guest, peer):
        one.domain.resume()
        one.destroy()
    return course


def _resumed(guest: FilledGuest, turn: Turn) -> Turn:
    return lambda: resumed(guest, turn)


def _answers(bench: Bench, title: str, times: int, plan: Plan) -> Course:
    guest = bench.guest(f"bench-instant-{times}", times)
    ours = Stillpoint(guest, bench.client, bench.scratch, bench.service_pid)
    point = ours.back_up("full")["recovery_point"]["id"]
    guest.shutdown()
    first = FirstAnswer(guest, bench.client, point, bench.scratch)
    course = interleaving.run(title, {"boot": first.boot, "instant": first.instant}, plan)
    guest.destroy()
    return course


def _faults(bench: Bench) -> Course:
    guest = bench.guest("bench-faults")
    disk = bench.stack.enter_context(storage("bench", mb=STORAGE_MB))
    under = UnderFault(guest, disk, bench.client, bench.scratch)
    course = interleaving.run("a repository that fails", backup_faults.turns(under), bench.rounds(FEWER), warm_up=False)
    guest.destroy()
    return course


def _large(bench: Bench) -> Course:
    """Memory while a full backup of 10 GiB is made, which are all different from zero."""
    guest = bench.guest("bench-large")
    extra = open_dir(guest.folder) / "vdb.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", extra, f"{LARGE_GIB}G"])
    for gib in range(LARGE_GIB):
        run(["qemu-io", "-f", "qcow2", "-c", f"write -q -P {gib + 1} {gib}G 1G", extra], timeout=600)
    extra.chmod(0o666)
    guest.domain.attachDevice(
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{extra}'/><target dev='vdb' bus='virtio'/></disk>"
    )
    ours = Stillpoint(guest, bench.client, bench.scratch, bench.service_pid)
    theirs = Virtnbdbackup(guest, bench.scratch)
    turns: dict[str, Callable[[], Numbers]] = {"stillpoint": lambda: _memory(ours), "virtnbdbackup": theirs.large}
    course = interleaving.run(f"a backup of {LARGE_GIB} GiB", turns, Plan(1, bench.plan.seed), warm_up=False)
    guest.destroy()
    return course


def _memory(ours: Stillpoint) -> Numbers:
    began = time.monotonic()
    with used_by(ours.service_pid) as usage:
        # The second disk has no file system, so that no freeze can hold it.
        job = ours.back_up("full", required_verdict="crash")
    copied = sum(disk["copied_bytes"] for disk in job["result"]["backup"]["disks"])
    if copied < LARGE_GIB * GIB:
        raise LabError(f"only {copied} bytes were copied of {LARGE_GIB} GiB")
    return {
        "seconds": time.monotonic() - began,
        "rss_mb": usage.rss_mb,
        "pss_mb": usage.pss_mb,
        "copied_gib": copied / GIB,
        "cpu_s_per_gib": usage.cpu_s / (copied / GIB),
    }


# --- figures --------------------------------------------------------------------------------------


def _figures(backups: Course, answers: Course, answers_large: Course, faults: Course, large: Course) -> dict[str, float]:
    return {
        "backup_full_vs_convert": backups.median("stillpoint", "full_s") / backups.median("qemu-img convert", "full_s"),
        "backup_inc_vs_virtnbdbackup": _against(backups, "inc_s"),
        "backup_full_vs_virtnbdbackup": _against(backups, "full_s"),
        "restore_vs_virtnbdrestore": _against(backups, "restore_s"),
        "instant_first_answer_vs_boot": answers.median("instant", "answer_s") / answers.median("boot", "answer_s"),
        "instant_first_answer_vs_boot_10x": answers_large.median("instant", "answer_s") / answers_large.median("boot", "answer_s"),
        "stall_backup_vs_virtnbdbackup": _against(backups, "full_stall_ms"),
        "stall_backup_vs_snapshot": backups.median("stillpoint", "full_stall_ms") / backups.median("stillpoint snapshot", "stall_ms"),
        **_under(faults, "hung", "hangs"),
        **_under(faults, "full", "is full"),
        "backup_10gib_rss_mb": large.median("stillpoint", "rss_mb"),
        "backup_10gib_rss_mb: virtnbdbackup": large.median("virtnbdbackup", "rss_mb"),
        "backup_10gib_cpu_s_per_gib": large.median("stillpoint", "cpu_s_per_gib"),
        "backup_10gib_cpu_s_per_gib: virtnbdbackup": large.median("virtnbdbackup", "cpu_s_per_gib"),
        "backup_copy_vs_convert": backups.median("stillpoint", "full_copy_s") / backups.median("qemu-img convert", "full_s"),
        "backup_full_cpu_s_per_gib": backups.median("stillpoint", "full_cpu_s_per_gib"),
        "backup_full_cpu_s_per_gib: virtnbdbackup": backups.median("virtnbdbackup", "full_cpu_s_per_gib"),
    }


def _against(course: Course, number: str) -> float:
    return course.median("stillpoint", number) / course.median("virtnbdbackup", number)


def _under(faults: Course, word: str, what: str) -> dict[str, float]:
    def of(who: str, number: str = "held_ms") -> float:
        return faults.median(f"{who}, repository {what}", number)

    def worst(who: str) -> float:
        return max(faults.all(f"{who}, repository {what}", "held_ms"))

    quiet = of("without a backup")
    return {
        f"guest_sync_{word}_repository_ms": of("stillpoint"),
        f"guest_sync_{word}_repository_vs_quiet": of("stillpoint") / quiet,
        f"guest_sync_{word}_repository_worst_ms": worst("stillpoint"),
        f"guest_sync_{word}_repository_worst_ms: without a backup": worst("without a backup"),
        f"guest_sync_{word}_repository_ms: without a backup": quiet,
        f"guest_sync_{word}_repository_ms: virsh": of("virsh"),
        f"guest_sync_{word}_repository_ms: virtnbdbackup": of("virtnbdbackup"),
        f"guest_paused_{word}_repository_s": of("stillpoint", "paused_s"),
        f"guest_paused_{word}_repository_s: virsh": of("virsh", "paused_s"),
        f"guest_paused_{word}_repository_s: virtnbdbackup": of("virtnbdbackup", "paused_s"),
    }


def _versions() -> dict[str, str]:
    return {
        "qemu": program_version(["qemu-system-x86_64", "--version"]),
        "libvirt": program_version(["virsh", "-c", uri(), "version", "--daemon"]),
        "virtnbdbackup": program_version(["virtnbdbackup", "-V"]),
        "accelerator": kvm.domain_type(images.build()).replace("qemu", "tcg"),
    }
