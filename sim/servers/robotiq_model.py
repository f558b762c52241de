"""What a Robotiq 2F does behind its wires: registers over any hand, with the faults of real ones."""

import threading
import time
from dataclasses import dataclass, replace
from typing import Protocol

_OPEN, _CLOSED = 3, 230
"""Counts at the ends of a 2F-85's stroke."""
_AT_REQUEST, _CLOSING_BLOCKED, _OPENING_BLOCKED = 3, 2, 1
_TOLERANCE = 3
_ENDED_BY_ACTIVATION = (0x05, 0x07, 0x0F)
_STARTS_S = 0.05
_SPEED_M_S, _FORCE_N = (0.02, 0.15), (20.0, 235.0)


class HandState(Protocol):
    """What a hand reports: ``sim.plant.PlantState`` and others."""

    @property
    def width_m(self) -> float:
        """Opening [m]."""
        ...

    @property
    def gripper_moving(self) -> bool:
        """The fingers have not come to rest."""
        ...


class GrippingHand(Protocol):
    """A hand with two fingers: ``sim.plant.Plant`` and others."""

    def grip(self, width_m: float, speed_m_s: float, force_n: float) -> None:
        """Sends the fingers off."""
        ...

    def state(self) -> HandState:
        """Returns the newest state."""
        ...


@dataclass(frozen=True, slots=True)
class GripperFault:
    """What is wrong with the gripper.

    Attributes:
        silent: it takes everything and answers nothing.
        jammed: the fingers stay where they are, and that is reported as an object.
        flag: reported as gOBJ once the fingers stand, whatever is true; None tells the truth.
        code: its fault register.
    """

    silent: bool = False
    jammed: bool = False
    flag: int | None = None
    code: int = 0


class RobotiqModel:
    """The gripper's registers, over a hand.

    Args:
        hand: what moves.
        open_width_m: opening at the open end of the stroke.
        activation_s: how long activation takes.
        active: whether it is active from the start.
    """

    def __init__(
        self, hand: GrippingHand, open_width_m: float = 0.085, activation_s: float = 0.3, *, active: bool = False
    ) -> None:
        self.fault = GripperFault()
        self._hand, self._open_width_m, self._activation_s = hand, open_width_m, activation_s
        self._lock = threading.RLock()
        self._request = {"ACT": int(active), "GTO": 0, "POS": 0, "SPE": 0, "FOR": 0}
        self._active_at = 0.0 if active else float("inf")
        self._moves_until = 0.0
        self._closing = False

    def write(self, changes: dict[str, int]) -> None:
        """Takes requests: ACT, GTO, POS, SPE, FOR, each 0 to 255."""
        with self._lock:
            if changes.get("ACT", self._request["ACT"]) != self._request["ACT"]:
                on = changes["ACT"] == 1
                self._active_at = time.monotonic() + self._activation_s if on else float("inf")
                if on and self.fault.code in _ENDED_BY_ACTIVATION:
                    self.fault = replace(self.fault, code=0)
            self._request |= changes
            if self._request["GTO"] and self._activation() == 3 and changes.keys() & {"POS", "GTO"}:
                self._go()

    def read(self) -> dict[str, int]:
        """Returns the registers by the names of the text protocol: STA, OBJ, FLT, PRE, POS, ACT, GTO, SPE, FOR."""
        with self._lock:
            state = self._hand.state()
            place = self._place(state.width_m)
            moving = state.gripper_moving and not self.fault.jammed
            motion = 0 if moving or time.monotonic() < self._moves_until else self._rest(place)
            return {
                **self._request,
                "STA": self._activation(),
                "OBJ": self.fault.flag if motion and self.fault.flag is not None else motion,
                "FLT": self.fault.code,
                "PRE": self._request["POS"],
                "POS": place,
            }

    def _activation(self) -> int:
        if not self._request["ACT"]:
            return 0
        return 3 if time.monotonic() >= self._active_at else 1

    def _go(self) -> None:
        share = (_CLOSED - self._wanted()) / (_CLOSED - _OPEN)
        self._closing = self._wanted() > self._place(self._hand.state().width_m)
        self._moves_until = time.monotonic() + _STARTS_S
        if not self.fault.jammed:
            speed, force = (
                low + self._request[name] / 255 * (high - low)
                for name, (low, high) in (("SPE", _SPEED_M_S), ("FOR", _FORCE_N))
            )
            self._hand.grip(share * self._open_width_m, speed, force)

    def _wanted(self) -> int:
        return min(_CLOSED, max(_OPEN, self._request["POS"]))

    def _place(self, width_m: float) -> int:
        place = round(_CLOSED - width_m / self._open_width_m * (_CLOSED - _OPEN))
        return min(_CLOSED, max(_OPEN, place))

    def _rest(self, place: int) -> int:
        if not self._request["GTO"]:
            return 0
        if abs(place - self._wanted()) <= _TOLERANCE:
            return _AT_REQUEST
        return _CLOSING_BLOCKED if self._closing else _OPENING_BLOCKED


@dataclass(frozen=True, slots=True)
class _Still:
    width_m: float
    gripper_moving: bool


class PlainHand:
    """A hand without physics: fingers at constant speed, stopped by an object ``object_m`` wide (0: none)."""

    def __init__(self, width_m: float = 0.085) -> None:
        self.object_m = 0.0
        self._from, self._to, self._speed, self._since = width_m, width_m, 1.0, time.monotonic()

    def grip(self, width_m: float, speed_m_s: float, force_n: float) -> None:
        """Sends the fingers off."""
        self._from, self._to, self._speed, self._since = self.state().width_m, width_m, speed_m_s, time.monotonic()

    def state(self) -> _Still:
        """Returns where they are now."""
        way = self._speed * (time.monotonic() - self._since)
        if self._to >= self._from:
            return _Still(min(self._to, self._from + way), self._from + way < self._to)
        end = max(self._to, min(self.object_m, self._from))
        return _Still(max(end, self._from - way), self._from - way > end)
