"""Simulated cells in processes of their own, with one language for what is to go wrong with any of them."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from qtopt.errors import RobotError
from robot_bridge.cell.places import Places
from robot_bridge.contracts import Latch
from sim.faults.judge import Sample
from sim.hand import MAX_WIDTH_M

SPEED_M_S: Final = 0.07
SLOW_M_S: Final = 0.06
_LIFT_M: Final = 0.1
_HIGH_M: Final = 0.35
_HEAL: Final = (
    "silent", "frozen_clock", "split_frames", "duplicate_frames", "late_frames", "emergency_stop", "safeguard", "nan",
    "wrong_units", "pose_jump", "gripper", "camera", "unlock_refused", "unlock_lies",
)  # fmt: skip
_HAS_NOT: Final[Mapping[str, tuple[str, ...]]] = {
    "ur": (),
    "xarm": ("safeguard", "speed_slider"),
    "http": ("split_frames", "duplicate_frames", "late_frames"),
    "so101": (
        "frozen_clock", "duplicate_frames", "late_frames", "emergency_stop", "safeguard", "nan", "wrong_units",
        "speed_slider", "unlock_refused", "unlock_lies",
    ),
    "franka": ("split_frames", "late_frames", "emergency_stop", "speed_slider"),
}  # fmt: skip
"""Faults that a kind of cell cannot have, and need not be healed of."""
_LED: Final = ("ur", "xarm", "franka")
"""Those that a person can lead up out of what they press on."""
_SMALL: Final = ("--camera-px", "128")
_PRESSED: Final = ("contact_latch", "contact_retract", "protective_stop", "reflex")
_XARM_WORDS: Final = {
    "silent": "silent_reports",
    "frozen_clock": "frozen_reports",
    "protective_stop": "collision",
    "pose_jump": "pose_jump_mm",
}
_XARM_VALUES: Final = {"drop_connections": "away_s", "push": "force_n", "refill": "seed", "late_frames": "most_s"}
_XARM_FLAGS: Final = {"flag 2": 2, "flag 3": 0}
"""What a Robotiq's flag says, in the numbers of an xArm's gripper: holding, stopped."""
_WATCHDOG: Final = "\nwatchdog_hz = 4.0\n\n[gripper]"
"""Simulator and driver share a machine with others: a controller that hears nothing for 0.1 s would stop by itself."""


class SimulatedCell:
    """``qtopt robot serve-sim`` on an address of its own; may be used in a ``with`` statement.

    Args:
        protocol: ``ur``, ``xarm``, ``http``, ``so101`` or ``franka``.
        directory: where its cell file goes.
        host: a loopback address that nobody else uses.
        speed_m_s: of the tool; so slow by default that every reaction is over before a motion would be; None leaves
            the cell file as ``serve-sim`` wrote it.
        options: further words of ``serve-sim``.

    Attributes:
        path: of the cell file.
        host: its address.
    """

    def __init__(
        self,
        protocol: str,
        directory: Path,
        host: str,
        speed_m_s: float | None = SPEED_M_S,
        *,
        options: Sequence[str] = _SMALL,
    ) -> None:
        self.protocol, self.host, self.path = protocol, host, directory / "cell.toml"
        command = [sys.executable, "-m", "qtopt.cli", "robot", "serve-sim", "--protocol", protocol, "--host", host]
        self.process = subprocess.Popen(
            [*command, "--output", str(self.path), *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "faults on port" not in line:
            self.process.wait(10.0)
            raise RobotError(f"the simulated cell did not start; it said {line.strip()!r}")
        port = int(line.split("faults on port ")[1].split(";")[0])
        text = self.path.read_text()
        if speed_m_s is not None:
            text = re.sub(r"(?m)^speed_m_s = .*$", f"speed_m_s = {speed_m_s}", text)
            text = re.sub(r"(?m)^slow_speed_m_s = .*$", f"slow_speed_m_s = {min(SLOW_M_S, speed_m_s)}", text)
        self.path.write_text(text.replace("\n\n[gripper]", _WATCHDOG) if protocol == "ur" else text)
        self._socket = socket.create_connection((host, port), 10.0)
        self._lines = self._socket.makefile("rw")

    def __enter__(self) -> "SimulatedCell":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def inject(self, fault: str, **how: Any) -> None:
        """Makes something go wrong, in the words of the UR controller's fault port; ``on=False`` takes it back."""
        self._ask(self._in_its_words(fault, how) if self.protocol == "xarm" else {"fault": fault, **how})

    def signal(self, number: int) -> None:
        """Sends a signal to the controller: to ``serve-sim``, and to the process that a Franka's is in."""
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            parts = psutil.Process(self.process.pid).children()
            for part in (each for each in parts if any("franka_controller" in word for word in each.cmdline())):
                part.send_signal(number)
            self.process.send_signal(number)

    def truth(self) -> dict[str, Any]:
        """Returns what is so."""
        return self._ask({"truth": True} if self.protocol == "xarm" else {"fault": "truth"})

    def opening_m(self) -> float:
        """Returns how far the fingers are apart [m]; open ones may be bent outwards by what is jammed between them."""
        return min(MAX_WIDTH_M, float(self.truth()["width_m"]))

    def trace(self, since_s: float) -> list[Sample]:
        """Returns the tool's way since ``since_s`` of ``time.monotonic``."""
        asked = {"trace": since_s} if self.protocol == "xarm" else {"fault": "trace", "since_s": since_s}
        trace: list[Sample] = self._ask(asked)["trace"]
        return trace

    def heal(self) -> None:
        """Takes every fault back, and does what a person at the arm does after a stop; nothing moves by that."""
        self.signal(signal.SIGCONT)
        has_not = _HAS_NOT[self.protocol]
        for fault in _HEAL:
            if fault not in has_not:
                self.inject(fault, on=False)
        self.inject("push", force_n=[0.0, 0.0, 0.0])
        if "speed_slider" not in has_not:
            self.inject("speed_slider", fraction=1.0)
        self.inject("person")

    def free(self) -> None:
        """Does what a person does where the tool presses on something: leads it up, slowly; of UR, xArm, Franka."""
        lift_m = min(_LIFT_M, _HIGH_M - self.truth()["tool"][2])
        if lift_m > 0.0:  # higher up nothing presses, and higher still it would be out of the box
            self.inject("person", lift_m=lift_m)
            until(lambda: not self.truth()["moving"], 10.0, 0.1)

    def unlock(self, places: Places) -> Latch | None:
        """Does what a person does who comes, looks, and unlocks; returns what had locked motion, if anything."""
        latch = places.latched()
        if latch is None:
            return None
        self.inject("person")
        if latch.rule in _PRESSED and self.protocol in _LED:
            self.free()
        places.latch_file.acknowledge("simulated person", "the cause was taken back")
        return latch

    def close(self) -> None:
        """Ends the process."""
        self._lines.close()
        self._socket.close()
        self.signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._lines.write(json.dumps(request) + "\n")
        self._lines.flush()
        answer: dict[str, Any] = json.loads(self._lines.readline())
        if isinstance(answer.get("error"), str):  # the truth of an xArm has its error's number
            raise RobotError(f"{self.protocol}, {request}: {answer['error']}")
        return answer

    def _in_its_words(self, fault: str, how: Mapping[str, Any]) -> dict[str, Any]:
        switch = bool(how.get("on", True))
        value: Any = switch
        if fault == "person":
            value = how.get("lift_m", True)
        elif fault == "pose_jump":
            value = 80.0 if switch else 0.0
        elif fault in _XARM_VALUES and switch:
            value = how[_XARM_VALUES[fault]]
        elif fault == "camera":
            value = how["what"] if switch else "none"
        elif fault == "gripper":
            if not switch:
                for each in ("gripper_silent", "gripper_jammed"):
                    self._ask({"fault": each, "value": False})
                self._ask({"fault": "gripper_flag", "value": None})
                return {"fault": "gripper_error", "value": 0}
            if how["what"] in _XARM_FLAGS:
                return {"fault": "gripper_flag", "value": _XARM_FLAGS[how["what"]]}
            return {"fault": f"gripper_{how['what']}", "value": True}
        return {"fault": _XARM_WORDS.get(fault, fault), "value": value}


def until(condition: Any, seconds: float, period_s: float = 0.01) -> bool:
    """Waits until something is so; returns whether it came about in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(period_s)
    return True
