"""The processes of a soak, revived where a supervisor would, and what they left: logs, episodes, processes, ports."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil

from qtopt.replay.episode_store import EpisodeStore
from robot_bridge.spool import QUARANTINE
from sim.faults.cells import until

ROLES: Final = ("controller", "server", "collector")
CELL_ROLES: Final = ("arm", "safety", "camera")
_END_S: Final = 60.0


class Roles:
    """A replay server and a collector; may be used in a ``with`` statement.

    Args:
        directory: for store, logs and the rest.
        cell: the cell file.
        seed: of the first collector; each further one has the next.

    Attributes:
        logs: of the collectors, one file after the other.
        store: of the server.
        spool: of the collectors.
    """

    def __init__(self, directory: Path, cell: Path, seed: int = 0) -> None:
        self._directory, self._cell = directory, cell
        self.logs, self.store, self.spool = directory / "logs", directory / "store", cell.parent / "spool"
        self.logs.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._seed, self._started = seed, 0
        self._server = self._serve()
        self._collector = self._collect()

    def __enter__(self) -> "Roles":
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._collector, self._server):
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def revive(self, *, server: bool = True) -> None:
        """Starts what has ended anew; ``server``: the server, too."""
        if server and self._server.poll() is not None:
            self._server = self._serve()
        if self._collector.poll() is not None:
            self._collector = self._collect()

    def kill_server(self) -> None:
        """Kills the server, as a power cut does."""
        self._server.kill()
        self._server.wait()

    def signal_collector(self, number: int) -> None:
        """Sends the collector a signal."""
        self._collector.send_signal(number)

    def end_collector(self) -> int:
        """Ends the collector, which delivers what it can; returns its exit code."""
        return self._end(self._collector)

    def await_collector(self, seconds: float) -> int:
        """Waits until the collector has ended by itself; returns its exit code, or raises TimeoutExpired."""
        return self._collector.wait(seconds)

    def processes(self) -> dict[str, int]:
        """Returns the process ids of server, collector and, where the cell runs, arm, safety and camera.

        Those three are the cell's own processes, started anew after each lock.
        """
        return {"server": self._server.pid, "collector": self._collector.pid, **_cell_roles(_of(self._directory))}

    def sample(self, controller: int) -> dict[str, float]:
        """Returns memory [MiB] and descriptors of each process that is there, and how many processes there are."""
        sample: dict[str, float] = {"processes": len(_of(self._directory))}
        for name, pid in {"controller": controller, **self.processes()}.items():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                sample[f"{name}_mib"] = round(process.memory_info().rss / 2**20, 1)
                sample[f"{name}_fds"] = process.num_fds()
        return sample

    def end(self) -> int:
        """Ends the collector, which delivers what it has, then the server; returns how many episodes still wait."""
        for process in (self._collector, self._server):
            self._end(process)
        return self.waiting()

    def waiting(self) -> int:
        """Returns how many episodes are on the collector's disk."""
        return sum(1 for _ in self.spool.glob("*.safetensors"))

    def set_aside(self) -> list[str]:
        """Returns what the collector found not fit to be delivered, as a list of troubles."""
        return [f"set aside: {each.name}" for each in sorted((self.spool / QUARANTINE).glob("*"))]

    def _end(self, process: "subprocess.Popen[bytes]") -> int:
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _serve(self) -> "subprocess.Popen[bytes]":
        words = ["serve", "--listen.port", str(self._port), "--store", str(self.store)]
        server = self._start([*words, "--models", str(self._directory / "models")], self._directory / "server.log")
        until(self._serves, _END_S, 0.2)
        return server

    def _serves(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), 1.0).close()
        except OSError:
            return False
        return True

    def _collect(self) -> "subprocess.Popen[bytes]":
        self._started += 1
        words = ["robot", "collect", str(self._cell), "--server.address", f"127.0.0.1:{self._port}"]
        seed = str(self._seed + self._started)
        return self._start([*words, "--policy", "scripted", "--seed", seed], self.logs / f"{self._started:04}.log")

    def _start(self, words: list[str], log: Path) -> "subprocess.Popen[bytes]":
        with log.open("ab") as file:
            return subprocess.Popen([sys.executable, "-m", "qtopt.cli", *words], stderr=file, stdout=file)


def finished(logs: Path) -> list[str]:
    """Returns the episodes that collectors said they had finished."""
    uuids = []
    for path in sorted(logs.iterdir()):
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError, TypeError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") == "episode":
                    uuids.append(str(event["episode"]))
    return uuids


def delivered(store: Path) -> Counter[str]:
    """Returns how often each episode is in a store."""
    with EpisodeStore(store, read_only=True) as opened:
        return Counter(episode.uuid for episode in opened.episodes())


def unaccounted(told: list[str], stored: Counter[str], waiting: int) -> list[str]:
    """Returns in words what is wrong where not every episode that was told of is in the store once."""
    lost = sorted(set(told) - set(stored))
    twice = sorted(uuid for uuid, count in stored.items() if count > 1)
    troubles = [f"lost: {lost}"] * bool(lost) + [f"stored twice: {twice}"] * bool(twice)
    return troubles + [f"{waiting} episodes were not delivered"] * bool(waiting)


def left_behind(directory: str, host: str) -> list[str]:
    """Returns the processes and listening ports that should be gone, in words; waits for them a little."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline and (_of(Path(directory)) or _listening(host)):
        time.sleep(0.5)
    left = [f"process left behind: {' '.join(each.cmdline())[:120]}" for each in _of(Path(directory))]
    return left + [f"port left open: {port}" for port in _listening(host)]


def _of(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(directory) in word for word in process.cmdline()):
                found.append(process)
    return found


def _cell_roles(processes: Iterable[psutil.Process]) -> dict[str, int]:
    """Returns the process id of ``arm``, which is ``python -m robot_bridge.cell.arm_child ...``, and of its like."""
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            module = next((word for word in process.cmdline() if word.startswith("robot_bridge.cell.")), "")
            role = module.rpartition(".")[2].removesuffix("_child")
            if role in CELL_ROLES:
                found[role] = process.pid
    return found


def _listening(host: str) -> list[int]:
    listening = [each.laddr for each in psutil.net_connections("tcp4") if each.status == psutil.CONN_LISTEN]
    return sorted({place.port for place in listening if place and place.ip == host})
