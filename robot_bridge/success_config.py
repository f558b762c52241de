"""The ``[success]`` table of a cell file: when a grasp counts, and when a cell that judges badly stops."""

from dataclasses import dataclass
from typing import Literal

from qtopt.config import STRICT
from qtopt.errors import ConfigError
from robot_bridge.safety.limits import Bounds, check_bounds

DropTest = Literal["auto", "always", "never"]
Polygon = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class SuccessConfig:
    """How a grasp is judged.

    Attributes:
        width_margin_m: closed fingers this much wider than empty ones hold something; ``calibrate gripper`` finds it.
        drop_test: whether what is held is dropped back and looked for in the picture. ``auto``: what the width calls
            held, and every ``audit_every``-th that it calls empty; ``always``: both, for objects below 3 mm;
            ``never``: the width is trusted.
        audit_every: see ``drop_test``.
        diff_t: grey levels, 0 to 255, by which a pixel must change; ``calibrate success`` finds it and the two areas.
        diff_area_px: a changed blob of this area in the bin is an object [pixels].
        control_area_px: one of this area in the surroundings makes the verdict unknown [pixels].
        calibrated: the day on which they were found; empty: never, and they are guesses.
        bin_region: corners in the camera's picture around the bin and what stands in it [pixels x, y], three or more;
            what changes outside of it makes the verdict unknown. Empty: the whole picture is the bin, and nothing is
            outside.
        control_margin_px: the surroundings begin so far outside of ``bin_region``.
        gain_limit: pictures whose brightness differs by more than this share cannot be compared.
        frames: pictures whose median is compared.
        check_wait_s: before the first reading of the width.
        clear_wait_s: before the second, at the clear pose.
        settle_s: for what was dropped, before the second picture.
        drop_height_m: height of the finger tips above the floor when they let go.
        drop_share: the middle share of the workspace, along x and y, over which an object is let go.
        pose_tolerance_m: an arm further from its clear pose than this spoils the picture.
        unknown_max: share of unknown verdicts in a hundred that stops collecting.
        aborted_max: share of aborted episodes in a hundred, or in all since a person looked, 20 at least, that does.
    """

    __pydantic_config__ = STRICT

    width_margin_m: float = 0.002
    drop_test: DropTest = "auto"
    audit_every: int = 20
    diff_t: float = 25.0
    diff_area_px: float = 150.0
    control_area_px: float = 150.0
    calibrated: str = ""
    bin_region: Polygon = ()
    control_margin_px: int = 6
    gain_limit: float = 0.12
    frames: int = 5
    check_wait_s: float = 0.3
    clear_wait_s: float = 0.5
    settle_s: float = 1.0
    drop_height_m: float = 0.06
    drop_share: float = 0.5
    pose_tolerance_m: float = 0.01
    unknown_max: float = 0.05
    aborted_max: float = 0.5

    def __post_init__(self) -> None:
        check_bounds(self, _BOUNDS, "success")
        if len(self.bin_region) in (1, 2) or any(value < 0 for corner in self.bin_region for value in corner):
            raise ConfigError(f"[success] bin_region is {self.bin_region}, expected three corners or more, or none")


_BOUNDS: Bounds = {
    "width_margin_m": (0.0002, 0.02),
    "audit_every": (1, 1000),
    "diff_t": (1.0, 255.0),
    "diff_area_px": (1.0, 1e6),
    "control_area_px": (1.0, 1e6),
    "control_margin_px": (0, 1000),
    "gain_limit": (0.01, 0.5),
    "frames": (1, 50),
    "check_wait_s": (0.0, 10.0),
    "clear_wait_s": (0.0, 10.0),
    "settle_s": (0.0, 10.0),
    "drop_height_m": (0.001, 0.3),
    "drop_share": (0.01, 1.0),
    "pose_tolerance_m": (0.001, 0.1),
    "unknown_max": (0.0, 1.0),
    "aborted_max": (0.0, 1.0),
}
