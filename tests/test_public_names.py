"""The tree as a whole: modules import, exports exist, files stay small, nothing private leaks in."""

import ast
import importlib
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest

import qtopt
import robot_bridge
import sim

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "qtopt/rpc/gen/"
PACKAGES = (qtopt, robot_bridge, sim)
MAX_LINES = 400
UNSAFE_MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"}


def module_names():
    """Returns the name of every module of the three packages, generated code and ``__main__`` left out."""
    names = [package.__name__ for package in PACKAGES]
    for package in PACKAGES:
        names += [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [name for name in names if ".gen" not in name and not name.endswith("__main__")]


def tracked(*patterns):
    """Returns the files under version control that match, as paths relative to the root."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listing.stdout.decode().split("\0") if name]
    return [ROOT / name for name in names if not name.startswith(GENERATED) and (ROOT / name).is_file()]


@pytest.mark.parametrize("name", module_names())
def test_module_imports_and_says_what_it_is(name):
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"


@pytest.mark.parametrize("name", module_names())
def test_exported_names_exist(name):
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", ())
    assert [each for each in exported if not hasattr(module, each)] == []
    assert len(set(exported)) == len(exported)


def test_no_file_over_its_budget():
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in tracked("*.py")}
    assert {name: count for name, count in lengths.items() if count > MAX_LINES} == {}


def unsafe_call(node):
    """Yields what makes a call one that may run code out of data."""
    called = ast.unparse(node.func)
    if called in ("eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load", "os.system", "compile"):
        yield f"{called} on what may have come from elsewhere"
    for keyword in node.keywords:
        on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        if on and keyword.arg in ("allow_pickle", "shell"):
            yield f"{called} with {keyword.arg}"


def test_no_unfinished_or_unsafe_code():
    unfinished = re.compile(r"\b(TODO|FIXME|XXX)\b")
    found = []
    for path in tracked("qtopt/*.py", "robot_bridge/*.py", "sim/*.py", "benchmarks/*.py"):
        text = path.read_text()
        name = path.relative_to(ROOT).as_posix()
        found += [f"{name}: {match.group()}" for match in unfinished.finditer(text)]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                found.append(f"{name}:{node.lineno}: bare except")
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [each.name for each in node.names] + [getattr(node, "module", None)]
                if UNSAFE_MODULES & set(modules):
                    found.append(f"{name}:{node.lineno}: pickle or its kin")
            if isinstance(node, ast.Call):
                found += [f"{name}:{node.lineno}: {fault}" for fault in unsafe_call(node)]
    assert found == []


def test_no_path_of_a_private_machine():
    private = re.compile(rf"(?<![\w.])/(home|root|Users)/\w|{re.escape(str(ROOT))}\b")
    texts = tracked("*.py", "*.md", "*.toml", "*.yaml", "*.yml", "*.txt", "*.json", "Makefile", ".ci/run", "deploy/*")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if private.search(line)
    ]
    assert found == []
