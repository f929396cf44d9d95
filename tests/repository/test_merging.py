"""The files of a point are replaced by others in which its guest sees the same, whenever the hand is killed, on whatever filesystem."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from service.errors import CopyDiffers, PointDamaged, RepositoryBad, RepositoryFull, RepositoryUnusable
from service.model.manifest import Manifest
from service.repository import failures, replacing, signing, sweeping
from service.repository.evidence import check_folder, is_good
from service.repository.replacing import MERGED_PREFIX
from service.repository.report import Report
from tests.repository.disks import MIB
from tests.repository.filesystems import Freezable
from tests.repository.merges import HandMerge
from tests.repository.signed_chain import SignedChain
from tests.repository.test_killed import Killer

QUIET = Report()
MAX_RENAMES = 9
"""Renames of files and folders while a folder takes the place of another. With as many, nothing dies."""


@pytest.fixture
def chain(tmp_path: Path) -> SignedChain:
    return SignedChain.make(tmp_path, 4)


def merge_of(chain: SignedChain, heir: int, *going: int) -> HandMerge:
    return HandMerge(
        chain.repository(),
        chain.signing_key,
        chain.manifests[heir - 1],
        {chain.manifests[each - 1].folder: chain.manifests[each - 1].point_id for each in going},
    )


def are_good(chain: SignedChain, *numbers: int) -> bool:
    """Every stored byte, the structure, what the guest sees, and the signature; and nothing else lies there."""
    with chain.repository() as repository:
        for number in numbers:
            folder = chain.manifests[number - 1].folder
            seen = repository.call("verify_point", {"folder": folder, "checks": ["bytes", "structure"]})
            content = repository.point(folder).disks[0].content
            if not (seen["bytes"]["ok"] and seen["structure"]["ok"] and content == chain.manifests[number - 1].disks[0].content):
                return False
    return all(is_good(check_folder(chain.folder(number), None)) for number in numbers)


def names_in(chain: SignedChain) -> set[str]:
    return {each.name for each in chain.folder(1).parent.iterdir()}


# --- what the guest sees ----------------------------------------------------------------------------


@pytest.mark.parametrize(("heir", "going"), [(2, (1,)), (3, (2,)), (4, (2, 3)), (4, (1, 2, 3)), (3, (1, 2))])
def test_a_point_shows_the_same_after_it_took_over_others(chain: SignedChain, heir: int, going: tuple[int, ...]) -> None:
    merge = merge_of(chain, heir, *going)
    with merge.repository:
        new = merge.run()
        for each in sorted(going, reverse=True):
            assert merge.repository.remove_point(chain.manifests[each - 1].folder) > 0
    rest = [number for number in range(1, 5) if number not in going]
    assert are_good(chain, *rest)
    below = min(going) - 1
    assert new.parents == ((chain.manifests[below - 1].point_id,) if below else ())
    assert names_in(chain) == {f"p{number}" for number in rest}


def test_a_disk_that_was_smaller_in_between_does_not_show_what_lies_below(tmp_path: Path) -> None:
    """The middle point ends before the lowest one. The new image must hide the end of the lowest one."""
    chain = SignedChain.make(tmp_path, 0)
    chain.disk.write((1, 0, MIB), (2, 14 * MIB, 2 * MIB))
    chain.add("p1")
    smaller = tmp_path / "smaller.qcow2"
    chain.disk.path.rename(tmp_path / "larger.qcow2")
    chain.disk = type(chain.disk).make(smaller, 15 * MIB - 4096)
    chain.disk.write((3, 0, MIB))
    chain.add("p2")
    chain.disk.grow(17 * MIB)
    chain.disk.write((4, MIB, MIB))
    chain.add("p3")
    merge = merge_of(chain, 3, 2)
    with merge.repository:
        merge.run()
    assert are_good(chain, 1, 2, 3)


def test_zeroes_that_hid_what_lies_below_still_hide_it(tmp_path: Path) -> None:
    chain = SignedChain.make(tmp_path, 0)
    for number, writes in enumerate((((1, 0, 4 * MIB),), ((0, 0, MIB),), ((0, 2 * MIB, 65536),)), start=1):
        chain.disk.write(*writes)
        chain.add(f"p{number}")
    merge = merge_of(chain, 3, 2)
    with merge.repository:
        merge.run()
    assert are_good(chain, 1, 2, 3)


def test_a_large_file_that_stays_is_linked_and_a_small_one_is_copied(chain: SignedChain, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = chain.folder(2)
    before = {name: (folder / name).stat().st_ino for name in ("domain.xml", "vda.qcow2")}
    for limit, is_same in ((1 << 30, False), (1, True)):
        monkeypatch.setattr(replacing, "LINKED_FROM_BYTES", limit)
        replacing.begin_merge({"path": str(chain.root), "folder": chain.manifests[1].folder, "plan": {"limit": limit}}, QUIET)
        partial = f"{Path(chain.manifests[1].folder).parent}/{MERGED_PREFIX}p2"
        names = ["domain.xml", "vda.qcow2"]
        replacing.take_over({"path": str(chain.root), "folder": chain.manifests[1].folder, "partial": partial, "names": names}, QUIET)
        after = {name: (chain.root / partial / name).stat().st_ino for name in names}
        assert (after == before) is is_same


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [1, 2])
def test_damage_is_never_sealed_anew(chain: SignedChain, damaged: int) -> None:
    image = chain.folder(damaged) / "vda.qcow2"
    content = bytearray(image.read_bytes())
    content[-2 * MIB if damaged == 1 else -MIB] ^= 1
    image.write_bytes(content)
    merge = merge_of(chain, 2, 1)
    with merge.repository, pytest.raises(PointDamaged):
        merge.run()
    assert (chain.folder(2) / "manifest.json").read_bytes() == signing.canonical(chain.manifests[1])


def test_a_new_image_that_reads_back_otherwise_is_not_used(trial_steps: None, chain: SignedChain) -> None:
    """The storage keeps something else than what was written."""
    merge = merge_of(chain, 2, 1)
    with merge.repository:
        begun = merge.repository.call("begin_merge", {"id": merge.repository.id, "folder": merge.heir.folder, "plan": {}})
        with pytest.raises(CopyDiffers):
            merge.repository.call("merge_spoiled", {**merge.arguments(merge.heir.disks[0]), "partial": begun["partial"]})


def test_too_little_space_is_told_before_the_image_is_begun(tmp_path: Path, freezable_filesystem: Freezable) -> None:
    place = freezable_filesystem.place
    chain = SignedChain.make(tmp_path, 2, root=str(place.relative_to(tmp_path) / "repository"))
    merge = merge_of(chain, 2, 1)
    with merge.repository:
        begun = merge.repository.call("begin_merge", {"id": merge.repository.id, "folder": merge.heir.folder, "plan": {}})
        (place / "filled").write_bytes(bytes((failures.free_bytes(place) or 0) - MIB))
        with pytest.raises(RepositoryFull):
            merge.repository.call("merge_disk", {**merge.arguments(merge.heir.disks[0]), "partial": begun["partial"]})
    assert not (chain.root / begun["partial"] / "vda.qcow2").exists()


def test_what_is_needed_is_what_is_written_at_the_most(chain: SignedChain) -> None:
    merge = merge_of(chain, 4, 2, 3)
    with merge.repository:
        asked = {"folder": merge.heir.folder, "going": sorted(merge.going), "disks": [merge.arguments(merge.heir.disks[0])]}
        answer = merge.repository.call("measure_merge", asked)
        new = merge.run()
    written = sum(file.bytes for file in new.files if file.name.startswith("vda"))
    assert answer["joins"] == {"vda.qcow2": True}
    assert written <= answer["needed_bytes"] < written + MIB


def test_a_point_that_changed_meanwhile_is_not_replaced(chain: SignedChain) -> None:
    merge = merge_of(chain, 2, 1)
    with merge.repository:
        chain.sign_again(2, labels={"changed": "by another"})
        with pytest.raises(RepositoryBad):
            merge.run()
    assert (chain.folder(2) / "vda.qcow2").exists()


# --- the exchange -----------------------------------------------------------------------------------


def cannot_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(replacing, "exchange", refuse)


class Dies(BaseException):
    """The process is no more."""


def renames_before_death(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The process dies before the next rename, or the next exchange."""
    left, real, real_exchange = [count], os.rename, replacing.exchange

    def counted() -> None:
        if left[0] == 0:
            raise Dies
        left[0] -= 1

    def rename(*arguments: object, **options: object) -> None:
        counted()
        real(*arguments, **options)  # type: ignore[arg-type]

    def exchange(parent: int, one: str, other: str) -> None:
        counted()
        real_exchange(parent, one, other)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(replacing, "exchange", exchange)


def ready(chain: SignedChain) -> tuple[dict[str, str], Manifest]:
    """Everything is written. Only the exchange is left, which a test does in its own process: its arguments, and the new manifest."""
    merge, asked, new = merge_of(chain, 2, 1), dict[str, str](), list[Manifest]()

    def put_in_place(partial: str, manifest: Manifest, _key: object, *, replaces: str) -> str:
        text = signing.canonical(manifest)
        places = {"path": str(chain.root), "partial": partial, "folder": manifest.folder, "replaces": replaces}
        asked.update(places, manifest=text.decode(), signature=chain.signing_key.sign(text))
        new.append(manifest)
        return ""

    merge.repository.put_in_place = put_in_place  # type: ignore[method-assign, assignment]
    with merge.repository:
        merge.run()
    return asked, new[0]


@pytest.mark.parametrize("can", [True, False], ids=["exchanges", "sets-aside"])
def test_a_folder_takes_the_place_of_another_with_or_without_an_exchange(
    chain: SignedChain, monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    asked, _ = ready(chain)
    if not can:
        cannot_exchange(monkeypatch)
    for _ in range(2):
        # The second time everything is done already.
        replacing.put_in_place(dict(asked), QUIET)
    assert names_in(chain) == {"p1", "p2", "p3", "p4"}
    assert are_good(chain, 1, 2, 3, 4)


@pytest.mark.parametrize("can", [True, False], ids=["exchanges", "sets-aside"])
def test_a_process_that_dies_between_two_renames_leaves_the_old_point_or_the_new_one(
    chain: SignedChain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, can: bool
) -> None:
    """At each instant. The next merge or the next sweep finishes what was begun, or takes it back."""
    asked, new = ready(chain)
    if not can:
        cannot_exchange(monkeypatch)
    shutil.copytree(chain.root, tmp_path / "before")
    for count in range(MAX_RENAMES):
        shutil.rmtree(chain.root)
        shutil.copytree(tmp_path / "before", chain.root)
        with monkeypatch.context() as dying:
            renames_before_death(dying, count)
            with suppress(Dies):
                replacing.put_in_place(dict(asked), QUIET)
        sweeping.sweep({"path": str(chain.root), "keep": [], "stale_s": -1}, QUIET)
        with chain.repository() as repository:
            assert signing.canonical(repository.point(new.folder)) in [signing.canonical(each) for each in (chain.manifests[1], new)]
        assert names_in(chain) <= {"p1", "p2", "p3", "p4", f"{MERGED_PREFIX}p2"}
        again = merge_of(chain, 2, 1)
        with again.repository:
            again.run()
        assert names_in(chain) == {"p1", "p2", "p3", "p4"}
        assert are_good(chain, 1, 2, 3, 4)


@pytest.mark.parametrize("start_ms", [0, 3])
def test_a_merge_becomes_whole_however_often_its_hand_is_killed(chain: SignedChain, start_ms: int) -> None:
    merge = merge_of(chain, 2, 1)
    killer, attempts, new = Killer(merge.repository), 0, None
    with merge.repository:
        while new is None:
            # Otherwise there would be no process to kill yet.
            merge.repository.look()
            timer = killer.after(start_ms / 1000 + attempts * 0.02)
            attempts += 1
            with suppress(RepositoryUnusable):
                new = merge.run()
            timer.cancel()
            timer.join()
            assert attempts < 200
        assert killer.killed > 0
        merge.repository.remove_point(chain.manifests[0].folder)
    assert are_good(chain, 2, 3, 4)
    assert names_in(chain) == {"p2", "p3", "p4"}
