"""Pictures of episodes."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from qtopt.types import Episode, FloatArray, UInt8Array

_GREEN, _RED = (60, 200, 60), (220, 60, 60)
_BORDER_PX, _CAPTION_PX, _SHOWN_PX = 4, 18, 144


def filmstrip(episode: Episode, caption: str = "", most: int = 10) -> UInt8Array:
    """Returns the frames of an episode side by side, RGB uint8 (H, W, 3): green border for success, red otherwise.

    Args:
        episode: what to draw; with more than ``most`` frames, evenly spaced ones, first and last included.
        caption: written above.
        most: frames at most.
    """
    chosen = np.unique(np.linspace(0, len(episode.images) - 1, min(most, len(episode.images))).round().astype(int))
    scale = max(1, _SHOWN_PX // episode.images.shape[1])
    colour = _GREEN if episode.success else _RED
    frames = []
    for index in chosen:
        frame = cv2.resize(episode.images[index], None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        action = "" if index == 0 else _describe(episode.actions[index - 1])
        border = _BORDER_PX
        frame = cv2.copyMakeBorder(frame, border, border, border, border, cv2.BORDER_CONSTANT, value=colour)
        frames.append(_write(frame, f"{index} {action}", (6, frame.shape[0] - 8), 0.35))
    strip = np.pad(np.concatenate(frames, axis=1), ((_CAPTION_PX, 0), (0, 0), (0, 0)))
    return _write(strip, caption, (4, 13), 0.42)


def page(strips: Sequence[UInt8Array]) -> UInt8Array:
    """Returns pictures of different widths one below the other, RGB uint8 (H, W, 3), on black."""
    width = max(strip.shape[1] for strip in strips)
    return np.concatenate([np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips])


def save_png(image: UInt8Array, path: Path) -> None:
    """Writes an RGB uint8 (H, W, 3) image; raises OSError when that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(encoded.tobytes())  # imwrite would keep the reason of a failure to itself


def _write(image: UInt8Array, text: str, at: tuple[int, int], size: float) -> UInt8Array:
    image = np.ascontiguousarray(image)
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def _describe(action: FloatArray) -> str:
    words = [word for word, flag in zip(("close", "open", "end"), action[5:8], strict=True) if flag > 0.5]
    return " ".join(words) or "move"
