"""Tool point and payload of a Universal Robots controller, beside those of the cell file.

What is measured while a person leads the arm by hand, the bin's corners above all, is measured with the controller's
own; a payload that is wrong lets a freed arm sink or rise. The driver sets its own before the first motion.
"""

import math
from typing import Final

from qtopt.errors import RobotError
from robot_bridge.drivers.rtde import RtdeReader, Value
from robot_bridge.drivers.ur_state import UrOptions

_FIELDS: Final = ("tcp_offset", "payload", "payload_cog")
_CONNECT_S: Final = 5.0
_POINT_M: Final = 0.001
_TURN_RAD: Final = 0.01
_MASS_KG: Final = 0.05
_CENTRE_M: Final = 0.01


def differences(options: UrOptions) -> tuple[str, ...]:
    """Reads what the controller has now; returns what is not as in ``options``, in words. Moves and sets nothing.

    Raises:
        RobotError: nobody answers, or the controller is too old to tell.
    """
    reader = RtdeReader(options.host, _FIELDS, options.frequency_hz)
    try:
        reader.connect(_CONNECT_S)
        _, values = reader.newest()
    finally:
        reader.close()
    offset, mass_kg, centre_m = (_numbers(values[name]) for name in _FIELDS)
    found = []
    if math.dist(offset[:3], options.tcp_offset_m) > _POINT_M or math.hypot(*offset[3:]) > _TURN_RAD:
        asked = _words((*options.tcp_offset_m, 0.0, 0.0, 0.0))
        found.append(f"its tool point is {_words(offset)}, tcp_offset_m asks for {asked} (m, rotation vector)")
    if abs(mass_kg[0] - options.payload_kg) > _MASS_KG:
        found.append(f"its payload is {mass_kg[0]:.2f} kg, payload_kg is {options.payload_kg:.2f}")
    if math.dist(centre_m, options.payload_centre_m) > _CENTRE_M:
        asked = _words(options.payload_centre_m)
        found.append(f"its payload's centre is {_words(centre_m)}, payload_centre_m is {asked} (m)")
    return tuple(found)


def _numbers(value: Value) -> tuple[float, ...]:
    numbers = value if isinstance(value, tuple) else (float(value),)
    if not all(map(math.isfinite, numbers)):
        raise RobotError(f"the controller tells {numbers} as tool point or payload, expected numbers")
    return numbers


def _words(numbers: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{number:.3f}" for number in numbers) + "]"
