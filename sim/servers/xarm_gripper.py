"""The xArm gripper on the tool's serial bus, as Modbus RTU registers that come tunnelled through the controller."""

import struct
from typing import Final

from sim.plant import Plant

HOST_ID, DEVICE_ID = 9, 8
PULSES_PER_M: Final = 10_000.0
"""850 pulses are 85 mm."""
MOST_PULSES: Final = 850
SPEED_M_S_PER_RPM: Final = 0.12 / 5000
FORCE_N: Final = 30.0
_READ, _WRITE = 0x03, 0x10
_STATUS, _ERROR, _ENABLE, _MODE, _RESET, _SPEED, _TARGET, _POSITION = (
    0x0000, 0x000F, 0x0100, 0x0101, 0x0109, 0x0303, 0x0700, 0x0702,
)  # fmt: skip
_VERSION = {0x0801: 3, 0x0802: 4, 0x0803: 3}
_STOPPED, _MOVING, _HOLDING = 0, 1, 2


class GripperBus:
    """The gripper's registers over the plant's fingers."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self.enabled = False
        self.jammed = False
        self.error = 0
        self.flag: int | None = None
        """Reported in place of what the fingers at rest feel; None tells the truth."""
        self._rpm = 1500

    def exchange(self, request: bytes) -> bytes | None:
        """Answers a Modbus RTU request without its checksum; None where a device would stay silent."""
        if len(request) < 6 or request[0] != DEVICE_ID:
            return None
        code, address, count = struct.unpack_from(">BHH", request, 1)
        if code == _READ:
            values = b"".join(self._read(address + i) for i in range(count))
            return bytes([DEVICE_ID, code, len(values)]) + values
        if code == _WRITE:
            self._write(address, request[7:])
            return request[:6]
        return None

    def _read(self, address: int) -> bytes:
        position = self._pulses()
        values = {_STATUS: self._status(), _ERROR: self.error, _ENABLE: self.enabled, _SPEED: self._rpm, **_VERSION}
        values |= {_POSITION: position >> 16 & 0xFFFF, _POSITION + 1: position & 0xFFFF}
        return struct.pack(">H", int(values.get(address, 0)))

    def _write(self, address: int, data: bytes) -> None:
        if address == _ENABLE:
            self.enabled = bool(data[-1])
        elif address == _RESET:
            self.error = 0
        elif address == _SPEED:
            self._rpm = max(1, min(5000, int.from_bytes(data, "big")))
        elif address == _TARGET and self.enabled and not self.jammed and not self.error:
            pulses = max(0, min(MOST_PULSES, int.from_bytes(data, "big", signed=True)))
            self._plant.grip(pulses / PULSES_PER_M, self._rpm * SPEED_M_S_PER_RPM, FORCE_N)

    def _pulses(self) -> int:
        return round(self._plant.state().width_m * PULSES_PER_M)

    def _status(self) -> int:
        state = self._plant.state()
        if state.gripper_moving:
            return _MOVING
        if self.flag is not None:
            return self.flag
        return _HOLDING if state.holding else _STOPPED
