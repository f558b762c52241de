"""Measurements that a cell file needs, printed as the lines to put into it; the file itself is left to its owner."""

import contextlib
import datetime
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

from qtopt.apps.process import begin_motion, say
from qtopt.apps.robot import Calibrate
from qtopt.errors import ConfigError, RobotError
from robot_bridge import registry
from robot_bridge.cell import parts
from robot_bridge.cell.open import PhysicalCell
from robot_bridge.cell.records import speed_m_s
from robot_bridge.cell_file import CellFile, load_cell_file
from robot_bridge.contracts import ArmMode, ArmState
from robot_bridge.drivers.no_stop import NoStopChannel
from robot_bridge.robot import ToolPose
from robot_bridge.safety.facts import Phase
from robot_bridge.safety.limits import BinGeometry
from robot_bridge.success.calibrate import (
    CLOSES,
    PAIRS,
    blob_threshold,
    empty_width,
    picture_motion,
    pixel_threshold,
    signal_latency,
)
from robot_bridge.success.images import compare, median_picture
from robot_bridge.success.recording import Recording
from robot_bridge.view import CellCamera

_ANY_SIZE = 64
_SWING_M = 0.05
_PAUSES_S = (0.0, 0.25, 0.1)
"""Uneven, so that no swing looks like another one and only one lag fits."""
_FRAMES = 5
_NEW_S = 2.0
_LOOK_S = 0.02
_STILL_M_S = 0.005
_APART_M = 0.01


def main(config: Calibrate) -> int:
    """Measures.

    Raises:
        ConfigError: so few repeats prove nothing; nothing was moved.
        RobotError: arm or camera cannot be reached, or motion is locked.
    """
    cell = load_cell_file(config.cell)
    least = {"gripper": CLOSES, "success": PAIRS}.get(config.what, 0)
    if config.repeats < least:
        raise ConfigError(f"repeats is {config.repeats}, calibrate {config.what} wants {least} at least")
    if config.what == "box":
        with _reports(cell) as report:
            return _box(report)
    begin_motion("calibrate")
    measure = {"gripper": _gripper, "success": _success, "latency": _latency}[config.what]
    with _standing_clear(config) as physical:
        return measure(physical, config.repeats)


@contextlib.contextmanager
def _standing_clear(config: Calibrate) -> Iterator[PhysicalCell]:
    """Gives the cell with its arm at the clear pose, and slow."""
    with contextlib.closing(PhysicalCell(config.cell, _ANY_SIZE)) as physical:
        latch = physical.places.latched()
        if latch is not None:
            raise RobotError(f"motion is locked by {latch.rule}: {latch.reason}; qtopt robot ack comes first")
        physical.robot.slow = True
        physical.robot.go_clear()
        yield physical


def _gripper(physical: PhysicalCell, repeats: int) -> int:
    """Closes the empty fingers again and again."""
    widths = []
    for _ in range(repeats):
        physical.robot.grip(close=True)
        widths.append(physical.robot.state().gripper_width_m)
        physical.robot.grip(close=False)
    found = empty_width(widths)
    say(f"# {repeats} closes on nothing: {1000 * found.mean_m:.2f} +- {1000 * found.sigma_m:.2f} mm")
    say(f"[grasp]\nclosed_empty_width_m = {found.mean_m:.5f}")
    say(f"[success]\nwidth_margin_m = {max(0.002, 3.0 * found.sigma_m):.5f}")
    return 0


def _success(physical: PhysicalCell, repeats: int) -> int:
    """Takes pictures of the untouched bin, the arm coming back to its clear pose before each."""
    camera = CellCamera(physical.camera, max_age_s=physical.cell.watchdog.camera_stop_s)
    pictures = []
    for _ in range(repeats + 1):
        physical.robot.enter(Phase.TRANSIT)
        tool = physical.robot.state().tool
        physical.robot.move(type(tool)(tool.x_m, tool.y_m, tool.z_m - 0.03, tool.yaw_rad))
        physical.robot.go_clear()
        pictures.append(median_picture([camera.capture() for _ in range(_FRAMES)]))
    pairs = list(pairwise(pictures))
    config = replace(physical.cell.success, diff_t=pixel_threshold(pairs))
    changes = [compare(*pair, config) for pair in pairs]
    inside, around = [change.area_px for change in changes], [change.control_px for change in changes]
    say(
        f"# {repeats} pairs of an untouched bin: largest change {max(inside)} pixels, {max(around)} in its surroundings"
    )
    say(f"[success]\ndiff_t = {config.diff_t:g}\ndiff_area_px = {blob_threshold(inside)}")
    if config.bin_region:
        say(f"control_area_px = {blob_threshold(around)}")
    else:
        say("# no surroundings are watched: write bin_region, then calibrate again")
    say(f'calibrated = "{datetime.datetime.now(datetime.UTC).date()}"')
    return 0


def _latency(physical: PhysicalCell, repeats: int) -> int:
    """Swings the arm to and fro above the bin and compares when it moved with when the camera saw it move."""
    robot = physical.robot
    robot.enter(Phase.TRANSIT)
    x_m, y_m = ((a + b) / 2 for a, b in zip(physical.cell.bin.inner_min_m, physical.cell.bin.inner_max_m, strict=True))
    yaw_rad = robot.state().tool.yaw_rad
    robot.move(ToolPose(x_m, y_m, robot.travel_z_m, yaw_rad))
    with Recording(physical.camera, lambda: robot.processes.report().arm) as seen:
        for number in range(repeats):
            aside_m = _SWING_M if number % 2 else -_SWING_M
            robot.move(ToolPose(x_m, y_m + aside_m, robot.travel_z_m, yaw_rad))
            time.sleep(_PAUSES_S[number % len(_PAUSES_S)])
    robot.go_clear()
    times_s, way = seen.track()
    found = signal_latency(seen.received_s, picture_motion(seen.pictures), times_s, way)
    say(
        f"# {len(seen.pictures)} pictures of {repeats} swings: {1000 * found.latency_s:.0f} ms behind the arm, "
        f"agreement {found.correlation:.2f}"
    )
    say(f"[camera.main]\nlatency_s = {found.latency_s:.3f}")
    return 0


@contextlib.contextmanager
def _reports(cell: CellFile) -> Iterator[Callable[[], ArmState]]:
    """Gives what tells where the arm is, over the second way to it.

    Raises:
        ConfigError: there is none, or the controller's own tool point or payload is not the cell file's.
    """
    driver = registry.arm_driver(cell.arm.driver)
    if driver.differences is not None:
        try:
            found = driver.differences(registry.driver_options(driver, cell.arm, "[arm]"))
        except RobotError as error:
            say(f"# tool point and payload were not compared with the controller's own: {error}")
        else:
            if found:
                words = "; ".join(found)
                raise ConfigError(
                    f"calibrate box measures with the controller's own tool point: {words}; correct which is wrong"
                )
    line = parts.make_stop_channel(cell)
    if isinstance(line, NoStopChannel):
        raise ConfigError(
            f"calibrate box listens on a second connection, and the driver {cell.arm.driver} has none; lead the finger "
            "tips to two opposite inner corners and to the rim, read the tool's place in the vendor's own program, and "
            "write floor_z_m, inner_min_m, inner_max_m and rim_z_m into [bin]"
        )
    with contextlib.closing(line):
        line.connect(5.0)
        yield line.state


def _box(report: Callable[[], ArmState]) -> int:
    """Reads the tool's place where a person has led it to; moves nothing.

    Raises:
        ConfigError: there is nobody to confirm, or the places are those of no bin.
        RobotError: the arm does not report, or does not stand.
    """
    places: list[tuple[float, float, float]] = []
    for where in ("inner corner with the smallest x and y, tips on the floor", "opposite inner corner", "rim"):
        say(f"lead the finger tips to the {where}; then press Enter")
        if not sys.stdin.readline():
            raise ConfigError("calibrate box needs a terminal: each place is confirmed with Enter")
        place = _standing(report).pose.position_m
        if any(math.dist(place, other) < _APART_M for other in places):
            at = ", ".join(f"{each:.4f}" for each in place)
            raise ConfigError(
                f"the tool is within {1000 * _APART_M:.0f} mm of a place before, at {at} m; was it led on? Begin anew"
            )
        places.append(place)
    (x1, y1, z1), (x2, y2, z2), (_, _, rim) = places
    found = BinGeometry(min(z1, z2), (min(x1, x2), min(y1, y2)), (max(x1, x2), max(y1, y2)), rim)
    say(f"[bin]\nfloor_z_m = {found.floor_z_m:.4f}")
    for name, (x_m, y_m) in (("inner_min_m", found.inner_min_m), ("inner_max_m", found.inner_max_m)):
        say(f"{name} = [{x_m:.4f}, {y_m:.4f}]")
    say(f"rim_z_m = {found.rim_z_m:.4f}")
    return 0


def _standing(report: Callable[[], ArmState]) -> ArmState:
    """Returns a report made after this was called; these numbers become the safety box, so no old one will do."""
    deadline = time.monotonic() + _NEW_S
    first = state = report()
    while state.mode is ArmMode.OFFLINE or not state.t_controller_s > first.t_controller_s or not _stands(state):
        if time.monotonic() > deadline:
            raise RobotError(
                f"no report of a standing arm came within {_NEW_S:.0f} s (mode {state.mode.value}): is it connected, "
                "and does nobody lead it?"
            )
        time.sleep(_LOOK_S)
        state = report()
    return state


def _stands(state: ArmState) -> bool:
    return state.is_finite() and speed_m_s(state) < _STILL_M_S
