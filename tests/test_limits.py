"""What the house style says in numbers, and what keeps kinds of jobs apart."""

import ast
import inspect
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import service
from service.app import handlers
from service.config import Settings

SERVICE = Path(service.__file__).parent
MAX_LINES_OF_FILE = 350
MAX_LINES_OF_FUNCTION = 40

Function = ast.FunctionDef | ast.AsyncFunctionDef


def too_long(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function) and (lines := lines_of(node)) > MAX_LINES_OF_FUNCTION:
            yield f"{node.name}: {lines} lines"


def lines_of(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_a_function_of_one_line_too_many_is_seen(keyword: str) -> None:
    body = "    pass\n" * (MAX_LINES_OF_FUNCTION - 1)
    assert not list(too_long(f"{keyword} f():\n{body}"))
    assert list(too_long(f"{keyword} f():\n{body}    pass\n"))


def test_every_function_fits_on_a_screen() -> None:
    found = {str(path.relative_to(SERVICE)): list(too_long(path.read_text())) for path in SERVICE.rglob("*.py")}
    assert {file: functions for file, functions in found.items() if functions} == {}


def test_every_file_fits_in_a_head() -> None:
    lines = {str(path.relative_to(SERVICE)): len(path.read_text().splitlines()) for path in SERVICE.rglob("*.py")}
    assert {file: count for file, count in lines.items() if count > MAX_LINES_OF_FILE} == {}


def test_no_kind_is_taken_for_a_part_that_kinds_share(tmp_path: Path) -> None:
    """The contract leaves shared parts out by their names: there a kind would be free to import another one."""
    contracts = tomllib.loads((SERVICE.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (kinds,) = (contract for contract in contracts if contract["type"] == "independence")
    left_out = {line.split(" -> ")[1] for line in kinds["ignore_imports"]}
    modules = {inspect.getmodule(type(handler)) for handler in handlers(Settings(state_dir=tmp_path)).values()}
    assert None not in modules
    assert not left_out & {module.__name__ for module in modules if module is not None}
