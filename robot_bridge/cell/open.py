"""A physical cell as an ``Environment``: its processes, its judge and its keeper around the one ``GraspEnv``."""

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from qtopt.errors import RobotError, UnkeptLock
from qtopt.interfaces import ResetResult, StepResult
from qtopt.types import FloatArray, JsonValue, Outcome
from robot_bridge.cell.camera import ChildCamera
from robot_bridge.cell.locks import Locks
from robot_bridge.cell.parts import load
from robot_bridge.cell.places import Places
from robot_bridge.cell.processes import CellProcesses
from robot_bridge.cell.robot import CellRobot
from robot_bridge.cell_file import CellFile, cell_config, load_cell_file
from robot_bridge.contracts import Latch
from robot_bridge.grasp_env import GraspEnv
from robot_bridge.safety import rules
from robot_bridge.safety.facts import CellFacts, Phase
from robot_bridge.success import DropTestDetector, PhysicalBin
from robot_bridge.view import CellCamera

_log = logging.getLogger(__name__)
_LOOK_S: Final = 0.5
_AGAIN_S: Final = 3.0
_GOOD_FOR_S: Final = 600.0
"""An acknowledgement means a look at the cell: one that cannot be started for so long waits for another."""
_TRIES: Final = 3
_COOLED_K: Final = 5.0
"""A joint is so much below its limit when an episode begins, not to be too hot in the middle of it."""
_SAY_AGAIN_S: Final = 300.0
_CLEARED_S: Final = 10.0
_ENDED: Final = "process_ended"
"""The rule by which motion is locked when arm's and safety process ended in order or at once, but not by our word."""

_NOT_BEGUN: Final = "no_episode"
"""The rule by which motion is locked when episode after episode does not begin."""

_NOT_STARTED: Final = "not_started"
"""The rule by which motion is locked when the cell's processes could not be started for as long as a look is good."""

_NOT_RISEN: Final = "recovery"
"""The rule by which motion is locked when a stop was cleared and the slow motion after it failed."""


class PhysicalCell:
    """Satisfies ``qtopt.interfaces.Environment`` over a physical cell, and outlasts its locks.

    When motion is locked, the episode is aborted and the next one waits, arm standing, until a person has acknowledged
    (``qtopt robot ack``); then the cell's processes are started anew, tried again where they cannot be yet. Nothing
    goes on by itself. While the disk has no room for episodes, or a lock could not be written, none begins either.

    Args:
        path: of the cell file.
        size_px: height and width of the policy's pictures.
        stop: asked while waiting for a person or for room; True ends the wait with RobotError.
        seed: of start poses.
        idle: done again and again while waiting, such as delivering finished episodes.

    Raises:
        ConfigError: the cell file or what arm and gripper can do does not fit, or somebody else uses the arm.
        RobotError: arm, gripper or camera cannot be reached.
        NotReady: the arm can be reached, and a person has to do something before it can be moved.
    """

    def __init__(
        self,
        path: Path,
        size_px: int,
        stop: Callable[[], bool] = lambda: False,
        seed: int = 0,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.cell: CellFile = load_cell_file(path)
        self.places = Places(self.cell)
        self._path, self._stop, self._idle = path, stop, idle
        self._locks = Locks(self.places)
        with contextlib.ExitStack() as parts:
            parts.enter_context(self.places.sole_client())
            self.camera = ChildCamera(path, self.cell, "main")
            parts.callback(self.camera.stop)
            self.camera.start()
            self.robot = CellRobot(self.cell, self._start())
            parts.callback(lambda: self.robot.processes.close())
            self._parts = parts.pop_all()
        detector = make_detector(self.cell, self.robot, self.camera, seed)
        picture = CellCamera(self.camera, size_px, max_age_s=self.cell.watchdog.camera_stop_s)
        known = self.cell.success
        self._keeper = PhysicalBin(detector, most_unknown=known.unknown_max, most_aborted=known.aborted_max)
        self.environment = GraspEnv(self.robot, picture, detector, self._keeper, cell_config(self.cell), seed)

    def start_episode(self, seed: int | None = None) -> ResetResult:
        """Waits until motion is allowed, the disk has room and the arm does not pause; goes to a start pose and begins.

        What cannot begin three times in a row, some seconds apart, is locked, and waits for a person.

        Raises:
            ConfigError: the cell's processes cannot be started again as the cell file and its parts are now.
            RobotError: the wait was ended.
            UnkeptLock: it was ended while a lock was not on the disk.
        """
        failures: list[str] = []
        while True:
            if self.await_person():
                failures = []
            self._await_room()
            self._await_pause()
            try:
                self._recover()
                self.robot.rise()
                return self.environment.start_episode(seed)
            except RobotError as error:
                if self._stop() and not self._is_locked():
                    raise
                failures.append(str(error))
                _log.warning("the episode did not begin: %s", error)
                if self._lock() is None and len(failures) >= _TRIES:
                    why = "; ".join(dict.fromkeys(failures))
                    failures = []
                    self._locks.lock(_NOT_BEGUN, f"an episode could not begin {_TRIES} times in a row: {why}")
                    self.robot.processes.close()  # a vendor's library that comes back late moves nothing then
                    self._begin_anew()
                elif not self._is_locked():
                    self._pause(_AGAIN_S, f"an episode did not begin: {error}")  # a device may be back by then

    def act(self, action: FloatArray) -> StepResult:
        """Executes one action; an episode that ended without a safety event counts for the cell's commissioning.

        The end of an episode says when its last action began and when it was judged, in seconds since the epoch, and
        how often the tool was led out of something that pressed on it, yielded to what its closing fingers held,
        went over what was in its way, or was held in the middle of a step.
        """
        began_s = time.time()
        result = self.environment.act(action)
        if result.outcome is not None:
            facts: dict[str, JsonValue] = {"last_action_s": began_s, "judged_s": time.time()}
            robot = self.robot
            facts |= {"contacts": robot.contacts, "yields": robot.yields}
            facts |= {"detours": robot.detours, "holds": robot.holds}
            result = replace(result, metadata={**result.metadata, **facts})
        if result.outcome is not None and result.outcome is not Outcome.ABORTED:
            self._count()
        return result

    def close(self) -> None:
        """Leaves the arm standing and the fingers as they are, and ends the processes; a second call does nothing."""
        self._parts.close()

    def await_person(self) -> bool:
        """Waits until nothing locks motion, and starts processes that were locked anew; those that ended lock it.

        Returns whether a person came.

        Raises:
            ConfigError, RobotError, UnkeptLock: as ``start_episode``.
        """
        if not self._is_locked() and self.robot.processes.alive:
            return False
        if not self._is_locked():
            time.sleep(_LOOK_S)  # whoever saw them end may be about to say why
        if not self._is_locked():
            self._locks.lock(_ENDED, "the cell's processes have ended, and this collector did not ask them to")
        self._begin_anew()
        return True

    def _begin_anew(self) -> None:
        """Waits for a person's acknowledgement and starts the processes anew, those that still live too."""
        self._await_acknowledgement()
        self.robot.processes.close()
        self._keeper.acknowledge()
        self.camera.acknowledge()
        self._start_again()

    def _await_acknowledgement(self) -> bool:
        """Waits until a person has acknowledged what locks motion, the disk having it; returns whether anything did."""
        said = ("", "")
        while (lock := self._lock()) is not None:
            trouble = self._locks.keep(lock)
            if said != (lock.rule, trouble):
                said = lock.rule, trouble
                self._say(lock, trouble)
            if self._stop():
                if trouble:
                    raise UnkeptLock(f"told to end, but {trouble}. Look at the cell before anybody starts it again")
                raise RobotError("told to end while motion was locked")
            self._idle()
            time.sleep(_LOOK_S)
        return bool(said[0])

    def _say(self, lock: Latch, trouble: str) -> None:
        if trouble:
            _log.error("%s. Motion stays locked as long as this process lives, which tries again", trouble)
        else:
            _log.error(
                "motion is locked by %s: %s. Look at the cell, then: qtopt robot ack %s --operator NAME --reason TEXT",
                lock.rule,
                lock.reason,
                self._path,
            )

    def _start_again(self) -> None:
        """Starts the processes, whose own start refuses what is not ready; again and again until they are.

        A person has acknowledged: who makes the arm ready after that, sees it go on. It is locked once more where that
        took long, and what is locked meanwhile is waited for.
        """
        said, since = "", time.monotonic()
        while True:
            if self._await_acknowledgement():
                since = time.monotonic()
            try:
                self.robot.renew(self._start())
                return
            except RobotError as error:
                if str(error) != said:
                    said = str(error)
                    _log.error("%s. Tried again every %g s, and the arm moves as soon as it can", error, _AGAIN_S)
                if time.monotonic() - since > _GOOD_FOR_S:
                    words = f"{error}; it was so for {_GOOD_FOR_S:g} s after somebody last looked at the cell"
                    self._locks.lock(_NOT_STARTED, words)
            self._pause(_AGAIN_S, f"the cell could not be started: {said}")

    def _is_locked(self) -> bool:
        return self._lock() is not None or self.robot.processes.lock is not None

    def _lock(self) -> Latch | None:
        return self._locks.pending(self.robot.processes.lock)

    def _count(self) -> None:
        """Counts an episode that ended well; where the disk refuses, the cell only stays slow for longer."""
        try:
            self.places.finish_episode()
        except RobotError as error:
            _log.warning("an episode is not counted, slow mode may last longer: %s; make room on the disk", error)
        else:
            self.robot.processes.tell("finish_episode")

    def _recover(self) -> None:
        """Opens a camera again that failed, and clears a protective stop where ``[recovery]`` allows that.

        Raises:
            RobotError: one of them cannot be had; but for the way up after a stop, nothing has moved.
        """
        self.camera.revive()
        recovery = self.cell.recovery
        deadline = time.monotonic() + recovery.wait_s + _CLEARED_S
        while recovery.auto_recover and self.robot.stopped_itself():
            if self._stop():
                raise RobotError("told to end while a protective stop was to be cleared")
            try:
                self.robot.recover()
                _log.warning("a protective stop was cleared without a person, as [recovery] allows")
            except RobotError as error:
                if not self.robot.stopped_itself():
                    self._locks.lock(_NOT_RISEN, f"a protective stop was cleared, but not the way up: {error}")
                    raise
                if time.monotonic() > deadline or self.robot.processes.lock:
                    raise
                _log.info("not cleared yet: %s", error)
                self._idle()
                time.sleep(_LOOK_S)

    def _await_room(self) -> None:
        least, spool = self.cell.spool.min_free, self.cell.spool.dir
        if self._disk_free() < least:
            _log.error(
                "less than %.0f %% of the disk of %s is free, or it cannot be asked: no episode begins before there is",
                100 * least,
                spool,
            )
            self._wait(lambda: self._disk_free() < least, "the disk was full")
        obstacle = self.places.latch_file.obstacle()
        if obstacle:
            _log.error("%s", obstacle)
            self._wait(lambda: bool(self.places.latch_file.obstacle()), "no lock could be written")

    def _await_pause(self) -> None:
        """Waits while a joint is warm or an operator's slider low: it ends by itself, or by who is there anyway."""
        said_s = -math.inf
        while paused := self._paused():
            if time.monotonic() - said_s > _SAY_AGAIN_S:
                _log.error("%s: no episode begins before that is over", paused)
                said_s = time.monotonic()
            self._pause(_LOOK_S, f"the arm paused: {paused}")

    def _paused(self) -> str:
        """Returns why the arm pauses; nothing where it must not move for another reason, or reports nothing."""
        if self._is_locked() or not self.robot.processes.alive:
            return ""
        try:
            return rules.pause(self.robot.arm(), self.cell.limits, _COOLED_K).reason
        except RobotError:
            return ""

    def _pause(self, seconds: float, why: str) -> None:
        due = time.monotonic() + seconds
        self._wait(lambda: time.monotonic() < due, why)

    def _wait(self, blocked: Callable[[], bool], why: str) -> None:
        while blocked():
            if self._stop():
                raise RobotError(f"told to end while {why}")
            self._idle()
            time.sleep(_LOOK_S)

    def _start(self) -> CellProcesses:
        load(self._path, self.cell.config_hash)
        seen = self.places.latch_file.acknowledgements()
        processes = CellProcesses(self._path, self.cell, self.places, self._facts)
        self._locks.begin(seen)
        return processes

    def _facts(self) -> CellFacts:
        return CellFacts(camera_age_s=self.camera.age_s(), disk_free=self._disk_free())

    def _disk_free(self) -> float:
        spool = self.cell.spool.dir
        try:
            usage = shutil.disk_usage(next(each for each in (spool, *spool.absolute().parents) if each.exists()))
        except OSError as error:  # a disk that cannot be asked takes no episode, either
            _log.debug("%s cannot be asked: %s", spool, error)
            return 0.0
        return usage.free / usage.total


def make_detector(cell: CellFile, robot: CellRobot, camera: ChildCamera, seed: int = 0) -> DropTestDetector:
    """Returns the judge of a cell's grasps, with what its calibration found."""
    whole = CellCamera(camera, max_age_s=cell.watchdog.camera_stop_s)
    return DropTestDetector(
        robot, whole, cell.success, cell_config(cell), robot.clear_m, seed, leave_bin=lambda: robot.enter(Phase.TRANSIT)
    )


def open_cell(path: Path, size_px: int, seed: int = 0) -> GraspEnv:
    """Returns the grasping environment over a physical cell; its ``close`` ends everything that was started.

    Raises:
        ConfigError: the cell file does not fit, or somebody else uses the arm.
        RobotError: arm, gripper or camera cannot be reached.
    """
    cell = PhysicalCell(path, size_px, seed=seed)
    cell.robot.closing = cell.close
    return cell.environment
