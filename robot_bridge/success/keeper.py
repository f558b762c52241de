"""The keeper of a physical bin: nobody refills it, so what was grasped goes back, and too many doubts stop the work."""

import base64
from collections import deque
from collections.abc import Mapping

import cv2

from qtopt.errors import RobotError
from qtopt.types import JsonValue, Outcome, UInt8Array
from robot_bridge.success.detector import DropTestDetector
from robot_bridge.success.staged import GraspVerdict

WINDOW = 100
MOST_UNKNOWN = 0.05
MOST_ABORTED = 0.5
_ENOUGH = 20
"""Episodes before a share of aborted ones says anything."""
_EVIDENCE_PX = 320
_EVIDENCE_QUALITY = 85


class PhysicalBin:
    """A ``robot_bridge.robot.BinKeeper`` for a bin of real objects.

    Args:
        detector: the judge; it also puts objects back.
        keep_evidence: store the pictures of a drop test with the episode.
        most_unknown: a larger share of undecided grasps among the last hundred episodes means that something is wrong
            with the cell.
        most_aborted: so does a larger share of episodes that the safety layer aborted.
    """

    def __init__(
        self,
        detector: DropTestDetector,
        *,
        keep_evidence: bool = True,
        most_unknown: float = MOST_UNKNOWN,
        most_aborted: float = MOST_ABORTED,
    ) -> None:
        self._detector, self._keep_evidence = detector, keep_evidence
        self._most, self._most_aborted = most_unknown, most_aborted
        self._unknown: deque[bool] = deque(maxlen=WINDOW)
        self._aborted: deque[bool] = deque(maxlen=WINDOW)
        self.audited = self.missed = 0
        """Grasps that the width called empty and that were drop-tested all the same; those with an object after all."""

    def prepare(self, seed: int | None) -> Mapping[str, JsonValue]:
        """Puts back what the fingers may still hold; returns how the judge has fared. ``seed`` changes nothing.

        Raises:
            RobotError: too many grasps were undecided, or too many episodes aborted.
        """
        del seed
        self._check()
        if self._detector.lifted():
            self._detector.put_back()
        return {"judge": {"unknown": sum(self._unknown), "audited": self.audited, "missed": self.missed}}

    def finish(self, outcome: Outcome) -> Mapping[str, JsonValue]:
        """Takes note of an outcome; returns the verdict behind it, with its evidence."""
        self._aborted.append(outcome is Outcome.ABORTED)
        if outcome is not Outcome.ABORTED:
            self._unknown.append(outcome is Outcome.UNKNOWN)
        verdict = self._detector.take_verdict()
        if verdict is None:
            return {}
        self.audited += verdict.audited
        self.missed += verdict.missed
        return {"verdict": facts_of(verdict, with_pictures=self._keep_evidence)}

    def acknowledge(self) -> None:
        """A person has looked: the counts of undecided grasps and aborted episodes start anew."""
        self._unknown.clear()
        self._aborted.clear()

    def _check(self) -> None:
        unknown = sum(self._unknown)
        if unknown > self._most * WINDOW:
            raise RobotError(
                f"{unknown} of the last {len(self._unknown)} grasps were undecided, expected at most "
                f"{self._most * WINDOW:.0f} of {WINDOW}; look at camera, light and gripper, then run qtopt robot "
                "calibrate CELL success"
            )
        aborted, episodes = sum(self._aborted), len(self._aborted)
        if episodes >= _ENOUGH and aborted > self._most_aborted * episodes:
            raise RobotError(
                f"{aborted} of the last {episodes} episodes were aborted, expected at most {self._most_aborted:.0%}; "
                "their logs say by which rule; look at the bin, its measures in the cell file, and what lies in it"
            )


def facts_of(verdict: GraspVerdict, *, with_pictures: bool) -> dict[str, JsonValue]:
    """Returns a verdict as JSON values; pictures as JPEG in base64, at most 320 pixels wide or high."""
    facts: dict[str, JsonValue] = {
        "judgement": verdict.judgement.value,
        "reason": verdict.reason,
        "score": round(verdict.score, 3),
        "widths_m": [round(width, 5) for width in verdict.widths_m],
        "width_full": verdict.width_full,
        "audited": verdict.audited,
    }
    if verdict.change is not None:
        change = verdict.change
        facts |= {"area_px": change.area_px, "control_px": change.control_px, "gain": [*change.gain]}
    if with_pictures:
        facts["pictures_jpeg"] = [encode_evidence(picture) for picture in verdict.pictures]
    return facts


def encode_evidence(picture: UInt8Array) -> str:
    """Returns a picture, RGB uint8 (H, W, 3), as JPEG in base64, shrunk to at most 320 pixels."""
    share = min(1.0, _EVIDENCE_PX / max(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    parameters = [cv2.IMWRITE_JPEG_QUALITY, _EVIDENCE_QUALITY]
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), parameters)[1].tobytes()
    return base64.b64encode(jpeg).decode()
