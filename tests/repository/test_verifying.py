"""A verified point is good in every byte, and what is wrong with another is named."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.repository.disks import Points
from tests.repository.test_restoring import flip


def test_a_good_point_is_verified_with_all_it_inherits_from(chain: Points) -> None:
    result = chain.verify("p3", "bytes")["bytes"]

    assert result["ok"]
    assert result["files"] == 6
    assert result["faults"] == []


@pytest.mark.parametrize("point", ["p1", "p2", "p3"])
@pytest.mark.parametrize("file", ["vda.qcow2", "vda.blocks"])
def test_one_flipped_bit_is_found_and_its_file_is_named(chain: Points, point: str, file: str) -> None:
    path = chain.image(point).with_name(file)
    flip(path, at=path.stat().st_size // 2)

    result = chain.verify("p3", "bytes")["bytes"]

    assert not result["ok"]
    assert [(fault["folder"], fault["file"]) for fault in result["faults"]] == [(chain.folder(point), file)]


def test_a_truncated_file_is_found(chain: Points) -> None:
    os.truncate(chain.image("p1"), 100)

    assert [fault["file"] for fault in chain.verify("p3", "bytes")["bytes"]["faults"]] == ["vda.qcow2"]


def test_a_missing_parent_is_found(chain: Points) -> None:
    (chain.path / chain.folder("p1") / "manifest.json").unlink()

    assert [fault["folder"] for fault in chain.verify("p3", "bytes")["bytes"]["faults"]] == [chain.folder("p1")]


def test_stored_bytes_that_are_right_and_show_something_else_are_found(chain: Points, tmp_path: Path) -> None:
    """As if a wrong disk had been sealed: the checksums of the files cannot show it."""
    blocks = chain.image("p3").with_name("vda.blocks")
    flip(blocks, at=0)
    reseal(chain, "p3")

    assert not chain.verify("p3", "bytes")["bytes"]["ok"]


def reseal(points: Points, name: str) -> None:
    """Make the checksums of the stored bytes right again."""
    manifest = points.path / points.folder(name) / "manifest.json"
    document = json.loads(manifest.read_text())
    for file in document["files"]:
        file["sha256"] = hashlib.sha256((manifest.parent / file["name"]).read_bytes()).hexdigest()
    manifest.write_text(json.dumps(document))
