"""Tests and functions that the documentation names are there, and go together."""

import ast
import functools
import pkgutil
import re
from pathlib import Path

ROW = re.compile(r"^\|.*\| `(versatune\.[\w.]+)` \|.*\| `(test_\w+)` \|$", re.MULTILINE)
"""A row of the map in docs/equations.md, from formulas to functions and tests."""


@functools.cache
def sources(root: Path) -> dict[str, str]:
    """The source of each test by name; several tests of one name are joined."""
    found: dict[str, str] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                source = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                found[node.name] = found.get(node.name, "") + source
    return found


def unknown(text: str, root: Path) -> list[str]:
    """Names of tests and of their files in ``text`` that are not in the project."""
    known = sources(root).keys() | {p.stem for p in (root / "tests").rglob("test_*.py")}
    named = set(re.findall(r"\btest_\w+", text)) - known
    return sorted(named)


def test_every_test_that_is_named_is_there(project_root: Path) -> None:
    pages = [project_root / "README.md", *sorted((project_root / "docs").glob("*.md"))]
    for page in pages:
        assert unknown(page.read_text(encoding="utf-8"), project_root) == [], page.name
    assert unknown("see `test_that_nobody_wrote`", project_root) == ["test_that_nobody_wrote"]


def test_the_map_of_formulas_leads_to_functions_and_to_tests_of_them(project_root: Path) -> None:
    rows = ROW.findall((project_root / "docs" / "equations.md").read_text(encoding="utf-8"))
    assert len(rows) >= 9
    tests = sources(project_root)
    for function, test in rows:
        assert (pkgutil.resolve_name(function).__doc__ or "").strip(), function
        assert function.rsplit(".", 1)[1] + "(" in tests[test], f"{test} does not call {function}"
