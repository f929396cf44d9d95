"""Policies in files: YAML with one or many documents. Each fault is told with its file and line.

Nothing but plain data is read (`yaml.safe_load` knows no other). A key that stands twice in an object is a fault, not the last one.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from service.errors import FieldRepeated, NoPolicyInFiles, PolicyFilesInvalid, PolicyFileUnreadable, PolicyInvalid, StillpointError
from service.model.backup_policy import BackupPolicy
from service.model.document_fields import shown

STDIN = "-"
SUFFIXES = (".yaml", ".yml")
"""Files that are read of a folder. JSON is YAML, too, and is read where its file is named."""
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


@dataclass(frozen=True)
class WrittenPolicy:
    """`where`: the file and the line. `says_paused`: the document has the field. Without it a policy on record stays as it is."""

    where: str
    policy: BackupPolicy
    says_paused: bool = False

    def canonical(self) -> dict[str, Any]:
        document = self.policy.as_document()
        return document if self.says_paused else {**document, "paused": None}


def read_files(paths: Sequence[str]) -> list[WrittenPolicy]:
    """All files, in order. Raises PolicyFileUnreadable, NoPolicyInFiles, and PolicyFilesInvalid with all faults of all documents."""
    written: list[WrittenPolicy] = []
    faults: list[tuple[str, StillpointError]] = []
    for name, text in _texts(paths):
        for node, document in _documents(name, text):
            where = f"{name}:{node.start_mark.line + 1}"
            try:
                policy = BackupPolicy.from_document(document)
            except PolicyInvalid as invalid:
                faults += [(f"{name}:{line_of(node, fault.facts['path'])}", fault) for fault in invalid.faults]
                continue
            earlier = next((each.where for each in written if each.policy.name == policy.name), None)
            if earlier is not None:
                faults.append((where, FieldRepeated(path="name", value=f"{shown(policy.name)}, as in {earlier}")))
            written.append(WrittenPolicy(where, policy, document.get("paused") is not None))
    if faults:
        raise PolicyFilesInvalid(faults)
    if not written:
        raise NoPolicyInFiles(files=", ".join(paths))
    return written


# --- files ----------------------------------------------------------------------------------------


def _texts(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in paths:
        if name == STDIN:
            yield "stdin", _read("stdin", sys.stdin.buffer.read)
            continue
        path = Path(name)
        for file in _of_folder(path) if path.is_dir() else [path]:
            yield str(file), _read(str(file), file.read_bytes)


def _of_folder(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    except OSError as error:
        raise PolicyFileUnreadable(file=str(folder), reason=error.strerror or str(error)) from error


def _read(name: str, read: Any) -> str:
    try:
        content: bytes = read()
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise PolicyFileUnreadable(file=name, reason=reason) from error


# --- YAML -----------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml comes without types
    def compose_mapping_node(self, anchor: Any) -> Any:
        """Before anything is merged into the mapping: a key that also comes from `<<` is not a repetition."""
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {shown(key.value)} stands there twice", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return node


def _documents(name: str, text: str) -> Iterator[tuple[Any, Any]]:
    """Each with the node that it was made from. Empty documents are left out."""
    try:
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                document = loader.construct_document(node)
                if document is not None:
                    yield node, document
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise PolicyFileUnreadable(file=where, reason=error.problem or error.context or "it is not YAML") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A date such as 2026-99-99 is a ValueError.
        reason = "it nests too deep" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise PolicyFileUnreadable(file=name, reason=reason) from error


def line_of(node: Any, path: str) -> int:
    """The line of the field, or of what is around it if the field is missing. The first line of a file is 1."""
    line: int = node.start_mark.line
    for index, key in _STEP.findall(path):
        at = None
        if isinstance(node, yaml.SequenceNode) and index and int(index) < len(node.value):
            node = at = node.value[int(index)]
        elif isinstance(node, yaml.MappingNode) and key:
            at, node = next(((name, value) for name, value in node.value if name.value == key), (None, node))
        if at is None:
            break
        line = at.start_mark.line
    return line + 1
