"""Generates ``qtopt/rpc/gen`` from ``protos/``: run ``python -m qtopt.rpc.generate`` after changing a .proto file.

The generated modules import each other as ``qtopt.v1.*``, which is no package of ours; those lines are rewritten. The
service modules come without types from the compiler; their .pyi files are written here from the descriptors.
"""

import argparse
import importlib.resources
import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import descriptor_pb2

from qtopt.errors import ConfigError

log = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[2]
PROTOS = REPOSITORY / "protos"
GENERATED = Path(__file__).resolve().parent / "gen"
PACKAGE = "qtopt.rpc.gen"
_INIT = '"""Generated from protos/ by ``python -m qtopt.rpc.generate``; do not edit."""\n'


def generate(protos: Path, destination: Path) -> list[Path]:
    """Writes the Python modules and their types for every .proto file under ``protos``; returns the files written.

    Raises:
        ConfigError: grpcio-tools is not installed, or the compiler found a fault.
    """
    try:
        from grpc_tools import protoc  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            "grpcio-tools is not installed, expected for generating code: pip install grpcio-tools"
        ) from error
    sources = sorted(protos.glob("qtopt/v1/*.proto"))
    if not sources:
        raise ConfigError(f"no .proto file in {protos / 'qtopt/v1'}: run this from a clone of the repository")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        includes = [f"-I{protos}", f"-I{importlib.resources.files('grpc_tools') / '_proto'}"]
        outputs = [f"--{kind}={out}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
        descriptors = out / "descriptors"
        if protoc.main(["protoc", *includes, *outputs, f"--descriptor_set_out={descriptors}", *map(str, sources)]):
            raise ConfigError(f"the compiler refused a file of {protos}; its message is above")
        files = {path.name: _rewrite(path.read_text()) for path in sorted((out / "qtopt/v1").iterdir())}
        described = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    for file in described.file:
        name = Path(file.name).stem
        if file.service:
            files[f"{name}_pb2_grpc.pyi"] = _service_types(file, name)
        else:
            del files[f"{name}_pb2_grpc.py"]
    files["__init__.py"] = _INIT
    destination.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (destination / name).write_text(text)
    return sorted(destination / name for name in files)


def _rewrite(text: str) -> str:
    return re.sub(r"^from qtopt\.v1 import ", f"from {PACKAGE} import ", text, flags=re.MULTILINE)


def _service_types(file: descriptor_pb2.FileDescriptorProto, name: str) -> str:
    """Returns the .pyi text of a module of services whose calls are all unary and whose messages are in one module."""
    lines = [
        "from typing import Any",
        "",
        "import grpc",
        "import grpc.aio",
        "",
        f"from {PACKAGE} import {name}_pb2",
    ]
    for service in file.service:
        methods = [
            (
                method.name,
                *(f"{name}_pb2.{kind.rpartition('.')[2]}" for kind in (method.input_type, method.output_type)),
            )
            for method in service.method
        ]
        lines += ["", f"class {service.name}Stub:", "    def __init__(self, channel: grpc.Channel) -> None: ..."]
        lines += [f"    {call}: grpc.UnaryUnaryMultiCallable[{ask}, {answer}]" for call, ask, answer in methods]
        lines += ["", f"class {service.name}Servicer:"]
        for call, ask, answer in methods:
            context = f"grpc.aio.ServicerContext[{ask}, {answer}]"
            lines.append(f"    async def {call}(self, request: {ask}, context: {context}) -> {answer}: ...")
        lines += [
            "",
            f"def add_{service.name}Servicer_to_server(",
            f"    servicer: {service.name}Servicer, server: grpc.aio.Server | Any",
            ") -> None: ...",
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Regenerates the committed code; returns the process's exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m qtopt.rpc.generate", description=__doc__)
    parser.add_argument("--protos", type=Path, default=PROTOS, help="folder that holds qtopt/v1/*.proto")
    parser.add_argument("--out", type=Path, default=GENERATED, help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        files = generate(options.protos, options.out)
    except ConfigError as error:
        log.error("%s", error)
        return error.exit_code
    log.info("%d files written to %s", len(files), options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
