"""The configuration of the judge: the ``[success]`` table of a cell file."""

from dataclasses import dataclass
from typing import Literal

from qtopt.config import STRICT
from qtopt.errors import ConfigError

DropTest = Literal["auto", "always", "never"]
Polygon = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class SuccessConfig:
    """When a grasp counts. ``calibrate success`` learns the first numbers of each group for a cell.

    Attributes:
        empty_width_m: opening that closed, empty fingers report.
        empty_sigma_m: standard deviation of that over twenty closes.
        width_margin_m: fingers this much wider than empty hold something; three sigma where that is more.
        drop_test: ``auto`` tests what the width calls held, and every ``audit_every``-th that it calls empty;
            ``always`` tests both, for objects below 3 mm; ``never`` trusts the width.
        audit_every: see ``drop_test``.
        diff_area_px: largest blob that a picture of an untouched bin shows, and half as much again [pixels].
        diff_t: grey levels by which a pixel must change.
        control_area_px: the same area for the surroundings of the bin.
        bin_region: corners of the bin's rim in the picture, at least three [pixels x, y]; empty takes all of it.
        control_margin_px: the surroundings begin so far outside of ``bin_region``.
        gain_limit: pictures whose brightness differs by more than this share cannot be compared.
        frames: pictures whose median is compared.
        check_wait_s: before the first reading of the width.
        clear_wait_s: before the second, at the clear pose.
        settle_s: for what was dropped, before the second picture.
        drop_height_m: finger tips above the bin floor when they let go.
        drop_share: the middle share of the workspace, along x and y, over which an object is let go.
        pose_tolerance_m: an arm further from its clear pose than this spoils the picture.
        keep_evidence: store the pictures with the episode.
    """

    __pydantic_config__ = STRICT

    empty_width_m: float = 0.0
    empty_sigma_m: float = 0.0
    width_margin_m: float = 0.002
    drop_test: DropTest = "auto"
    audit_every: int = 20
    diff_area_px: int = 150
    diff_t: float = 25.0
    control_area_px: int = 150
    bin_region: Polygon = ()
    control_margin_px: int = 6
    gain_limit: float = 0.12
    frames: int = 5
    check_wait_s: float = 0.3
    clear_wait_s: float = 0.5
    settle_s: float = 1.0
    drop_height_m: float = 0.08
    drop_share: float = 0.5
    pose_tolerance_m: float = 0.01
    keep_evidence: bool = True

    @property
    def full_width_m(self) -> float:
        """Closed fingers at least this far apart hold something."""
        return self.empty_width_m + max(3.0 * self.empty_sigma_m, self.width_margin_m)

    def __post_init__(self) -> None:
        if not 0.0 <= self.empty_width_m <= 0.05 or not 0.0 <= self.empty_sigma_m < 0.002:
            raise ConfigError(
                f"empty_width_m is {self.empty_width_m} +- {self.empty_sigma_m} m, expected 0 to 0.05 and a deviation "
                "below 0.002; run qtopt robot calibrate CELL gripper with nothing between the fingers"
            )
        for name in ("width_margin_m", "diff_t", "drop_height_m", "pose_tolerance_m", "gain_limit"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"success {name} is {getattr(self, name)}, expected more than 0")
        for name in ("audit_every", "diff_area_px", "control_area_px", "frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"success {name} is {getattr(self, name)}, expected at least 1")
        for name in ("check_wait_s", "clear_wait_s", "settle_s", "control_margin_px"):
            if getattr(self, name) < 0:
                raise ConfigError(f"success {name} is {getattr(self, name)}, expected 0 or more")
        if not 0.0 < self.drop_share <= 1.0:
            raise ConfigError(f"success drop_share is {self.drop_share}, expected more than 0, at most 1")
        if len(self.bin_region) in (1, 2):
            raise ConfigError(f"success bin_region has {len(self.bin_region)} corners, expected at least 3, or none")
