"""What is installed, what is missing for which role, and whether ports and devices are there."""

import importlib
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from qtopt import __version__
from qtopt.apps.process import say
from qtopt.config import STRICT
from qtopt.errors import QtOptError

_ROLES = {
    "serve": (
        "grpc",
        "google.protobuf",
        "grpc_health",
        "grpc_reflection",
        "prometheus_client",
        "sqlite3",
        "google_crc32c",
        "zarr",
        "torch",
    ),
    "collect": ("grpc", "google.protobuf", "torch", "sim.bullet", "pybullet_data", "gymnasium", "cv2"),
    "label": ("grpc", "google.protobuf", "torch", "safetensors"),
    "train": ("grpc", "google.protobuf", "torch", "safetensors"),
    "eval": ("grpc", "torch", "sim.bullet", "pybullet_data", "cv2"),
    "offline": ("sqlite3", "google_crc32c", "zarr", "torch", "safetensors"),
    "run": ("rich", "tensorboard", "matplotlib", "yaml", "pydantic", "tyro", "structlog"),
}
"""The modules that each command needs."""
_SERVICES = tuple(f"qtopt.v1.{name}Service" for name in ("Replay", "Model", "Policy", "Monitor"))


@dataclass(frozen=True)
class Asked:
    """A server to ask; as in ``qtopt.rpc.ClientConfig``, which cannot be imported where gRPC is missing.

    Attributes:
        address: ``host:port``; empty asks nobody.
        ca_file: PEM certificates that sign the server's; turns TLS on.
        cert_file: PEM certificate chain of this client, where the server asks for one.
        key_file: PEM private key of this client.
        token_file: file that holds the bearer token, as other commands take it; health is told without one.
        server_name: name in the server's certificate, where it differs from the address.
    """

    __pydantic_config__ = STRICT

    address: str = ""
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    token_file: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True)
class Config:
    """Looks at this machine, and at a server.

    Attributes:
        server: whose health is asked for (--server host:port).
        port: loopback port that a server would listen on.
        output: directory that runs would be written to.
    """

    __pydantic_config__ = STRICT

    server: Asked = field(default_factory=Asked)
    port: int = 50051
    output: Path = Path("outputs")


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is as it should be, and what was seen. Only ``needed`` ones make it fail."""

    name: str
    seen: str
    good: bool = True
    needed: bool = True

    def __str__(self) -> str:
        mark = "ok  " if self.good else ("FAIL" if self.needed else "--  ")
        return f"{mark} {self.name:<14} {self.seen}"


def main(config: Config) -> int:
    """Says what it finds; returns 1 when something is missing."""
    findings = list(examine(config))
    say(f"qtopt {__version__}")
    for finding in findings:
        say(str(finding))
    bad = [finding.name for finding in findings if finding.needed and not finding.good]
    say("everything is there" if not bad else f"missing or wrong: {', '.join(bad)}")
    return 1 if bad else 0


def examine(config: Config) -> Iterator[Finding]:
    """Yields what is found on this machine."""
    version = sys.version_info
    yield Finding("python", f"{platform.python_version()}, expected 3.11 or newer", version >= (3, 11))
    missing = {name for modules in _ROLES.values() for name in modules if not _importable(name)}
    for role, modules in _ROLES.items():
        absent = [name for name in modules if name in missing]
        seen = "all packages are there" if not absent else f"found no {', '.join(absent)}: run `make install`"
        yield Finding(f"qtopt {role}", seen, not absent)
    yield _port(config.port)
    yield Finding("cores", f"{os.cpu_count()}, {len(os.sched_getaffinity(0))} for us; `qtopt run` wants 2")
    yield _memory()
    yield _disk(config.output)
    yield _accelerator()
    if config.server.address:
        yield _server(config.server)


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _server(asked: Asked) -> Finding:
    """Asks a server for its health."""
    from qtopt.rpc.health import check_health
    from qtopt.rpc.settings import ClientConfig

    name = f"server {asked.address}"
    try:
        config = ClientConfig(**asdict(asked))
        whole, *parts = check_health(config, ("", *_SERVICES)).values()
    except QtOptError as error:
        return Finding(name, str(error), good=False)
    told = ", ".join(f"{service.split('.')[-1]} {status}" for service, status in zip(_SERVICES, parts, strict=True))
    return Finding(name, told, whole == "SERVING")


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            seen = f"{error.strerror}: `qtopt serve` needs another --listen.port"
            return Finding(f"port {port}", seen, good=False, needed=False)
    return Finding(f"port {port}", "free on 127.0.0.1")


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    return Finding("memory", f"{free:.1f} GiB available, `qtopt run` takes some 3 GiB", free > 3)


def _disk(output: Path) -> Finding:
    place = next(path for path in [output.absolute(), *output.absolute().parents] if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    writable = os.access(place, os.W_OK)
    seen = f"{free:.1f} GiB free in {place}" if writable else f"{place} cannot be written to"
    return Finding("disk", f"{seen}, 30 minutes take some 1 GiB", writable and free > 2)


def _accelerator() -> Finding:
    if not _importable("torch"):
        return Finding("accelerator", "unknown without torch", good=False, needed=False)
    import torch

    found = torch.cuda.is_available()
    seen = torch.cuda.get_device_name(0) if found else "none; everything runs on the CPU"
    return Finding("accelerator", seen, found, needed=False)
