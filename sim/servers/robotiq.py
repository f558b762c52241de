"""A Robotiq 2F gripper: its registers over any hand, on the text socket of a UR and as a Modbus RTU slave on a pty.

``python -m sim.servers.robotiq socket`` (or ``rtu``) serves a hand without physics, prints where it listens, and takes
lines of text on its standard input: the width of an object between the fingers, ``object 0.04``; faults ``silent``,
``jammed``, ``flag 2``, ``code 14``; ``none``.
"""

import argparse
import os
import select
import socketserver
import sys
import threading
import tty
from collections.abc import Callable

from qtopt.errors import ConfigError
from robot_bridge.cell.launch import prefer
from sim.servers.loopback import require_loopback
from sim.servers.robotiq_model import GripperFault, PlainHand, RobotiqModel


class RobotiqSocketServer:
    """The text protocol of the UR cap on TCP; may be used in a ``with`` statement."""

    def __init__(self, model: RobotiqModel, host: str = "127.0.0.1", port: int = 63352) -> None:
        self._server = _Tcp((require_loopback(host), port), _Lines)
        self._server.model = model
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> "RobotiqSocketServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)


class _Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    model: RobotiqModel


class _Lines(socketserver.StreamRequestHandler):
    server: _Tcp

    def handle(self) -> None:
        try:
            for line in self.rfile:
                answer = _answer(self.server.model, line.decode("ascii", "replace").split())
                if not self.server.model.fault.silent:
                    self.wfile.write(answer)
        except OSError:
            pass  # the client went away


def _answer(model: RobotiqModel, words: list[str]) -> bytes:
    if len(words) == 2 and words[0] == "GET" and words[1] in model.read():
        return f"{words[1]} {model.read()[words[1]]}\n".encode()
    pairs = list(zip(words[1::2], words[2::2], strict=False))
    if len(words) > 2 and words[0] == "SET" and all(value.isdigit() and int(value) < 256 for _, value in pairs):
        model.write({name: int(value) for name, value in pairs})
        return b"ack"
    return b"?\n"


class RobotiqRtuServer:
    """A Modbus RTU slave on a pseudo terminal; ``device`` is the path for the client. Usable with ``with``."""

    def __init__(self, model: RobotiqModel, address: int = 9) -> None:
        self._model, self._number = model, address
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.device = os.ttyname(self._slave)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> "RobotiqRtuServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the device away; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join(5.0)
        os.close(self._master)
        os.close(self._slave)

    def _serve(self) -> None:
        received = b""
        while not self._closing.is_set():
            if not select.select([self._master], [], [], 0.05)[0]:
                received = b""  # silence ends a frame; what is left of one is noise
                continue
            received += os.read(self._master, 256)
            if len(received) < 2 or len(received) < (length := frame_length(received)):
                continue
            frame, received = received[:length], received[length:]
            answer = self.answer(frame)
            if answer and not self._model.fault.silent:
                os.write(self._master, answer)

    def answer(self, frame: bytes) -> bytes:
        """Returns the answer to a request with its checksum; nothing where it is garbled or for another slave."""
        if frame[0] != self._number or crc(frame[:-2]) != frame[-2:]:
            return b""
        body = frame[2:-2]
        start, count = int.from_bytes(body[:2]), int.from_bytes(body[2:4])
        if frame[1] in (3, 4) and start >= 0x07D0 and start + count <= 0x07D3:
            data = self._inputs()[2 * (start - 0x07D0) : 2 * (start - 0x07D0 + count)]
            answer = bytes([self._number, frame[1], len(data)]) + data
        elif frame[1] == 16 and (start, count) == (0x03E8, 3):
            self._request(body[5:])
            answer = frame[:6]
        else:
            answer = bytes([self._number, frame[1] | 0x80, 2 if frame[1] in (3, 4, 16) else 1])
        return answer + crc(answer)

    def _inputs(self) -> bytes:
        now = self._model.read()
        status = now["ACT"] | now["GTO"] << 3 | now["STA"] << 4 | now["OBJ"] << 6
        return bytes([status, 0, now["FLT"], now["PRE"], now["POS"], 0])

    def _request(self, data: bytes) -> None:
        action, _, _, position, speed, force = data
        self._model.write({"ACT": action & 1, "SPE": speed, "FOR": force, "GTO": action >> 3 & 1, "POS": position})


def frame_length(received: bytes) -> int:
    """Returns how long the request that begins here is, checksum included."""
    if received[1] == 16:
        return 9 + received[6] if len(received) > 6 else 9
    return 8


def crc(data: bytes) -> bytes:
    """Returns the two bytes of Modbus' CRC-16, low one first."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value.to_bytes(2, "little")


def parse_fault(line: str, hand: PlainHand) -> GripperFault:
    """Returns the fault that a line names, and puts ``object`` between the fingers; ConfigError for any other."""
    word, _, number = line.strip().partition(" ")
    try:
        if word == "object":
            hand.object_m = float(number)
            return GripperFault()
        if word in ("flag", "code"):
            return GripperFault(flag=int(number)) if word == "flag" else GripperFault(code=int(number))
    except ValueError as error:
        raise ConfigError(f"fault {line.strip()!r}: {error}") from error
    faults = {"silent": GripperFault(silent=True), "jammed": GripperFault(jammed=True), "none": GripperFault()}
    if word not in faults:
        raise ConfigError(f"fault is {word!r}, expected silent, jammed, flag N, code N, object WIDTH or none")
    return faults[word]


def main() -> None:
    """Serves a hand without physics until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wire", choices=("socket", "rtu"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    prefer()  # in place of hardware, which no other program keeps waiting
    hand = PlainHand()
    model = RobotiqModel(hand)
    close: Callable[[], None]
    if given.wire == "socket":
        text = RobotiqSocketServer(model, given.host, given.port)
        where, close = ":".join(map(str, text.address)), text.close
    else:
        rtu = RobotiqRtuServer(model)
        where, close = rtu.device, rtu.close
    sys.stdout.write(where + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        model.fault = parse_fault(line, hand)
    close()


if __name__ == "__main__":
    main()
