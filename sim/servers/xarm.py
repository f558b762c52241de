"""A simulated UFACTORY xArm controller: the real wire protocol, with a bin, a hand and objects behind it.

    python -m sim.servers.xarm --host 127.0.4.1 --seed 0

The vendor's clients know their ports (502 for commands, 30001 to 30003 for reports), so every server wants a loopback
address of its own. When it listens, it prints one line of JSON with its addresses; it ends on SIGTERM.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from qtopt.errors import ConfigError
from robot_bridge.cell.launch import prefer
from sim.config import SimConfig
from sim.plant import Plant
from sim.servers import xarm_frames as frames
from sim.servers.late import Late
from sim.servers.loopback import require_loopback
from sim.servers.xarm_controller import Controller
from sim.servers.xarm_faults import Faults
from sim.servers.xarm_functions import Functions
from sim.servers.xarm_gripper import GripperBus
from sim.servers.xarm_samples import Samples

CONTROL_PORT, NORMAL_PORT, RICH_PORT, REAL_TIME_PORT = 502, 30001, 30002, 30003
PERIOD_S = 0.01
_SLOW_EVERY = 20
_HEADER = struct.Struct(">HHH")
_SET_FEEDBACK = 254
_MOTION_END = 2
_MOST_BUFFERED = 1 << 20


class XArmServer:
    """Serves one plant to any number of clients, in one thread."""

    def __init__(self, plant: Plant, host: str, seed: int, spoil_camera: Callable[[str], None] | None = None) -> None:
        self._host = require_loopback(host)
        self._controller = Controller(plant, seed)
        bus = GripperBus(plant)
        self._functions = Functions(self._controller, bus, plant)
        self._away_until = 0.0
        self._faults = Faults(self._controller, self._functions, bus, plant, self.drop, spoil_camera)
        self._clients: set[asyncio.StreamWriter] = set()
        self._listeners: dict[int, set[asyncio.StreamWriter]] = {
            port: set() for port in (NORMAL_PORT, RICH_PORT, REAL_TIME_PORT)
        }
        self._last: dict[int, bytes] = {}
        self._late = {port: Late[bytes]() for port in self._listeners}
        self._samples = Samples(PERIOD_S)
        self._servers: list[asyncio.Server] = []

    async def listen(self, control_port: int, fault_port: int) -> dict[str, int]:
        """Opens all ports; returns those of commands and faults as bound."""
        control = await asyncio.start_server(self._serve_control, self._host, control_port)
        fault = await asyncio.start_server(self._serve_faults, self._host, fault_port)
        self._servers = [control, fault]
        for port in self._listeners:
            self._servers.append(await asyncio.start_server(self._report_to(port), self._host, port))
        bound = [server.sockets[0].getsockname()[1] for server in (control, fault)]
        return {"control_port": bound[0], "fault_port": bound[1]}

    async def run(self) -> None:
        """Lets the controller live, a hundred beats a second.

        A report is a hundredth of a second of the arm's own time: an arm in a busy computer may live in leaps, and
        whoever takes the way between two reports for its speed must not be told another one.
        """
        due, beats = time.monotonic(), 0
        while True:
            self._controller.tick()
            for snapshot in self._samples.take(self._controller.snapshot()):
                self._report(REAL_TIME_PORT, snapshot)
            if beats % _SLOW_EVERY == 0:
                for port in (NORMAL_PORT, RICH_PORT):
                    self._report(port, self._controller.snapshot())
            beats += 1
            due = max(due + PERIOD_S, time.monotonic() - PERIOD_S)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def drop(self, away_s: float = 0.0) -> None:
        """Resets every connection of commands and reports, and takes no other for ``away_s``."""
        self._away_until = time.monotonic() + away_s
        for writer in [*self._clients, *(w for writers in self._listeners.values() for w in writers)]:
            _reset(writer)

    def close(self) -> None:
        """Closes all ports and connections."""
        for server in self._servers:
            server.close()
        self.drop()

    def _report(self, port: int, now: frames.Snapshot) -> None:
        listeners, link = self._listeners[port], self._faults.link
        if not listeners or link.silent_reports:
            return
        if not link.frozen_reports or port not in self._last:
            self._last[port] = _FRAMES[port](replace(now, pose=link.tampered(tuple(now.pose))))
        due = self._late[port].through(self._last[port], time.monotonic(), link.late_frames)
        frame = b"".join(due) * (2 if link.duplicate_frames else 1)
        for writer in [*listeners]:
            if writer.transport.get_write_buffer_size() > _MOST_BUFFERED:
                _reset(writer)
            elif link.split_frames:
                for start in range(0, len(frame), 7):
                    writer.write(frame[start : start + 7])
            else:
                writer.write(frame)

    def _report_to(self, port: int) -> "asyncio.streams._ClientConnectedCallback":
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._turned_away(writer):
                return
            _at_once(writer)
            self._listeners[port].add(writer)
            with contextlib.suppress(OSError, asyncio.CancelledError):  # cancelled when the server ends
                while await reader.read(1024):
                    pass
            self._listeners[port].discard(writer)
            writer.close()

        return serve

    def _turned_away(self, writer: asyncio.StreamWriter) -> bool:
        away = time.monotonic() < self._away_until
        if away:
            _reset(writer)
        return away

    async def _serve_control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._turned_away(writer):
            return
        _at_once(writer)
        self._clients.add(writer)
        try:
            while True:
                transaction, protocol, length = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                body = await reader.readexactly(length)
                if protocol in (2, 3) and length and body[0]:
                    self._answer(writer, transaction, protocol, body)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(writer)
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, transaction: int, protocol: int, body: bytes) -> None:
        if self._faults.link.mute_control:
            return
        function = body[0]
        if function == _SET_FEEDBACK:
            writer.write(frames.reply(transaction, protocol, function, self._controller.status))
            return

        def done(code: int) -> None:
            if not writer.is_closing():
                time_us = time.monotonic_ns() // 1000
                writer.write(frames.feedback(transaction, protocol, function, _MOTION_END, code, time_us))

        answer = self._functions.call(function, body[1:], done)
        if answer is not None:
            status = self._controller.status | answer.status
            frame = frames.reply(transaction, protocol, function, status, answer.data)
            for start in range(0, len(frame), 3 if self._faults.link.split_frames else len(frame)):
                writer.write(frame[start : start + (3 if self._faults.link.split_frames else len(frame))])

    async def _serve_faults(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while line := await reader.readline():
                writer.write(self._faults.answer(line))
                await writer.drain()
        writer.close()


_FRAMES = {
    NORMAL_PORT: frames.normal_report,
    RICH_PORT: frames.rich_report,
    REAL_TIME_PORT: frames.real_time_report,
}


def _at_once(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes so that the peer sees a reset, as from a controller that loses power."""
    with contextlib.suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def _serve(plant: Plant, host: str, seed: int, control_port: int, fault_port: int) -> None:
    server = XArmServer(plant, host, seed)
    ports = await server.listen(control_port, fault_port)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    sys.stdout.write(json.dumps({"ready": True, "protocol": "xarm", "host": host, **ports}) + "\n")
    sys.stdout.flush()
    life = asyncio.ensure_future(server.run())
    end = asyncio.ensure_future(ended.wait())
    await asyncio.wait({life, end}, return_when=asyncio.FIRST_COMPLETED)
    server.close()
    if life.done():
        life.result()
    life.cancel()


def main(arguments: list[str] | None = None) -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(prog="sim.servers.xarm", description="a simulated xArm controller")
    parser.add_argument("--host", default="127.0.4.1", help="a loopback address of its own")
    parser.add_argument("--control-port", type=int, default=CONTROL_PORT, help="another than 502 needs no root")
    parser.add_argument("--fault-port", type=int, default=0, help="0 takes a free one; the ready line names it")
    parser.add_argument("--seed", type=int, default=0, help="of the objects in the bin")
    options = parser.parse_args(arguments)
    if not options.host.startswith("127."):
        raise ConfigError(f"host is {options.host}, expected a loopback address: the protocol has no authentication")
    sys.setswitchinterval(1e-3)  # the physics thread would keep the others waiting for five times as long
    prefer()  # in place of hardware, which no other program keeps waiting
    with Plant(SimConfig(), options.seed) as plant:
        asyncio.run(_serve(plant, options.host, options.seed, options.control_port, options.fault_port))


if __name__ == "__main__":
    main()
