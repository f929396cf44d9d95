"""`stillpoint evidence verify` finds each way in which a sealed point is not what was sealed, with nothing but the folder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from service.repository import hand_start
from service.repository.evidence import Finding, Subject, check_folder, is_good
from service.repository.keys import Key
from service.repository.signing import SigningKey
from tests.repository.damages import becomes_a_folder, becomes_a_link, flips_a_bit, is_cut
from tests.repository.disks import named, qemu
from tests.repository.signed_chain import SignedChain

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> SignedChain:
    return SignedChain.make(tmp_path_factory.mktemp("chain"), 3, root="a repository, with: odd\nname")


@pytest.fixture
def chain(pristine: SignedChain, tmp_path: Path) -> SignedChain:
    """Three points that the test may damage."""
    root = tmp_path / "copy" / pristine.root.name
    shutil.copytree(pristine.root, root, symlinks=True)
    return replace(pristine, root=root)


def _bad(findings: list[Finding]) -> set[tuple[Subject, str]]:
    """The subjects of what is bad, each with the last part of its place."""
    return {(finding.subject, Path(finding.place).name) for finding in findings if finding.is_good is False}


def test_a_good_point_is_good_with_all_it_inherits_from(chain: SignedChain) -> None:
    findings = check_folder(chain.folder(3), None)
    assert _bad(findings) == set()
    assert is_good(findings)
    for number in (1, 2, 3):
        for subject, name in ((Subject.manifest, "manifest.json"), (Subject.signature, "manifest.sig"), (Subject.image, "vda.qcow2")):
            (finding,) = (
                each for each in findings if each.subject is subject and each.place == f"{chain.manifests[number - 1].folder}/{name}"
            )
            assert finding.is_good
    (content,) = (finding for finding in findings if finding.subject is Subject.content)
    assert content.is_good


def test_a_point_needs_none_that_came_later(chain: SignedChain) -> None:
    shutil.rmtree(chain.folder(3))
    flips_a_bit(chain.folder(2) / "vda.qcow2", 70_000)
    assert is_good(check_folder(chain.folder(1), None))


DAMAGES: dict[str, tuple[Callable[[SignedChain], object], set[tuple[Subject, str]]]] = {
    "a bit of the image": (lambda chain: flips_a_bit(chain.folder(3) / "vda.qcow2", 400_000), {(Subject.content, "vda.qcow2")}),
    "a bit of an image below": (lambda chain: flips_a_bit(chain.folder(1) / "vda.qcow2", 400_000), {(Subject.content, "vda.qcow2")}),
    "a bit of the digests": (lambda chain: flips_a_bit(chain.folder(2) / "vda.blocks", 40), {(Subject.content, "vda.blocks")}),
    "a bit of the definition": (lambda chain: flips_a_bit(chain.folder(2) / "domain.xml", 3), {(Subject.content, "domain.xml")}),
    "an image that is cut": (lambda chain: is_cut(chain.folder(2) / "vda.qcow2"), {(Subject.files, "vda.qcow2")}),
    "a file that is missing": (lambda chain: (chain.folder(3) / "domain.xml").unlink(), {(Subject.files, "domain.xml")}),
    "an image that is missing below": (lambda chain: (chain.folder(1) / "vda.qcow2").unlink(), {(Subject.files, "vda.qcow2")}),
    "a file that nobody sealed": (lambda chain: (chain.folder(2) / "extra").touch(), {(Subject.files, "extra")}),
    "a mark of an unfinished point": (lambda chain: (chain.folder(3) / "partial.json").touch(), {(Subject.files, "partial.json")}),
    "a link in the folder": (lambda chain: (chain.folder(3) / "extra").symlink_to("/etc/passwd"), {(Subject.files, "p3")}),
    "an image that became a link": (
        lambda chain: becomes_a_link(chain.folder(3) / "vda.qcow2"),
        {(Subject.files, "p3"), (Subject.image, "vda.qcow2"), (Subject.files, "vda.qcow2")},
    ),
    "a parent that became a link": (
        lambda chain: becomes_a_link(chain.folder(1)),
        {(Subject.manifest, "manifest.json"), (Subject.parent, "p1")},
    ),
    "a parent that is missing": (
        lambda chain: shutil.rmtree(chain.folder(1)),
        {(Subject.manifest, "manifest.json"), (Subject.parent, "p1")},
    ),
    "a manifest that is missing": (
        lambda chain: (chain.folder(3) / "manifest.json").unlink(),
        {(Subject.manifest, "manifest.json")},
    ),
    "a manifest that is a folder": (
        lambda chain: becomes_a_folder(chain.folder(3) / "manifest.json"),
        {(Subject.manifest, "manifest.json")},
    ),
    "a manifest that was changed": (
        lambda chain: chain.change_manifest(3, verdict="application"),
        {(Subject.signature, "manifest.sig")},
    ),
    "a manifest below that was changed": (
        lambda chain: chain.change_manifest(1, verdict="application"),
        {(Subject.signature, "manifest.sig")},
    ),
    "a manifest in another form": (
        lambda chain: (chain.folder(3) / "manifest.json").write_text(
            json.dumps(json.loads((chain.folder(3) / "manifest.json").read_text()), indent=1)
        ),
        {(Subject.manifest, "manifest.json"), (Subject.signature, "manifest.sig")},
    ),
    "a signature that is missing": (lambda chain: (chain.folder(3) / "manifest.sig").unlink(), {(Subject.signature, "manifest.sig")}),
    "a signature of another point": (
        lambda chain: shutil.copy(chain.folder(2) / "manifest.sig", chain.folder(3) / "manifest.sig"),
        {(Subject.signature, "manifest.sig")},
    ),
    "an older point in the place of a newer": (
        lambda chain: chain.put_in_the_place_of(3, 2),
        {(Subject.place, "p3")},
    ),
    "another point in the place of a parent": (
        lambda chain: chain.put_in_the_place_of(2, 1),
        {(Subject.place, "p2"), (Subject.parent, "p2")},
    ),
    "another repository": (
        lambda chain: (chain.root / "repository.json").write_text('{"format":"stillpoint-repository","version":1,"id":"other"}'),
        {(Subject.place, "p1"), (Subject.place, "p2"), (Subject.place, "p3")},
    ),
    "a parent with another id": (
        lambda chain: chain.sign_again(1, point_id="another"),
        {(Subject.parent, "p1")},
    ),
    "an image that names another one below": (
        lambda chain: qemu("qemu-img", "rebase", "-u", "-F", "qcow2", "-b", "../p1/vda.qcow2", named(chain.folder(3) / "vda.qcow2")),
        {(Subject.image, "vda.qcow2"), (Subject.files, "vda.qcow2")},
    ),
    "an image that names a file of the host below": (
        lambda chain: qemu("qemu-img", "rebase", "-u", "-F", "raw", "-b", "/etc/shadow", named(chain.folder(3) / "vda.qcow2")),
        {(Subject.image, "vda.qcow2"), (Subject.files, "vda.qcow2")},
    ),
    "an image without the one below": (
        lambda chain: qemu("qemu-img", "rebase", "-u", "-b", "", named(chain.folder(3) / "vda.qcow2")),
        {(Subject.image, "vda.qcow2"), (Subject.files, "vda.qcow2")},
    ),
    "an image that is not one": (
        lambda chain: (chain.folder(3) / "vda.qcow2").write_text("text"),
        {(Subject.image, "vda.qcow2"), (Subject.files, "vda.qcow2")},
    ),
    "a manifest that says another size of the disk": (
        lambda chain: chain.sign_again(3, disks=(replace(chain.manifests[2].disks[0], virtual_size=1 << 30),)),
        {(Subject.image, "vda.qcow2")},
    ),
    "a manifest that says another content": (
        lambda chain: chain.sign_again(3, disks=(replace(chain.manifests[2].disks[0], content="0" * 64),)),
        {(Subject.content, "vda.blocks")},
    ),
    "a manifest without the checksum of an image": (
        lambda chain: chain.sign_again(3, files=chain.manifests[2].files[:1]),
        {(Subject.files, "vda.qcow2"), (Subject.files, "vda.blocks")},
    ),
    "a manifest that names a file outside": (
        lambda chain: chain.sign_again(
            3, files=(*chain.manifests[2].files, replace(chain.manifests[2].files[0], name="../../../repository.json"))
        ),
        {(Subject.files, "repository.json")},
    ),
    "a parent outside the repository": (
        lambda chain: chain.sign_again(3, disks=(replace(chain.manifests[2].disks[0], parent_folder="../../elsewhere"),)),
        {(Subject.manifest, "manifest.json"), (Subject.parent, "elsewhere"), (Subject.image, "vda.qcow2")},
    ),
}


@pytest.mark.parametrize(("damage", "bad"), DAMAGES.values(), ids=DAMAGES)
def test_each_damage_is_found_and_named(chain: SignedChain, damage: Callable[[SignedChain], object], bad: set[tuple[Subject, str]]) -> None:
    damage(chain)
    findings = check_folder(chain.folder(3), None)
    assert _bad(findings) == bad
    assert not is_good(findings)


def test_points_that_are_each_others_parents_end_the_look(chain: SignedChain) -> None:
    point = chain.manifests[2]
    chain.sign_again(1, disks=(replace(chain.manifests[0].disks[0], parent=point.point_id, parent_folder=point.folder),))
    assert not is_good(check_folder(chain.folder(3), None))


@pytest.mark.parametrize("is_trusted", [True, False])
def test_only_a_trusted_key_may_have_signed_where_one_is_named(chain: SignedChain, tmp_path: Path, is_trusted: bool) -> None:
    key = chain.signing_key if is_trusted else SigningKey.of_service(tmp_path / "other")
    findings = check_folder(chain.folder(1), None, trusted={key.id: key.public})
    assert _bad(findings) == (set() if is_trusted else {(Subject.signature, "manifest.sig")})


def test_a_point_that_was_signed_again_by_another_key_is_found_if_the_key_is_named(chain: SignedChain, tmp_path: Path) -> None:
    chain.sign_again(1, SigningKey.of_service(tmp_path / "other"), verdict="application")
    assert is_good(check_folder(chain.folder(1), None))
    trusted = {chain.signing_key.id: chain.signing_key.public}
    assert _bad(check_folder(chain.folder(1), None, trusted=trusted)) == {(Subject.signature, "manifest.sig")}


def test_points_that_were_copied_out_of_their_repository_are_checked_without_it(chain: SignedChain) -> None:
    (chain.root / "repository.json").unlink()
    shutil.rmtree(chain.root / "keys")
    findings = check_folder(chain.folder(3), None)
    assert is_good(findings)
    assert [finding.place for finding in findings if finding.is_good is None] == ["repository.json"]


def test_the_folder_may_be_given_in_any_way(chain: SignedChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain.folder(3))
    assert is_good(check_folder(Path(), None))
    assert is_good(check_folder(Path("../p3/"), None))


@pytest.mark.parametrize("folder", ["/", "/tmp", "domains", "."])
def test_a_folder_that_is_not_a_point_is_bad(chain: SignedChain, folder: str) -> None:
    assert not is_good(check_folder(chain.root / folder, None))


def test_without_libnbd_the_stored_bytes_are_checked(chain: SignedChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_start, "interpreter", lambda: sys.executable)
    findings = check_folder(chain.folder(3), None)
    assert is_good(findings)
    assert [finding.subject for finding in findings if finding.is_good is None] == [Subject.content]
    assert sum(finding.subject is Subject.files and finding.is_good is True for finding in findings) == 9


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> SignedChain:
    folder = tmp_path_factory.mktemp("encrypted")
    (folder / "key").write_text("a passphrase")
    return SignedChain.make(folder, 2, key=Key(f"file:{folder}/key"))


class TestEncrypted:
    def test_without_the_key_every_stored_byte_is_checked_and_the_content_is_not(self, encrypted: SignedChain) -> None:
        findings = check_folder(encrypted.folder(2), None)
        assert is_good(findings)
        assert [finding.subject for finding in findings if finding.is_good is None] == [Subject.content]

    def test_with_the_key_the_content_is_checked(self, encrypted: SignedChain) -> None:
        findings = check_folder(encrypted.folder(2), encrypted.key)
        assert is_good(findings)
        assert [finding.is_good for finding in findings if finding.subject is Subject.content] == [True]

    def test_with_a_wrong_key_the_content_is_not_good(self, encrypted: SignedChain, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("another passphrase")
        assert not is_good(check_folder(encrypted.folder(2), Key(f"file:{tmp_path}/key")))

    def test_a_flipped_bit_is_found_without_the_key(self, encrypted: SignedChain, tmp_path: Path) -> None:
        shutil.copytree(encrypted.root, tmp_path / "r")
        folder = replace(encrypted, root=tmp_path / "r").folder(2)
        flips_a_bit(folder / "vda.qcow2", (folder / "vda.qcow2").stat().st_size - 1)
        assert _bad(check_folder(folder, None)) == {(Subject.files, "vda.qcow2")}


class TestCommand:
    def _run(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """In an environment without any setting, so without a database and a service."""
        command = [sys.executable, "-m", "service.cli", "evidence", "verify", *map(str, arguments)]
        environment = {"PATH": os.environ["PATH"], "STILLPOINT_STATE_DIR": "/nowhere", "STILLPOINT_DATABASE_URL": "postgresql://nowhere/"}
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)

    def test_a_good_point_ends_with_0_and_shows_each_finding(self, chain: SignedChain) -> None:
        ended = self._run(chain.folder(3), "--json")
        assert ended.returncode == 0, ended.stderr
        findings = [json.loads(line) for line in ended.stdout.splitlines()]
        assert {finding["subject"] for finding in findings} == {subject.value for subject in Subject}
        assert all(finding["is_good"] for finding in findings)

    def test_the_key_that_signed_is_named_for_each_point_and_the_end_names_it_until_it_is_trusted(self, chain: SignedChain) -> None:
        findings = check_folder(chain.folder(3), None)
        signed = [finding.key_id for finding in findings if finding.subject is Subject.signature]
        assert signed == [chain.signing_key.id] * 3
        trusted = self._run(chain.folder(3), "--trust", chain.root / "keys" / f"{chain.signing_key.id}.pub")
        assert (chain.signing_key.id in self._run(chain.folder(3)).stderr, chain.signing_key.id in trusted.stderr) == (True, False)

    def test_a_bad_point_ends_with_1_and_names_the_file(self, chain: SignedChain) -> None:
        flips_a_bit(chain.folder(1) / "domain.xml", 3)
        ended = self._run(chain.folder(3))
        assert ended.returncode == 1
        assert f"{chain.manifests[0].folder}/domain.xml" in ended.stdout

    def test_the_key_that_is_trusted_is_a_file_of_the_repository(self, chain: SignedChain, tmp_path: Path) -> None:
        assert self._run(chain.folder(1), "--trust", chain.root / "keys" / f"{chain.signing_key.id}.pub").returncode == 0
        (tmp_path / "other.pub").write_text(SigningKey.of_service(tmp_path).public_text)
        assert self._run(chain.folder(1), "--trust", tmp_path / "other.pub").returncode == 1
        assert self._run(chain.folder(1), "--trust", tmp_path / "absent.pub").returncode == 2

    def test_a_key_reference_of_another_form_is_an_error(self, chain: SignedChain) -> None:
        assert self._run(chain.folder(1), "--key", "the key itself").returncode == 1
