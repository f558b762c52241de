"""Everything that could be wrong with a cell, looked at without any motion."""

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from qtopt import __version__
from qtopt.apps.process import say
from qtopt.apps.robot import Check
from qtopt.errors import ConfigError, NotReady, QtOptError, RobotError
from qtopt.loops.filmstrip import save_png
from qtopt.specs import STEP_XY_M, STEP_YAW_RAD, STEP_Z_M
from qtopt.types import UInt8Array
from robot_bridge import registry
from robot_bridge.cell import parts
from robot_bridge.cell.camera import ChildCamera
from robot_bridge.cell.places import Places
from robot_bridge.cell.processes import CellProcesses
from robot_bridge.cell.records import STILL_M_S, Report, speed_m_s
from robot_bridge.cell_file import CellFile, load_cell_file
from robot_bridge.contracts import ArmMode, ArmState, Capability
from robot_bridge.drivers.no_stop import NoStopChannel
from robot_bridge.onnx_policy import OnnxPolicy
from robot_bridge.success_config import Polygon

OK, CONFIG, UNREACHABLE, UNSAFE, CAMERA, SUCCESS = 0, 2, 3, 4, 5, 6
_LOOK_S: Final = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: of what was looked at.
        seen: what was found, and what to do where it is not good.
        code: exit code where it is not good; 0 where it is.
        warning: it is good enough, but a person should know.
    """

    name: str
    seen: str
    code: int = OK
    warning: bool = False


def main(config: Check) -> int:
    """Looks at everything and says what it found; returns the code of the first thing that is wrong."""
    examination = Examination(config.cell, config.picture)
    with contextlib.suppress(_Over):
        examination.run()
    codes = [finding.code for finding in examination.findings if finding.code]
    code = codes[0] if codes else OK
    if config.json:
        rows = [asdict(finding) for finding in examination.findings]
        say(json.dumps({"version": __version__, "cell": str(config.cell), "code": code, "findings": rows}))
        return code
    for finding in examination.findings:
        mark = "FAIL" if finding.code else ("note" if finding.warning else "ok  ")
        say(f"{mark} {finding.name:<14} {finding.seen}")
    say("ready" if code == OK else f"not ready (exit code {code})")
    return code


class _Over(Exception):
    """What was just found makes the rest pointless."""


class Examination:
    """Looks at one thing after the other.

    Args:
        path: of the cell file.
        picture: where the main camera's picture is written; None for nowhere.

    Attributes:
        findings: so far.
    """

    def __init__(self, path: Path, picture: Path | None = None) -> None:
        self._path, self._picture = path, picture
        self.findings: list[Finding] = []

    def run(self) -> None:
        """Looks at everything; raises ``_Over`` where going on is pointless."""
        cell = self._need("cell file", CONFIG, lambda: load_cell_file(self._path))
        self._good("configuration", f"{cell.cell}, {cell.config_hash[:12]}")
        drivers = self._need("drivers", CONFIG, lambda: registry.resolve(cell))
        self._good("drivers", registry.told(cell, drivers))
        places = Places(cell)
        self._latch(places)
        self._disk(cell)
        self._policy(cell)
        self._cameras(cell)
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(places.sole_client())
            except ConfigError as error:
                self._bad("arm", str(error), UNSAFE)
                return
            if self._installation(drivers):  # or the driver would set what it was told, and nobody saw it again
                self._arm(cell, places)
                self._stop_path(cell)
        self._success(cell)

    def _installation(self, drivers: registry.Resolved) -> bool:
        """Returns whether the controller has tool point and payload as the cell file, as far as that can be told."""
        if drivers.arm.differences is None:
            return True
        try:
            found = drivers.arm.differences(drivers.arm_options)
        except RobotError as error:
            self._note("installation", f"tool point and payload were not compared: {error}")
            return True
        if found:
            self._unsafe("installation", f"{'; '.join(found)}: correct which is wrong, then measure the bin anew")
        else:
            self._good("installation", "the controller has tool point and payload of the cell file")
        return not found

    def _arm(self, cell: CellFile, places: Places) -> None:
        processes = self._need("arm, gripper", UNREACHABLE, lambda: CellProcesses(self._path, cell, places))
        try:
            first = processes.report()
            time.sleep(_LOOK_S)
            report = processes.report()
            self._capabilities(processes.capabilities)
            if first.arm is not None and report.arm is not None:
                self._state(cell, report, report.arm)
                self._clock(first.arm, report.arm)
            safety = processes.safety_report()
            if safety is not None and safety.arm is not None:
                self._good("second line", f"the safety process sees {safety.arm.mode.value}")
        except RobotError as error:
            self._bad("arm, gripper", str(error), UNREACHABLE)
        finally:
            processes.close()

    def _capabilities(self, found: frozenset[Capability]) -> None:
        self._good("capabilities", ", ".join(sorted(found)))
        if not found & {Capability.WRENCH_MEASURED, Capability.WRENCH_ESTIMATED, Capability.CONTACT_STOP}:
            self._note("contact", "the arm feels no contact: keep a person present and the speed low")

    def _state(self, cell: CellFile, report: Report, arm: ArmState) -> None:
        text = f"{arm.mode.value}, program {'runs' if arm.program_running else 'does not run'}, codes {dict(arm.codes)}"
        safe = arm.mode in (ArmMode.READY, ArmMode.HOLD, ArmMode.IDLE) and arm.program_running
        (self._good if safe else self._unsafe)("mode", text)
        (self._good if speed_m_s(arm) < STILL_M_S else self._unsafe)("standstill", f"{speed_m_s(arm):.4f} m/s")
        if report.latch:
            self._bad("monitor", f"{report.latch}; motion is locked: see to it, then qtopt robot ack", UNSAFE)
        elif report.note:
            self._note("monitor", report.note)
        scale = f"the speed slider is at {arm.speed_scale:.0%}"
        (self._good if arm.speed_scale >= cell.limits.speed_scale_min else self._unsafe)("slider", scale)
        if report.gripper is None or report.gripper.fault:
            self._bad("gripper", "silent" if report.gripper is None else report.gripper.fault, UNREACHABLE)
        else:
            self._good("gripper", f"{1000 * report.gripper.width_m:.1f} mm open")
        position = ", ".join(f"{value:.3f}" for value in arm.pose.position_m)
        self._good("tool point", f"at {position} m; hold a ruler to it: a wrong tool offset is seen here")

    def _clock(self, first: ArmState, last: ArmState) -> None:
        host_s, arm_s = (last.t_host_ns - first.t_host_ns) / 1e9, last.t_controller_s - first.t_controller_s
        drift = abs(arm_s / host_s - 1.0) if host_s > 0 else 1.0
        text = f"the controller's clock made {arm_s:.3f} s in {host_s:.3f} s"
        (self._good if drift < 0.2 else self._unsafe)("clock", text)

    def _stop_path(self, cell: CellFile) -> None:
        """Sends the safety process's stop to the standing arm, and sees that it was taken."""
        line = parts.make_stop_channel(cell)
        if isinstance(line, NoStopChannel):
            self._note("stop path", line.why)
            return
        try:
            line.connect(5.0)
            stands = speed_m_s(line.state()) < STILL_M_S
            accepted = line.stop() if stands else False
        except RobotError as error:
            self._bad("stop path", str(error), UNREACHABLE)
            return
        finally:
            line.close()
        if accepted:
            self._good("stop path", "a stop was sent to the standing arm and accepted")
        else:
            self._bad("stop path", "no stop was accepted" if stands else "the arm moves", UNSAFE)

    def _cameras(self, cell: CellFile) -> None:
        for name in cell.cameras:
            camera = ChildCamera(self._path, cell, name)
            try:
                camera.start()
                self._camera(cell, name, camera)
            except QtOptError as error:
                self._bad(f"camera {name}", str(error), CAMERA)
            finally:
                camera.stop()

    def _camera(self, cell: CellFile, name: str, camera: ChildCamera) -> None:
        first = camera.latest(2.0)
        time.sleep(_LOOK_S)
        last = camera.latest(2.0)
        rate = (last.sequence - first.sequence) / max(1e-9, (last.t_receive_ns - first.t_receive_ns) / 1e9)
        age_s = (time.monotonic_ns() - last.t_capture_ns) / 1e9
        height, width, _ = last.rgb.shape
        text = f"{width} x {height}, {rate:.0f} frames/s, {1000 * age_s:.0f} ms old, brightness {last.rgb.mean():.0f}"
        arrives_s, hold_s = (last.t_receive_ns - last.t_capture_ns) / 1e9, cell.watchdog.camera_hold_s
        if max(age_s, arrives_s + 1.0 / max(rate, 1e-3)) < hold_s:
            self._good(f"camera {name}", text)
        else:
            self._bad(f"camera {name}", f"{text}; the arm holds where the newest is {hold_s:g} s old", CAMERA)
        outside = [corner for corner in cell.success.bin_region if corner[0] >= width or corner[1] >= height]
        if name == "main" and outside:
            text = (
                f"bin_region has {outside[0]}, outside of its pictures of {width} x {height} pixels; mark the bin anew"
            )
            self._bad(f"camera {name}", text, CAMERA)
        if name == "main" and self._picture is not None:
            self._draw(self._picture, last.rgb, cell.success.bin_region)
        if name == "main" and not cell.success.bin_region:
            self._note("bin_region", "not marked: a bumped camera can look like a grasp; see docs/success-detection.md")
        try:
            self._good(f"{name} settings", f"fixed: {dict(camera.lock_settings())}")
        except RobotError as error:
            if cell.cameras[name].options.get("exposure") is None:
                self._note(f"{name} settings", str(error))
            else:  # it was to stay as the file says; one that changes breaks the drop test
                self._bad(f"{name} settings", str(error), CAMERA)

    def _draw(self, path: Path, rgb: UInt8Array, bin_region: Polygon) -> None:
        """Writes a picture, with the bin's corners in it where they are marked."""
        picture = rgb.copy()
        if bin_region:
            cv2.polylines(picture, [np.array(bin_region, np.int32)], isClosed=True, color=(0, 255, 0))
        try:
            save_png(picture, path)
        except OSError as error:
            self._bad("picture", f"{path} cannot be written: {error.strerror}", CONFIG)
            return
        self._good("picture", f"written to {path}, in the pixels that bin_region counts")

    def _latch(self, places: Places) -> None:
        latch = places.latched()
        if latch is None:
            self._good("lock", "motion is free")
        else:
            self._bad("lock", f"{latch.rule}: {latch.reason}; look at the cell, then qtopt robot ack", UNSAFE)
        obstacle = places.latch_file.obstacle()
        if obstacle:
            self._bad("lock", obstacle, CONFIG)
            raise _Over

    def _disk(self, cell: CellFile) -> None:
        known = next(each for each in (cell.spool.dir.absolute(), *cell.spool.dir.absolute().parents) if each.exists())
        usage = shutil.disk_usage(known)
        share = usage.free / usage.total
        text = f"{share:.0%} free at {known}, expected {cell.spool.min_free:.0%}"
        (self._good if share >= cell.spool.min_free else self._unsafe)("disk", text)
        if not os.access(known, os.W_OK):
            self._bad("disk", f"{known} cannot be written; episodes are kept there until they are sent", CONFIG)

    def _success(self, cell: CellFile) -> None:
        success = cell.success
        if success.drop_test != "never" and not success.calibrated:
            self._bad("success", "no thresholds of this cell; run qtopt robot calibrate CELL success", SUCCESS)
        else:
            empty, day = 1000 * cell.grasp.closed_empty_width_m, success.calibrated or "never"
            text = f"empty fingers at {empty:.1f} mm, drop test {success.drop_test}, thresholds found {day}"
            self._good("success", text)

    def _policy(self, cell: CellFile) -> None:
        source = cell.policy.source
        if source.startswith("onnx:"):
            policy = self._need("policy", CONFIG, lambda: OnnxPolicy(Path(source.removeprefix("onnx:"))))
            self._good("policy", f"{source}, of step {policy.manifest.step}")
        else:
            self._good("policy", source)
        limits = cell.limits
        if limits.step_m < max(STEP_XY_M, STEP_Z_M) or limits.step_yaw_rad < STEP_YAW_RAD:
            found = f"{1000 * limits.step_m:.0f} mm and {math.degrees(limits.step_yaw_rad):.0f} degrees"
            asked = f"{1000 * max(STEP_XY_M, STEP_Z_M):.0f} mm and {math.degrees(STEP_YAW_RAD):.0f} degrees"
            self._note("steps", f"cut to {found}; a policy of the simulator asks for {asked} at most")

    def _need(self, name: str, code: int, look: Callable[[], Any]) -> Any:
        try:
            return look()
        except QtOptError as error:
            known = {ConfigError: CONFIG, NotReady: UNSAFE}
            self._bad(name, str(error), next((known[kind] for kind in known if isinstance(error, kind)), code))
            raise _Over from error

    def _good(self, name: str, seen: str) -> None:
        self.findings.append(Finding(name, seen))

    def _note(self, name: str, seen: str) -> None:
        self.findings.append(Finding(name, seen, warning=True))

    def _unsafe(self, name: str, seen: str) -> None:
        self._bad(name, seen, UNSAFE)

    def _bad(self, name: str, seen: str, code: int) -> None:
        self.findings.append(Finding(name, seen, code))
