"""The ports of a simulated Universal Robots controller that take text: dashboard, programs, and faults for tests."""

import contextlib
import json
import re
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from sim.servers.ur_controller import EMERGENCY, NORMAL, PROTECTIVE, SAFEGUARD, Controller

DASHBOARD_PORT = 29999
SCRIPT_PORTS = (30001, 30002, 30003)
_SAFETY_WORDS = {
    NORMAL: "NORMAL",
    PROTECTIVE: "PROTECTIVE_STOP",
    SAFEGUARD: "SAFEGUARD_STOP",
    EMERGENCY: "ROBOT_EMERGENCY_STOP",
}
_MODE_WORDS = {7: "RUNNING", 5: "IDLE", 3: "POWER_OFF"}
_STOP = re.compile(r"\bstop[lj]\(\s*([0-9.]+)")


class TextServer(socketserver.ThreadingTCPServer):
    """A port on which every connection has a thread and a function to serve it.

    Args:
        address: host and port.
        serve: given the connection's handler.

    Attributes:
        away_until: whoever connects before that moment (``time.monotonic``) [s] is turned away.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], serve: Callable[[socketserver.StreamRequestHandler], None]) -> None:
        self.away_until = 0.0
        self._open: set[socketserver.StreamRequestHandler] = set()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer._open.add(self)
                with contextlib.suppress(OSError, ValueError):
                    serve(self)
                outer._open.discard(self)

        super().__init__(address, Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection is taken."""
        return time.monotonic() >= self.away_until

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of connections that broke."""

    def drop_connections(self, away_s: float = 0.0) -> int:
        """Resets every connection, and takes no other for ``away_s``; returns how many there were."""
        self.away_until = time.monotonic() + away_s
        handlers = list(self._open)
        for handler in handlers:
            with contextlib.suppress(OSError):
                handler.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                handler.connection.shutdown(0)
        return len(handlers)


def dashboard(controller: Controller) -> Callable[[socketserver.StreamRequestHandler], None]:
    """Returns what serves a connection of the dashboard."""

    def serve(handler: socketserver.StreamRequestHandler) -> None:
        handler.wfile.write(b"Connected: Universal Robots Dashboard Server\n")
        for line in handler.rfile:
            request = line.decode("ascii", "replace").strip()
            handler.wfile.write(dashboard_answer(controller, request).encode() + b"\n")
            if request == "quit":
                return

    return serve


def dashboard_answer(controller: Controller, request: str) -> str:
    """Does what a line of the dashboard asks for; returns the answer."""
    low = request.lower()
    running = controller.program_running
    facts = {
        "polyscopeversion": "URSoftware 5.15.0.126163 (Nov 15 2023)",
        "version": "URSoftware 5.15.0.126163 (Nov 15 2023)",
        "get serial number": "20245500001",
        "get robot model": "UR5",
        "is in remote control": str(controller.remote_control).lower(),
        "robotmode": f"Robotmode: {_MODE_WORDS[controller.robot_mode]}",
        "safetystatus": f"Safetystatus: {_SAFETY_WORDS[controller.safety_mode]}",
        "safetymode": f"Safetymode: {_SAFETY_WORDS[controller.safety_mode]}",
        "running": f"Program running: {str(running).lower()}",
        "programstate": f"{'PLAYING' if running else 'STOPPED'} rtde_control.urp",
        "quit": "Disconnected",
    }
    if low in facts:
        return facts[low]
    if not controller.remote_control:
        return f"Command is not allowed due to safety reasons: {request}"
    return _act(controller, low, request)


def _act(controller: Controller, low: str, request: str) -> str:
    if low == "stop":
        if not controller.program_running and not controller.busy():
            return "Failed to execute: stop"
        controller.end_program("stopped from the dashboard")
        return "Stopped"
    if low == "unlock protective stop":
        return controller.unlock()
    if low == "power on":
        controller.power(on=True)
        return "Powering on"
    if low == "power off":
        controller.power(on=False)
        return "Powering off"
    if low == "brake release":
        controller.release_brakes()
        return "Brake releasing"
    fixed = {
        "close safety popup": "closing safety popup",
        "close popup": "closing popup",
        "restart safety": "Restarting safety",
        "play": "Failed to execute: play",
    }
    return fixed.get(low, f'could not understand: "{request}"')


def scripts(controller: Controller) -> Callable[[socketserver.StreamRequestHandler], None]:
    """Returns what serves a connection on which programs come: a program ends with its outermost ``end``."""

    def serve(handler: socketserver.StreamRequestHandler) -> None:
        text = ""
        for line in handler.rfile:
            text += line.decode("utf-8", "replace")
            if line.rstrip() == b"end" or not text.lstrip().startswith(("def", "#")):
                take_program(controller, text)
                text = ""

    return serve


def take_program(controller: Controller, text: str) -> None:
    """Starts a program, or does what a short one without a loop says."""
    stop = _STOP.search(text) if "rtde_control" not in text else None
    if stop is not None and controller.remote_control:
        controller.end_program("a program that stops")
        controller.brake(float(stop.group(1)))
    else:
        controller.upload(text)


def faults(inject: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[socketserver.StreamRequestHandler], None]:
    """Returns what serves a connection of the fault port: one JSON object a line, asked and answered."""

    def serve(handler: socketserver.StreamRequestHandler) -> None:
        for line in handler.rfile:
            try:
                answer = {"ok": True, **inject(json.loads(line))}
            except Exception as error:  # whoever injects must hear what was wrong with it
                answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            handler.wfile.write(json.dumps(answer).encode() + b"\n")

    return serve
