"""A bus of six Feetech servos on a pseudo terminal: ``python -m sim.servers.feetech`` prints the device's path.

Written from the protocol's manual, without the driver's code. Each servo runs to its goal with a first-order lag and
the speed limit in its memory, and presses with a load that grows with the distance where something is in its way.
Commands come as JSON lines on standard input, each answered by a line:

* ``{"positions": true}``: where the servos are, in steps, their loads, and who holds;
* ``{"renew": [six positions]}``: six new servos, not yet holding;
* ``{"block": [servo, low, high]}``: it cannot leave these steps; ``{"fault": [servo, bits]}``: its replies carry them;
* ``{"mute": servo}``: it answers no more; ``{"silent": true}``: none does; ``{"damage": n}``: wrong checksums, n times.
"""

import argparse
import json
import os
import pty
import select
import sys
import time
import tty
from dataclasses import dataclass, field
from typing import Any, Final

from robot_bridge.cell.launch import prefer

PING, READ, WRITE, SYNC_READ, SYNC_WRITE, BROADCAST = 1, 2, 3, 0x82, 0x83, 0xFE
TORQUE_ENABLE, GOAL, SPEED, TORQUE_LIMIT, PRESENT = 40, 42, 46, 48, 56
TIME_CONSTANT_S: Final = 0.03
SUBSTEP_S: Final = 0.002
STIFFNESS: Final = 0.004
"""Part of full strength with which a servo presses for each step that it is short of its goal."""


@dataclass
class Servo:
    """One servo: its memory and what is physically so; it measures ``slip`` steps too many."""

    ident: int
    position: float
    memory: bytearray = field(default_factory=lambda: bytearray(128))
    low: float = 0.0
    high: float = 4095.0
    velocity: float = 0.0
    fault: int = 0
    muted: bool = False
    slip: float = 0.0

    def __post_init__(self) -> None:
        self.memory[3:5] = (777).to_bytes(2, "little")
        self.memory[5] = self.ident
        self.memory[TORQUE_LIMIT : TORQUE_LIMIT + 2] = (1000).to_bytes(2, "little")

    def word(self, address: int) -> int:
        """Returns a signed word of the memory."""
        raw = int.from_bytes(self.memory[address : address + 2], "little")
        return -(raw & 0x7FFF) if raw & 0x8000 else raw

    @property
    def load(self) -> float:
        """How hard it presses: signed, part of full strength."""
        if not self.memory[TORQUE_ENABLE]:
            return 0.0
        limit = self.word(TORQUE_LIMIT) / 1000
        return max(-limit, min(limit, STIFFNESS * self.short))

    @property
    def short(self) -> float:
        """How far it is from its goal, as it measures itself [steps]."""
        return self.word(GOAL) - self.position - self.slip

    def advance(self, dt_s: float) -> None:
        """Moves on."""
        if not self.memory[TORQUE_ENABLE] or self.fault:
            self.velocity = 0.0
            return
        top = abs(self.word(SPEED)) or 3400
        self.velocity = max(-top, min(top, self.short / TIME_CONSTANT_S))
        before = self.position
        self.position = max(self.low, min(self.high, self.position + self.velocity * dt_s))
        self.velocity = (self.position - before) / dt_s

    def report(self) -> None:
        """Writes what it measures into its memory: position, speed, load, voltage, temperature."""
        load = round(1000 * abs(self.load)) | (0x400 if self.load < 0 else 0)
        speed = round(abs(self.velocity)) | (0x8000 if self.velocity < 0 else 0)
        words = (round(self.position + self.slip), speed, load)
        self.memory[PRESENT : PRESENT + 6] = b"".join(word.to_bytes(2, "little") for word in words)
        self.memory[62], self.memory[63], self.memory[66] = 120, 31, int(abs(self.velocity) > 1)


class Bus:
    """Six servos that hear the same bytes."""

    def __init__(self, positions: list[float]) -> None:
        self.servos = {index + 1: Servo(index + 1, position) for index, position in enumerate(positions)}
        self.silent, self.damage = False, 0
        self._heard = bytearray()
        self._now_s = time.monotonic()

    def advance(self) -> None:
        """Lets the time since the last call pass for the servos."""
        now_s = time.monotonic()
        while self._now_s < now_s:
            dt_s = min(SUBSTEP_S, now_s - self._now_s)
            self._now_s += dt_s
            for servo in self.servos.values():
                servo.advance(dt_s)

    def hear(self, data: bytes) -> bytes:
        """Takes bytes from the bus, whole packets or not, and returns what the servos answer."""
        self._heard += data
        answers = b""
        while True:
            start = self._heard.find(b"\xff\xff")
            if start < 0 or len(self._heard) < start + 4:
                return answers
            end = start + 4 + self._heard[start + 3]
            if len(self._heard) < end:
                return answers
            body = bytes(self._heard[start + 2 : end])
            del self._heard[:end]
            if sum(body[:-1]) & 0xFF == body[-1] ^ 0xFF:
                answers += self._carry_out(body[0], body[2], body[3:-1])

    def _carry_out(self, ident: int, instruction: int, rest: bytes) -> bytes:
        if instruction == SYNC_READ:
            return b"".join(self._read(one, rest[0], rest[1]) for one in rest[2:])
        if instruction == SYNC_WRITE:
            size = rest[1] + 1
            for at in range(2, len(rest), size):
                self._write(rest[at], rest[0], rest[at + 1 : at + size])
            return b""
        if instruction == READ:
            return self._read(ident, rest[0], rest[1])
        if instruction == WRITE:
            for one in self.servos if ident == BROADCAST else (ident,):
                self._write(one, rest[0], rest[1:])
        return self._reply(ident, b"")

    def _read(self, ident: int, address: int, length: int) -> bytes:
        if ident not in self.servos:
            return b""
        self.servos[ident].report()
        return self._reply(ident, bytes(self.servos[ident].memory[address : address + length]))

    def _write(self, ident: int, address: int, data: bytes) -> None:
        if ident in self.servos and not self.servos[ident].muted:
            self.servos[ident].memory[address : address + len(data)] = data

    def _reply(self, ident: int, data: bytes) -> bytes:
        servo = self.servos.get(ident)
        if servo is None or servo.muted or self.silent:
            return b""
        body = bytes((ident, len(data) + 2, servo.fault)) + data
        wrong = 1 if self.damage > 0 else 0
        self.damage -= wrong
        return b"\xff\xff" + body + bytes(((0xFF - sum(body) & 0xFF) ^ wrong,))

    def command(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carries out a line from standard input."""
        for key, value in order.items():
            if key == "renew":
                self.servos = {index + 1: Servo(index + 1, float(position)) for index, position in enumerate(value)}
                self.silent, self.damage = False, 0
            elif key == "block":
                servo = self.servos[value[0]]
                servo.low, servo.high = float(value[1]), float(value[2])
            elif key == "fault":
                self.servos[value[0]].fault = int(value[1])
            elif key == "mute":
                self.servos[value].muted = True
            elif key == "silent":
                self.silent = bool(value)
            elif key == "damage":
                self.damage = int(value)
        servos = self.servos.values()
        return {
            "positions": [servo.position for servo in servos],
            "loads": [servo.load for servo in servos],
            "torque": [bool(servo.memory[TORQUE_ENABLE]) for servo in servos],
            "velocities": [servo.velocity for servo in servos],
        }


def serve(bus: Bus) -> None:
    """Serves the bus on a pseudo terminal until standard input ends."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    sys.stdout.write(os.ttyname(slave) + "\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([master, sys.stdin], [], [], 0.1)
        bus.advance()
        if master in ready:
            answer = bus.hear(os.read(master, 4096))
            os.write(master, answer)
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            sys.stdout.write(json.dumps(bus.command(json.loads(line))) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A simulated bus of six Feetech servos.")
    parser.add_argument("--start", default=",".join(["2048"] * 6), help="six positions in steps")
    prefer()  # in place of hardware, which no other program keeps waiting
    serve(Bus([float(one) for one in parser.parse_args().start.split(",")]))
