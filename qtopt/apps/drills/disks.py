"""Disks that are small, break, or are slow: mounted for a drill, which needs the rights to."""

import contextlib
import fcntl
import os
import random
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from qtopt.apps.drills.joining import join_within
from qtopt.errors import ConfigError

_SHUT_DOWN: Final = 0x8004587D
"""``FS_IOC_SHUTDOWN`` of Linux, by which file systems are tested for what they keep when the power fails ..."""
_WITHOUT_FLUSH: Final = struct.pack("I", 2)
"""... and its flag that nothing is written any more, not even the journal."""
_TRACED_S: Final = 20.0


def _run(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{words[0]} is missing: install it") from error
    except subprocess.CalledProcessError as error:
        raise ConfigError(
            f"{' '.join(words)}: {error.stderr.strip()}; this drill mounts disks: run it as root"
        ) from error
    return done.stdout


@contextlib.contextmanager
def small_disk(at: Path, megabytes: int) -> Iterator[Path]:
    """Mounts a disk of so many MB, in memory, during the block."""
    at.mkdir(parents=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(at))
    try:
        yield at
    finally:
        _run("umount", "-l", str(at))


class Filler:
    """Something else that takes room on a disk and gives it back, again and again; use as a context.

    Args:
        disk: a directory on it.
        least_mb, most_mb: between these lies what it leaves free each time [MB].
        seed: of all chance.
    """

    def __init__(self, disk: Path, least_mb: float, most_mb: float, seed: int) -> None:
        self._file = disk / "taken-by-another"
        self._bounds_mb = least_mb, most_mb
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="filler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        join_within([self._thread])

    def _fill(self) -> None:
        while not self._over.wait(self._chance.uniform(0.05, 0.4)):
            disk = os.statvfs(self._file.parent)
            take = disk.f_bavail * disk.f_frsize - round(self._chance.uniform(*self._bounds_mb) * 1e6)
            with self._file.open("wb") as file, contextlib.suppress(OSError):  # the store may have been faster
                os.posix_fallocate(file.fileno(), 0, max(1, take))
            self._over.wait(self._chance.uniform(0.05, 0.4))
            self._file.unlink()


class BreakableDisk:
    """An ext4 file system in a file, which becomes read-only at an error as a real one does; use as a context."""

    def __init__(self, at: Path, megabytes: int) -> None:
        self._at = at
        self._file = at.with_suffix(".img")
        at.mkdir(parents=True)
        with self._file.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", str(self._file))

    def __enter__(self) -> "BreakableDisk":
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        _run("umount", "-l", str(self._at))
        self._file.unlink()

    def break_it(self) -> None:
        """Lets the file system find an error: from now on it takes no more writing."""
        device = Path(_run("findmnt", "-n", "-o", "SOURCE", str(self._at)).strip()).name
        Path("/sys/fs/ext4", device, "trigger_fs_error").write_text("a drill")

    def cut(self) -> None:
        """Takes the power: what is not on the disk yet never gets there, and no call on the file system succeeds."""
        handle = os.open(self._at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(handle, _SHUT_DOWN, _WITHOUT_FLUSH)
        finally:
            os.close(handle)

    def mend(self) -> None:
        """Unmounts, checks and mounts the file system; nobody may have a file of it open."""
        _run("umount", str(self._at))
        subprocess.run(["fsck.ext4", "-p", "-f", str(self._file)], capture_output=True, check=False)  # 1: it was mended
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", str(self._file), str(self._at))


@contextlib.contextmanager
def slow_disk(pid: int, delay_s: float) -> Iterator[None]:
    """Makes each flush to the disk of a running process take longer by ``delay_s``, during the block."""
    words = ["strace", "-f", "-qq", "-p", str(pid), "-e", "trace=fdatasync,fsync", "-o", "/dev/null"]
    words += ["-e", f"inject=fdatasync,fsync:delay_enter={round(delay_s * 1e6)}"]
    try:
        tracer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise ConfigError("strace is missing: install it") from error
    with tracer:
        try:
            _wait_until_traced(pid, tracer)
            yield
        finally:
            tracer.terminate()  # it lets go of the process


def _text(status: Path) -> str:
    """Returns a thread's status; nothing where it ended just now."""
    try:
        return status.read_text()
    except OSError:
        return ""


def _wait_until_traced(pid: int, tracer: "subprocess.Popen[str]") -> None:
    """Returns when all threads of a process are the tracer's; what is flushed before that is not slow."""
    deadline = time.monotonic() + _TRACED_S
    mine, tasks = f"TracerPid:\t{tracer.pid}\n", Path(f"/proc/{pid}/task")
    while not all(mine in _text(status) for status in tasks.glob("*/status")):
        if tracer.poll() is not None or time.monotonic() > deadline:
            said = tracer.stderr.read() if tracer.poll() is not None and tracer.stderr is not None else "nothing"
            raise ConfigError(f"strace does not trace process {pid} and said {said!r}: run this drill as root")
        time.sleep(0.01)
