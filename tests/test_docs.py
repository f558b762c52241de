"""The guides name files, functions and targets that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md")])
NAMED = re.compile(r"`((?:qtopt|robot_bridge|sim)/[\w/]+\.py)`:\s+`([\w.]+)`")
FILE = re.compile(r"`((?:qtopt|robot_bridge|sim|tests|deploy|docs|protos|benchmarks)/[\w/.-]+\.\w+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def names_in(path):
    """Returns the functions and classes of a file, methods as Class.method, and its module-level constants."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            names.update(f"{node.name}.{each.name}" for each in inner)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        if isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_named_functions_exist(guide):
    missing = [
        f"{file}: {name}"
        for file, name in NAMED.findall(guide.read_text())
        if not (ROOT / file).is_file() or name not in names_in(ROOT / file)
    ]
    assert missing == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_named_files_and_links_exist(guide):
    text = guide.read_text()
    missing = [file for file in FILE.findall(text) if not (ROOT / file).exists()]
    missing += [link for link in LINK.findall(text) if not (guide.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_make_targets_exist(guide):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)\b(?=[`\s]*(?:#|$|`))", guide.read_text(), re.MULTILINE)) <= targets


def test_quoted_messages_are_in_the_code():
    literals = {
        node.value
        for package in ("qtopt", "robot_bridge", "sim")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    rows = re.findall(r"^\| [`*](.+?)[`*][^|]* \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    pieces = [piece.strip() for row in rows for piece in row.split("…") if piece.strip()]
    elsewhere = {
        "Building wheel for pybullet",
        "nvidia-",
        "ensurepip is not available",
        "Unexpected keyword argument",
    }
    unknown = [piece for piece in pieces if piece not in elsewhere and not any(piece in each for each in literals)]
    assert len(pieces) > 20
    assert unknown == []
