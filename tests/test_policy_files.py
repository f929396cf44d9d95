"""Policies in files: what is read, and where a fault is said to be."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.errors import NoPolicyInFiles, PolicyFilesInvalid, PolicyFileUnreadable, StillpointError
from service.model.backup_policy import BackupPolicy
from service.policy_files import WrittenPolicy, read_files
from tests.model.written_policies import EVERYTHING, a_policy

ONE = """\
name: {name}
selector: {{names: [{pattern}]}}
tracks:
  - name: nightly
    job: {{kind: backup, repository: main, freeze: {{mode: {mode}}}}}
    schedule: {{cron: "0 2 * * *", time_zone: Europe/Berlin}}
blackouts:
  - {{from: {begin}, to: "06:00", time_zone: UTC}}
"""


def one(name: str = "production", pattern: str = "db-*", mode: str = '"off"', begin: str = '"18:00"') -> str:
    return ONE.format(name=name, pattern=pattern, mode=mode, begin=begin)


def read(folder: Path, text: str | bytes) -> list[WrittenPolicy]:
    file = folder / "policies.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_files([str(file)])


def faults(folder: Path, text: str) -> list[tuple[str, str]]:
    with pytest.raises(PolicyFilesInvalid) as refused:
        read(folder, text)
    lines = refused.value.facts["lines"].splitlines()
    assert refused.value.facts["count"] == len(lines)
    return [(line.split(": ", 1)[0].rpartition(":")[2], line.split(": ", 1)[1].split()[0]) for line in lines]


def test_a_file_has_one_or_many_policies_and_empty_documents_do_not_count(tmp_path: Path) -> None:
    text = f"---\n{one('a')}---\n# nothing here\n---\n{one('b')}"
    found = read(tmp_path, text)
    assert [(each.policy.name, each.where.rpartition(":")[2]) for each in found] == [("a", "2"), ("b", "13")]


def test_everything_that_a_policy_can_say_is_read_from_yaml_and_from_json(tmp_path: Path) -> None:
    for text in (yaml.safe_dump(EVERYTHING), json.dumps(EVERYTHING), "\ufeff" + json.dumps(EVERYTHING, indent=2)):
        (found,) = read(tmp_path, text)
        assert found.policy == BackupPolicy.from_document(EVERYTHING)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for file, name in (("b.yml", "second"), ("a.yaml", "first"), ("c.txt", "other")):
        (tmp_path / file).write_text(one(name))
    assert [each.policy.name for each in read_files([str(tmp_path)])] == ["first", "second"]


def test_parts_can_be_shared_by_anchors_within_a_document(tmp_path: Path) -> None:
    job = "{kind: backup, repository: main}"
    tracks = f"- {{name: a, job: &job {job}, schedule: &at {{cron: '0 2 * * *', time_zone: UTC}}}}"
    other = "- {name: b, job: {<<: *job, level: full}, schedule: {<<: *at, cron: '0 3 * * 0', jitter_s: 60}}"
    (found,) = read(tmp_path, f"name: p\nselector: {{all_the_rest: true}}\ntracks:\n  {tracks}\n  {other}\n")
    assert [track.schedule.cron for track in found.policy.tracks] == ["0 2 * * *", "0 3 * * 0"]


@pytest.mark.parametrize(
    ("more", "line", "path"),
    [
        ({"mode": "off"}, "5", "tracks[0].job.freeze.mode"),
        ({"begin": "18:00"}, "8", "blackouts[0].from"),
        ({"name": "2026"}, "1", "name"),
        ({"name": "2026-01-31"}, "1", "name"),
        ({"name": "yes"}, "1", "name"),
        ({"pattern": "1e3"}, "0", ""),
    ],
)
def test_a_text_that_yaml_reads_otherwise_is_a_fault_that_says_to_quote(tmp_path: Path, more: dict[str, str], line: str, path: str) -> None:
    if not path:
        assert read(tmp_path, one(**more))[0].policy.selector.names == ("1e3",)
        return
    assert faults(tmp_path, one(**more)) == [(line, path)]
    quoted = {name: f'"{value}"' for name, value in more.items()}
    assert len(read(tmp_path, one(**quoted))) == 1


def test_all_faults_of_all_documents_come_with_their_lines(tmp_path: Path) -> None:
    text = f"{one('a').replace('repository', 'repositry')}---\n{one('b').replace('selector', 'selectr')}"
    assert faults(tmp_path, text) == [
        ("5", "tracks[0].job.repositry"),
        ("5", "tracks[0].job.repository"),
        ("11", "selectr"),
        ("10", "selector"),
    ]


def test_a_name_stands_in_one_document_only(tmp_path: Path) -> None:
    assert faults(tmp_path, f"{one('a')}---\n{one('a')}") == [("10", "name")]


@pytest.mark.parametrize("key", ["name: other\n", '"name": other\n', "'name': other\n"])
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(PolicyFileUnreadable) as refused:
        read(tmp_path, one() + key)
    assert refused.value.facts["file"].endswith(":9")


@pytest.mark.parametrize(
    "text",
    [
        "names: [*db]",
        "cron: @daily",
        "cron: * * * * *",
        "a: [",
        "a: b: c",
        "\ta: 1",
        "a: !!python/object/apply:os.system ['true']",
        "a: 2026-99-99",
        "? [a]\n: b",
        "[" * 5_000,
        b"\xff\xfe\xfd",
        "a: \x01",
        "{" * 3_000 + "}" * 3_000,
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_file(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises((PolicyFileUnreadable, PolicyFilesInvalid)) as refused:
        read(tmp_path, text)
    assert "policies.yaml" in refused.value.detail


def test_references_that_grow_without_end_cost_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    with pytest.raises(PolicyFilesInvalid):
        read(tmp_path, "\n".join([*lines, "name: *a29", "selector: {names: *a29, labels: &l {a: *l}}"]))


@pytest.mark.parametrize("text", ["", "---\n---\n", "# nothing\n"])
def test_files_without_a_policy_are_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(NoPolicyInFiles):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileUnreadable):
        read_files([str(tmp_path / "gone.yaml")])


@pytest.mark.parametrize("document", [7, "text", [a_policy()], True])
def test_a_document_that_is_not_an_object_is_a_fault(tmp_path: Path, document: Any) -> None:
    with pytest.raises(StillpointError) as refused:
        read(tmp_path, yaml.safe_dump(document))
    assert refused.value.code == "policy_files_invalid"
