"""An arm that is a point: it moves in a straight line at the speed asked for, in real time, and keeps the contract."""

import threading
import time

import numpy as np

from qtopt.errors import RobotError
from robot_bridge.contracts import (
    ArmMode,
    ArmState,
    Capability,
    GripperState,
    MotionOutcome,
    MotionResult,
    ObjectSensed,
    Pose,
)

DOWN = (1.0, 0.0, 0.0, 0.0)
START = Pose((0.5, 0.0, 0.3), DOWN)
PERIOD_S = 0.004


class PointArm:
    capabilities = frozenset({Capability.CARTESIAN_MOVE, Capability.CARTESIAN_SERVO, Capability.WRENCH_MEASURED})

    def __init__(self):
        self._lock = threading.Condition()
        self._position = np.array(START.position_m)
        self._target, self._speed, self._until_s = self._position.copy(), 0.0, 0.0
        self._outcome, self._mode, self._clock = None, ArmMode.READY, 0.0
        self.payload = None
        self._closed = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def connect(self, deadline_s):
        pass

    def _run(self):
        last_s = time.monotonic()
        while not self._closed.wait(PERIOD_S):
            with self._lock:
                dt_s = time.monotonic() - last_s
                last_s += dt_s
                self._clock += dt_s
                if time.monotonic() > self._until_s and self._speed:
                    self._end(MotionOutcome.STOPPED)
                way = self._target - self._position
                distance = float(np.linalg.norm(way))
                step = self._speed * dt_s
                if self._speed and distance <= step:
                    self._position = self._target.copy()
                    self._end(MotionOutcome.REACHED)
                elif self._speed:
                    self._position = self._position + way * step / distance

    def _end(self, outcome):
        self._speed, self._outcome = 0.0, outcome
        self._lock.notify_all()

    def state(self):
        with self._lock:
            mode = ArmMode.MOVING if self._speed else self._mode
            pose = Pose(tuple(float(value) for value in self._position), DOWN)
            still, way = (0.0,) * 6, self._target - self._position
            velocity = way * self._speed / max(float(np.linalg.norm(way)), 1e-9)
            return ArmState(
                time.monotonic_ns(),
                self._clock,
                pose,
                (*velocity.tolist(), 0.0, 0.0, 0.0),
                still,
                (),
                mode,
                codes={"state": 4, "on": "a"},
            )

    def _begin(self, target, speed, until_s):
        self._target, self._speed, self._until_s, self._outcome = np.array(target.position_m), speed, until_s, None

    def move_to(self, target, speed_m_s, accel_m_s2, deadline_s):
        with self._lock:
            if self._mode is ArmMode.FAULT:
                return MotionResult(MotionOutcome.REJECTED, "the arm is at fault")
            if target.position_m[0] > 5.2:
                return MotionResult(MotionOutcome.REJECTED, "too far")
            self._begin(target, speed_m_s, time.monotonic() + 1e3)
            if not self._lock.wait_for(lambda: self._outcome is not None, deadline_s):
                self._end(MotionOutcome.TIMEOUT)
            return MotionResult(self._outcome, "", Pose(tuple(self._position.tolist()), DOWN))

    def move_joints(self, target_rad, speed_rad_s, deadline_s):
        return MotionResult(MotionOutcome.REJECTED, "a point has no joints")

    def servo(self, target, valid_for_s):
        with self._lock:
            self._begin(target, 0.1, time.monotonic() + valid_for_s)
        return MotionResult(MotionOutcome.REACHED)

    def hold(self):
        self.stop(1.0)

    def stop(self, decel_m_s2):
        with self._lock:
            if self._speed:
                self._end(MotionOutcome.STOPPED)

    def recover(self):
        if self._position[2] < 0.25:
            raise RobotError("still too low to recover")

    def zero_wrench(self):
        pass

    def set_payload(self, mass_kg, centre_m):
        if mass_kg > 5:
            raise RobotError("payload too heavy")

    def close(self):
        self._closed.set()


class PointGripper:
    """Fingers that stop on an object of ``object_m``, and know their range once they were made ready."""

    capabilities = frozenset({Capability.GRIPPER_WIDTH, Capability.GRIPPER_OBJECT_FLAG})
    width_range_m = (0.0, 0.0)

    def __init__(self, object_m):
        self._object_m, self.width_m, self.sensed = object_m, 0.08, ObjectSensed.NO

    def connect(self, deadline_s):
        pass

    def activate(self, deadline_s):
        self.width_range_m = (0.0, 0.08)

    def state(self):
        return GripperState(time.monotonic_ns(), self.width_m, False, self.sensed)

    def move(self, width_m, speed_m_s, force_n, deadline_s):
        if force_n > 100:
            raise RobotError("the gripper is jammed")
        time.sleep(0.2)
        held = width_m < self._object_m
        self.width_m = min(max(width_m, self._object_m), 0.08)
        self.sensed = ObjectSensed.YES if held else ObjectSensed.NO
        return self.state()

    def close(self):
        pass
