"""The RTDE port of a simulated Universal Robots controller: TCP 30004, frames of a big-endian size and a type."""

import contextlib
import socket
import struct
import threading
import time

from sim.servers.late import Late
from sim.servers.ur_controller import Controller
from sim.servers.ur_fields import FORMATS, INPUTS, OUTPUTS, Recipe

PORT = 30004
_VERSION = (5, 15, 0, 126163)
_HEADER = struct.Struct(">HB")


class Faults:
    """What is wrong, for tests: a stream silent, split, doubled, late; names that are denied; an old protocol."""

    def __init__(self) -> None:
        self.silent = self.split = self.duplicate = self.old = False
        self.late_s = 0.0
        self.unknown_fields: frozenset[str] = frozenset()
        self.owned_fields: frozenset[str] = frozenset()


class RtdeServer:
    """Serves clients, and gives the controller its cycles.

    Args:
        controller: whose variables are sent and taken.
        host: address to listen on.
        frequency_hz: cycles in a second, and the most that a client gets.
    """

    def __init__(self, controller: Controller, host: str, frequency_hz: float) -> None:
        self.faults = Faults()
        self._away_until = 0.0
        self._controller, self._frequency_hz = controller, frequency_hz
        self._socket = socket.create_server((host, PORT), reuse_port=False)
        self._clients: list[_Client] = []
        self._owners: dict[str, _Client] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._accept, self._pump)]
        for thread in self._threads:
            thread.start()

    def drop_connections(self, away_s: float = 0.0) -> int:
        """Resets every connection, and takes no other for ``away_s``; returns how many there were."""
        self._away_until = time.monotonic() + away_s
        with self._lock:
            clients, self._clients, self._owners = self._clients, [], {}
        for client in clients:
            client.reset()
        return len(clients)

    def claim(self, client: "_Client", names: tuple[str, ...]) -> list[str]:
        """Returns the types of input variables, ``IN_USE`` or ``NOT_FOUND`` where they cannot be had."""
        with self._lock:
            kinds = []
            for name in names:
                taken = self._owners.setdefault(name, client) is not client or name in self.faults.owned_fields
                kinds.append("NOT_FOUND" if name not in INPUTS else "IN_USE" if taken else INPUTS[name])
            return kinds

    def forget(self, client: "_Client") -> None:
        """Frees what a client had claimed."""
        with self._lock:
            self._clients = [each for each in self._clients if each is not client]
            self._owners = {name: owner for name, owner in self._owners.items() if owner is not client}

    def close(self) -> None:
        """Ends all connections."""
        self._closing.set()
        self._socket.close()
        self.drop_connections()
        self._threads[1].join(2.0)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                if time.monotonic() < self._away_until:
                    connection.close()
                    continue
                client = _Client(connection, self, self._controller, self._frequency_hz)
                with self._lock:
                    self._clients.append(client)
                client.start()

    def _pump(self) -> None:
        due, number = time.monotonic(), 0
        while not self._closing.is_set():
            self._controller.cycle()
            if not self.faults.silent:
                with self._lock:
                    clients = list(self._clients)
                for client in clients:
                    client.offer(number)
            number += 1
            due += 1.0 / self._frequency_hz
            wait_s = due - time.monotonic()
            if wait_s > 0:
                self._closing.wait(wait_s)
            elif wait_s < -0.1:
                due = time.monotonic()


class _Client:
    def __init__(
        self, connection: socket.socket, server: RtdeServer, controller: Controller, frequency_hz: float
    ) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(5.0)
        self._socket, self._server, self._controller = connection, server, controller
        self._cycles_hz = frequency_hz
        self._every = 1
        self._output: tuple[int, Recipe] | None = None
        self._inputs: dict[int, Recipe] = {}
        self._started = False
        self._late = Late[bytes]()
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def reset(self) -> None:
        """Ends the connection the hard way: the other side sees a reset."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # A read that another thread waits in would keep the socket open after close().
            self._socket.shutdown(socket.SHUT_RD)
        self._socket.close()

    def offer(self, cycle: int) -> None:
        """Sends the variables if the client wants them in this cycle; a client that does not read is cut off."""
        if not self._started or self._output is None or cycle % self._every:
            return
        number, recipe = self._output
        body = bytes((number,)) + recipe.pack(self._controller.outputs())
        faults = self._server.faults
        try:
            for due in self._late.through(body, time.monotonic(), faults.late_s):
                for _ in range(2 if faults.duplicate else 1):
                    self._send(85, due, split=faults.split)
        except OSError:
            self._server.forget(self)
            self.reset()

    def _send(self, kind: int, body: bytes, *, split: bool = False) -> None:
        frame = _HEADER.pack(len(body) + 3, kind) + body
        with self._sending:
            if not split:
                self._socket.sendall(frame)
                return
            for cut in range(0, len(frame), 97):
                self._socket.sendall(frame[cut : cut + 97])
                time.sleep(2e-4)

    def _run(self) -> None:
        waiting = b""
        with contextlib.suppress(OSError, struct.error):
            while True:
                try:
                    data = self._socket.recv(4096)
                except TimeoutError:
                    continue
                if not data:
                    break
                waiting += data
                while len(waiting) >= 3:
                    size, kind = _HEADER.unpack_from(waiting)
                    if len(waiting) < size:
                        break
                    self._take(kind, waiting[3:size])
                    waiting = waiting[size:]
        self._server.forget(self)
        self._socket.close()

    def _take(self, kind: int, body: bytes) -> None:
        if kind == 86:
            wanted, newest = struct.unpack(">H", body)[0], 1 if self._server.faults.old else 2
            self._send(86, bytes((int(wanted <= newest),)))
        elif kind == 118:
            self._send(118, struct.pack(">4I", *_VERSION))
        elif kind == 79:
            self._set_output(body)
        elif kind == 73:
            self._set_input(body)
        elif kind in (83, 80):
            self._send(kind, b"\x01")
            self._started = kind == 83
        elif kind == 85 and body:
            self._controller.take(self._inputs[body[0]].unpack(body[1:]) if body[0] in self._inputs else {})

    def _set_output(self, body: bytes) -> None:
        wanted_hz = struct.unpack_from(">d", body)[0]
        names = _names(body[8:])
        unknown = self._server.faults.unknown_fields
        kinds = ["NOT_FOUND" if name in unknown else OUTPUTS.get(name, "NOT_FOUND") for name in names]
        number = 0
        if all(kind in FORMATS for kind in kinds):
            number, self._output = 1, (1, Recipe(names, tuple(kinds)))
            self._every = max(1, round(self._cycles_hz / wanted_hz)) if wanted_hz > 0 else 1
        self._send(79, bytes((number,)) + ",".join(kinds).encode())

    def _set_input(self, body: bytes) -> None:
        names = _names(body)
        kinds = self._server.claim(self, names)
        number = 0
        if all(kind in FORMATS for kind in kinds):
            number = len(self._inputs) + 1
            self._inputs[number] = Recipe(names, tuple(kinds))
        self._send(73, bytes((number,)) + ",".join(kinds).encode())


def _names(body: bytes) -> tuple[str, ...]:
    """Returns the names in a list with commas, also one that ends with a comma."""
    return tuple(name.strip() for name in body.decode("ascii").split(",") if name.strip())
