"""Tries on the overlays of a job what libvirt and QEMU will do with them, while nothing is frozen."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service import bounded_io
from service.disks.disk_user import DiskUser
from service.errors import LibvirtSeesOtherFiles, QemuCannotOpen, StillpointError
from service.hypervisor.guest import Guest
from service.hypervisor.qemu_process import Credentials
from service.hypervisor.security_labels import DAC
from service.model.host_trial import HostTrial, Tried
from service.model.intent import Overlay

OPENING_TIMEOUT_S = 20
"""Seconds for the program that opens the overlays as QEMU's user. After that the storage counts as not answering."""
_PROGRAM = Path(__file__).with_name("opened_as.py")


def must_work(guest: Guest, user: DiskUser, made: Sequence[Overlay]) -> None:
    """Raises the first reason why libvirt or QEMU would refuse the overlays."""
    trial = HostTrial()
    rehearse(guest, user, made, trial)
    if trial.first_fault is not None:
        raise trial.first_fault


def rehearse(guest: Guest, user: DiskUser, made: Sequence[Overlay], trial: HostTrial) -> None:
    _let_libvirt_look(guest, user, made, trial)
    if Tried.libvirt_files not in trial.faults:
        _open_as_qemu(user, made, trial)
    _ask_for_labels(user, trial)


def _let_libvirt_look(guest: Guest, user: DiskUser, made: Sequence[Overlay], trial: HostTrial) -> None:
    for overlay in _one_of_each_folder(made):
        number = guest.file_error(overlay.path)
        if number is None:
            trial.leave_open(Tried.libvirt_files, "libvirt cannot be asked whether it sees the overlays.")
            return
        fault = _unseen(guest, overlay, "libvirt", os.strerror(number)) if number else _seen_otherwise(guest, user, overlay)
        if fault is not None:
            trial.note(Tried.libvirt_files, fault)
            return
    trial.note(Tried.libvirt_files)


def _one_of_each_folder(made: Sequence[Overlay]) -> list[Overlay]:
    # One question for each folder, because libvirt writes a line into its log for each question.
    return list({Path(overlay.path).parent: overlay for overlay in made}.values())


def _seen_otherwise(guest: Guest, user: DiskUser, overlay: Overlay) -> StillpointError | None:
    """Whether a running QEMU sees another file under this name: QEMU may see other mounts than libvirt."""
    if user.process is None or user.root == "/":
        return None
    process = user.process
    try:
        qemu_file = bounded_io.call("looking, as QEMU, at", overlay.path, lambda: process.seen(overlay.path))
        own_file = bounded_io.call("looking at", overlay.path, Path(overlay.path).stat)
    except OSError as error:
        return _unseen(guest, overlay, "the domain's QEMU", bounded_io.reason_of(error))
    return None if os.path.samestat(qemu_file, own_file) else _unseen(guest, overlay, "the domain's QEMU", "another file has this name")


def _unseen(guest: Guest, overlay: Overlay, who: str, reason: str) -> LibvirtSeesOtherFiles:
    return LibvirtSeesOtherFiles(path=overlay.path, uri=guest.uri, who=who, reason=reason)


def _open_as_qemu(user: DiskUser, made: Sequence[Overlay], trial: HostTrial) -> None:
    if user.credentials is None:
        trial.leave_open(
            Tried.qemu_access, "libvirt does not say as which user QEMU runs: whether that user can open the overlays was not tried."
        )
        return
    files = [{"path": overlay.path, "lend": _will_be_given_away(user, overlay)} for overlay in made]
    answer = opened(user.credentials, user.root, files)
    if "untried" in answer:
        trial.leave_open(Tried.qemu_access, f"Whether {user.credentials} can open the overlays was not tried: {answer['untried']}.")
        return
    faults = [
        cannot_open(user.credentials, overlay.path, result)
        for overlay, result in zip(made, answer["files"], strict=True)
        if result["error"]
    ]
    # Most overlays are in the same folder, so the first fault usually explains the others.
    trial.note(Tried.qemu_access, *faults[:1])


def cannot_open(credentials: Credentials, path: str, result: dict[str, Any]) -> QemuCannotOpen:
    reason = os.strerror(result["error"])
    return QemuCannotOpen(user=str(credentials), uid=credentials.uid, path=path, at=bounded_io.printable(result["at"]), reason=reason)


def _will_be_given_away(user: DiskUser, overlay: Overlay) -> bool:
    """Whether libvirt will change the owner of the overlay.

    The overlay of a running disk in a file already has the owner that libvirt gave to that file.
    """
    return user.gives_files_away and not (user.is_running and not Path(overlay.base).is_block_device())


def opened(credentials: Credentials, root: str, files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The answer of the program `opened_as`. Raises StorageNotAnswering, StorageRefused, HostOutOfDescriptors."""
    task = json.dumps({**asdict(credentials), "root": root, "files": list(files)})
    path = str(files[0]["path"])
    # By its path and not as a module: the program needs nothing of the service, and starts faster without it.
    command = [sys.executable, "-I", "-S", str(_PROGRAM)]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, input=task, check=False, capture_output=True, text=True, errors="replace", timeout=OPENING_TIMEOUT_S)

    try:
        with bounded_io.refusals("trying to open, as QEMU's user,"):
            ended = bounded_io.call("trying to open, as QEMU's user,", path, run, OPENING_TIMEOUT_S + 2)
        answer: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        return {"untried": f"the program that opens the files ended with {ended.returncode}"}
    return answer


def _ask_for_labels(user: DiskUser, trial: HostTrial) -> None:
    fixed = [label.model for label in user.labels.values() if label.model != DAC and not label.relabels]
    if fixed:
        what = f"The definition fixes the {' and '.join(fixed)} label and forbids to relabel files: QEMU may fail to open the overlays."
        trial.leave_open(Tried.security_driver, what)
    else:
        trial.note(Tried.security_driver)
