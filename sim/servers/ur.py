"""A Universal Robots controller of its own process, with a simulated bin and arm behind it.

``python -m sim.servers.ur --host 127.0.3.1`` listens where a real one does (dashboard 29999, programs 30001 to 30003,
RTDE 30004), so several run side by side on addresses of their own. When everything listens, one line of JSON
on standard output says so. The fault port takes what a test or ``faults`` wants to go wrong.
"""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from qtopt.errors import ConfigError
from robot_bridge.cell.launch import prefer
from sim.config import SimConfig
from sim.plant import Plant
from sim.servers.loopback import require_loopback
from sim.servers.truth import lead_up, plant_trace, plant_truth
from sim.servers.ur_controller import Controller
from sim.servers.ur_lines import DASHBOARD_PORT, SCRIPT_PORTS, TextServer, dashboard, faults, scripts
from sim.servers.ur_rtde import PORT, RtdeServer

FREQUENCIES_HZ = (125.0, 500.0)


class UrServer:
    """All ports of a simulated controller.

    Args:
        host: a loopback address.
        plant: the arm, running; closed by who made it.
        frequency_hz: of the controller's cycle: 500 of an e-Series, 125 of a CB3 or of a small computer.
        fault_port: of the fault port; 0 takes a free one.
        spoil_camera: makes the camera fail in the way that a word names; None without a camera.
        spoil_gripper: the same for the gripper.
    """

    def __init__(
        self,
        host: str,
        plant: Plant,
        frequency_hz: float = 125.0,
        fault_port: int = 0,
        spoil_camera: Callable[[str], None] | None = None,
        spoil_gripper: Callable[[str], None] | None = None,
    ) -> None:
        require_loopback(host)
        if frequency_hz not in FREQUENCIES_HZ:
            raise ConfigError(f"frequency is {frequency_hz} Hz, expected 125 or 500")
        self._plant, self._spoil_camera, self._spoil_gripper = plant, spoil_camera, spoil_gripper
        self._controller = Controller(plant)
        self._rtde = RtdeServer(self._controller, host, frequency_hz)
        self._texts = [TextServer((host, DASHBOARD_PORT), dashboard(self._controller))]
        self._texts += [TextServer((host, port), scripts(self._controller)) for port in SCRIPT_PORTS]
        self._faults = TextServer((host, fault_port), faults(self.inject))
        self.fault_port: int = self._faults.server_address[1]

    def inject(self, request: dict[str, Any]) -> dict[str, Any]:
        """Makes something go wrong, or right again, and tells the truth about the plant; see docs/drivers-ur.md.

        Args:
            request: ``fault`` names it; ``on`` (default true) and other keys say how.

        Returns:
            What there is to tell.

        Raises:
            ConfigError: there is no such fault.
        """
        fault, switch = str(request.get("fault")), bool(request.get("on", True))
        streams = {"silent": "silent", "split_frames": "split", "duplicate_frames": "duplicate", "old_rtde": "old"}
        if fault in streams:
            setattr(self._rtde.faults, streams[fault], switch)
            return {}
        actions: dict[str, Callable[[], dict[str, Any] | None]] = {
            "truth": self._truth,
            "trace": lambda: plant_trace(self._plant, float(request["since_s"])),
            "person": lambda: self._person(float(request.get("lift_m", 0.0))),
            "late_frames": lambda: setattr(self._rtde.faults, "late_s", float(request.get("most_s", 0.0))),
            "frozen_clock": lambda: self._freeze(on=switch),
            "protective_stop": lambda: self._controller.protective_stop("asked for by a test"),
            "emergency_stop": lambda: self._controller.emergency_stop(pressed=switch),
            "safeguard": lambda: self._controller.safeguard(opened=switch),
            "safety_told": lambda: self._tell_safety(request if switch else None),
            "remote_control": lambda: setattr(self._controller, "remote_control", switch),
            "pose_jump": lambda: self._jump(request.get("by_m", [0.0, 0.0, 0.08]) if switch else [0.0] * 3),
            "nan": lambda: setattr(self._controller, "not_a_number", switch),
            "wrong_units": lambda: setattr(self._controller, "units_in_m", 1000.0 if switch else 1.0),
            "unlock_refused": lambda: setattr(self._controller, "unlock_refused", switch),
            "unlock_lies": lambda: setattr(self._controller, "unlock_lies", switch),
            "program_stop": lambda: self._controller.end_program("stopped from the pendant"),
            "hot_joint": lambda: setattr(self._controller, "hottest_joint_c", float(request["celsius"])),
            "speed_slider": lambda: self._controller.set_slider(float(request["fraction"])),
            "drop_connections": lambda: self._drop(float(request.get("away_s", 0.0))),
            "not_found": lambda: self._deny("unknown_fields", request),
            "in_use": lambda: self._deny("owned_fields", request),
            "push": lambda: self._plant.push(request["force_n"], float(request.get("grows_s", 0.0))),
            "slip": self._plant.slip,
            "camera": lambda: self._spoil(self._spoil_camera, request),
            "gripper": lambda: self._spoil(self._spoil_gripper, request),
            "refill": lambda: self._plant.refill(request.get("seed")),
        }
        if fault not in actions:
            raise ConfigError(f"fault is {fault!r}, expected one of {', '.join(sorted([*actions, *streams]))}")
        return actions[fault]() or {}

    def close(self) -> None:
        """Ends all connections and stops the arm."""
        for server in (*self._texts, self._faults):
            server.drop_connections()
            server.shutdown()
            server.server_close()
        self._rtde.close()
        self._plant.stop(4.0)

    def _truth(self) -> dict[str, Any]:
        return {
            **plant_truth(self._plant),
            "program_running": self._controller.program_running,
            "payload_kg": self._controller.payload[0],
            "log": self._controller.log[-20:],
        }

    def _person(self, lift_m: float) -> None:
        self._controller.person_clears()
        lead_up(self._plant, lift_m)

    def _freeze(self, *, on: bool) -> None:
        now = self._controller.outputs()["timestamp"]
        assert isinstance(now, float)
        self._controller.frozen_time_s = now if on else None

    def _tell_safety(self, request: dict[str, Any] | None) -> None:
        self._controller.safety_told = (int(request["mode"]), int(request["bits"])) if request else None

    def _jump(self, by_m: list[float]) -> None:
        x, y, z = by_m
        self._controller.pose_jump_m = (float(x), float(y), float(z))

    def _spoil(self, device: Callable[[str], None] | None, request: dict[str, Any]) -> None:
        if device is None:
            raise ConfigError("this server has no camera and no gripper; qtopt robot serve-sim has both")
        device(str(request["what"]) if request.get("on", True) else "none")

    def _deny(self, which: str, request: dict[str, Any]) -> None:
        setattr(self._rtde.faults, which, frozenset(request.get("names", [])))

    def _drop(self, away_s: float) -> dict[str, Any]:
        texts = sum(each.drop_connections(away_s) for each in self._texts)
        return {"dropped": self._rtde.drop_connections(away_s) + texts}


def main(arguments: list[str] | None = None) -> None:
    """Runs a simulated controller until SIGTERM or SIGINT comes."""
    parser = argparse.ArgumentParser(prog="python -m sim.servers.ur", description=__doc__)
    parser.add_argument("--host", default="127.0.3.1", help="a loopback address")
    parser.add_argument("--seed", type=int, default=0, help="of the sequence of bins")
    parser.add_argument("--objects", type=int, default=5, help="in the bin when it is filled")
    parser.add_argument("--frequency", type=float, default=125.0, help="cycles in a second: 125 or 500")
    parser.add_argument("--fault-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--speedup", type=float, default=1.0, help="simulated seconds in one")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one has")
    options = parser.parse_args(arguments)
    parent = os.getppid()
    sys.setswitchinterval(1e-3)  # the physics thread would keep the others waiting for five times as long
    prefer()  # in place of hardware, which no other program keeps waiting
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    with Plant(SimConfig(object_count=(options.objects, options.objects)), options.seed, options.speedup) as plant:
        server = UrServer(options.host, plant, options.frequency, options.fault_port)
        ready = {"ready": True, "host": options.host, "rtde": PORT, "dashboard": DASHBOARD_PORT}
        sys.stdout.write(json.dumps({**ready, "faults": server.fault_port}) + "\n")
        sys.stdout.flush()
        while not done.wait(1.0) and (os.getppid() == parent or not options.with_parent):
            pass
        server.close()


if __name__ == "__main__":
    main()
