"""The procedure of judging a grasp, as a state machine that touches neither arm nor camera.

``begin`` starts it, ``needs`` names what it wants next, ``feed`` hands that over, ``verdict`` tells the end:

    judge.begin(audit=False)
    while stage := judge.needs():
        judge.feed(stage, width_m=..., picture=...)
    verdict = judge.verdict()

Two readings of the width, at the check height and at the clear pose, decide whether a drop test is worth its time. The
drop test decides what the width cannot: whether what the fingers held lies in the bin afterwards.
"""

from dataclasses import dataclass
from enum import StrEnum

from qtopt.errors import RobotError
from qtopt.types import UInt8Array
from robot_bridge.success.images import Change, compare
from robot_bridge.success_config import SuccessConfig

_SLIPPED = "what the fingers held slipped out of them on the way to the clear pose"


class Stage(StrEnum):
    """What the judge wants, in the order in which it may want it."""

    WIDTH_CHECK = "width_check"  # the width at the check height
    WIDTH_CLEAR = "width_clear"  # the width at the clear pose
    PICTURE_BEFORE = "picture_before"  # the bin, the arm at the clear pose, the fingers still closed
    PICTURE_AFTER = "picture_after"  # the same after the fingers were opened over the bin


class Judgement(StrEnum):
    """What became of a grasp."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class GraspVerdict:
    """A judgement with its evidence.

    Attributes:
        judgement: success, failure or unknown.
        reason: why, in words.
        score: changed area against the smallest that counts; 1 and more is a change. Without a drop test the opening
            beyond the limit of emptiness, in margins.
        widths_m: both readings.
        width_full: what the width said.
        audited: the drop test was made although the width said empty.
        change: what the pictures showed; None without a drop test.
        pictures: before and after, RGB uint8 (H, W, 3); empty without a drop test.
    """

    judgement: Judgement
    reason: str
    score: float
    widths_m: tuple[float, ...]
    width_full: bool
    audited: bool = False
    change: Change | None = None
    pictures: tuple[UInt8Array, ...] = ()

    @property
    def held(self) -> bool | None:
        """Whether an object was held; None where that is unknown."""
        return {Judgement.SUCCESS: True, Judgement.FAILURE: False, Judgement.UNKNOWN: None}[self.judgement]

    @property
    def missed(self) -> bool:
        """Whether the drop test found an object that the width had called nothing."""
        return not self.width_full and self.judgement is Judgement.SUCCESS


class StagedJudge:
    """Judges one grasp after another.

    Args:
        config: limits and thresholds.
        held_width_m: closed fingers at least this far apart hold something [m].
    """

    def __init__(self, config: SuccessConfig, held_width_m: float) -> None:
        self._config, self._held_width_m = config, held_width_m
        self._begun = self._audit = False
        self._spoilt = ""
        self._widths: list[float] = []
        self._pictures: list[UInt8Array] = []

    def begin(self, *, audit: bool = False) -> None:
        """Starts anew; ``audit`` asks for the drop test even where the width says empty."""
        self._begun, self._audit, self._spoilt = True, audit, ""
        self._widths, self._pictures = [], []

    def needs(self) -> Stage | None:
        """Returns what is wanted next; None when the verdict is ready."""
        if not self._begun:
            raise RobotError("the judge was asked before begin()")
        if self._spoilt:
            return None
        if len(self._widths) < 2:
            return (Stage.WIDTH_CHECK, Stage.WIDTH_CLEAR)[len(self._widths)]
        if len(self._pictures) < 2 and self._drop_test_wanted():
            return (Stage.PICTURE_BEFORE, Stage.PICTURE_AFTER)[len(self._pictures)]
        return None

    def feed(self, stage: Stage, *, width_m: float | None = None, picture: UInt8Array | None = None) -> None:
        """Hands over what ``needs`` named: a width [m] or a picture, RGB uint8 (H, W, 3); RobotError for all else."""
        wanted = self.needs()
        value = width_m if stage in (Stage.WIDTH_CHECK, Stage.WIDTH_CLEAR) else picture
        if stage is not wanted or value is None:
            given = "nothing for it" if value is None else "something for it"
            raise RobotError(f"the judge was fed {stage} with {given}, expected {wanted or 'no more'}")
        if width_m is not None:
            self._widths.append(width_m)
        elif picture is not None:
            self._pictures.append(picture)

    def spoil(self, reason: str) -> None:
        """Ends the procedure as unknown: something went wrong that no evidence can mend."""
        self._spoilt = reason

    def verdict(self) -> GraspVerdict:
        """Returns the verdict; RobotError while ``needs`` still names something."""
        wanted = self.needs()
        if wanted is not None:
            raise RobotError(f"the judge has no verdict yet: it needs {wanted}")
        if self._spoilt:
            return self._conclude(Judgement.UNKNOWN, self._spoilt, 0.0)
        if self._pictures:
            return self._compare()
        score = 1.0 + (max(self._widths) - self._held_width_m) / self._config.width_margin_m
        if self._full and not self._slipped:
            return self._conclude(Judgement.SUCCESS, "the fingers are apart; no drop test was wanted", score)
        return self._conclude(
            Judgement.FAILURE, _SLIPPED if self._full else "the fingers are as near as empty ones", score
        )

    @property
    def _full(self) -> bool:
        return max(self._widths, default=0.0) >= self._held_width_m

    @property
    def _slipped(self) -> bool:
        """Whether fingers that held something came to the clear pose without it."""
        return self._full and self._widths[-1] < self._held_width_m

    def _drop_test_wanted(self) -> bool:
        if self._config.drop_test == "never":
            return False
        return self._full or self._audit or self._config.drop_test == "always"

    def _compare(self) -> GraspVerdict:
        before, after = self._pictures
        config, change = self._config, compare(before, after, self._config)
        score = change.area_px / config.diff_area_px
        worst = max(abs(gain - 1.0) for gain in change.gain)
        if worst > config.gain_limit:
            why = f"the light changed by {100 * worst:.0f} % between the pictures"
            return self._conclude(Judgement.UNKNOWN, why, score, change)
        if change.control_px >= config.control_area_px:
            why = f"{change.control_px} pixels changed outside the bin"
            return self._conclude(Judgement.UNKNOWN, why, score, change)
        if change.area_px >= config.diff_area_px:
            return self._conclude(Judgement.SUCCESS, "what was held lies in the bin", score, change)
        if self._slipped:
            return self._conclude(Judgement.FAILURE, _SLIPPED, score, change)
        if self._full:
            why = "the fingers were apart, but nothing new lies in the bin"
            return self._conclude(Judgement.UNKNOWN, why, score, change)
        return self._conclude(
            Judgement.FAILURE, "the fingers were empty, and nothing new lies in the bin", score, change
        )

    def _conclude(self, judgement: Judgement, reason: str, score: float, change: Change | None = None) -> GraspVerdict:
        audited = change is not None and not self._full
        return GraspVerdict(
            judgement, reason, score, tuple(self._widths), self._full, audited, change, tuple(self._pictures)
        )
