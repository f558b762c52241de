"""The committed generated code is what the .proto files say, and each field says what it is."""

import re

import pytest

from qtopt.errors import ConfigError
from qtopt.rpc.generate import GENERATED, PROTOS, generate, main

VERSIONS = re.compile(r"\d+\.\d+\.\d+|^    \d+,$", re.MULTILINE)


def test_committed_code_is_fresh(tmp_path):
    fresh = {path.name: path for path in generate(PROTOS, tmp_path)}
    committed = {path.name: path for path in GENERATED.iterdir() if path.suffix in (".py", ".pyi")}
    assert set(fresh) == set(committed), "run python -m qtopt.rpc.generate and commit qtopt/rpc/gen"
    for name, path in fresh.items():
        # Another release of the compiler writes another number into the same code.
        ours, theirs = (VERSIONS.sub("", each.read_text()) for each in (committed[name], path))
        assert ours == theirs, f"{name}: run python -m qtopt.rpc.generate and commit qtopt/rpc/gen"


def test_no_proto_files_and_broken_ones_are_named(tmp_path, capfd):
    with pytest.raises(ConfigError, match=r"no \.proto file"):
        generate(tmp_path, tmp_path / "out")
    folder = tmp_path / "qtopt" / "v1"
    folder.mkdir(parents=True)
    (folder / "bad.proto").write_text("syntax = 'proto3'; message {")
    assert main(["--protos", str(tmp_path), "--out", str(tmp_path / "out")]) == ConfigError.exit_code
    assert "bad.proto" in capfd.readouterr().err


@pytest.mark.parametrize("path", sorted(PROTOS.glob("qtopt/v1/*.proto")), ids=lambda path: path.stem)
def test_every_field_has_a_comment(path):
    field = re.compile(r"\s+(repeated |optional )?(map<.*>|[\w.]+) \w+ = \d+;")
    bare = []
    previous = ""
    for line in path.read_text().splitlines():
        if field.match(line) and not previous.strip().startswith("//") and line.split()[0] not in ("option",):
            bare.append(line.strip())
        previous = line
    assert bare == []
