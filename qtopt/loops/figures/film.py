"""Filmed episodes as a page of strips, and side by side as a short animation."""

import functools
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qtopt.loops.figures.filming import Take
from qtopt.loops.figures.style import BLUE, GREEN, INK, RED
from qtopt.loops.filmstrip import filmstrip, page
from qtopt.types import FloatArray, UInt8Array

MOST_BYTES = 3_000_000
_STRIP_PX = 144
_BAR_PX = 52
_EDGE_PX = 5
_PAUSE_S, _END_S = 0.3, 1.6
_FINGERS = {True: "fingers closed", False: "fingers open"}
_QUALITIES = (72, 58, 45, 32)


def strips(takes: Sequence[Take], most: int = 7) -> UInt8Array:
    """Returns a page, RGB uint8 (H, W, 3): each take in a row, the picture after each action, ``most`` at most."""
    rows = []
    for take in takes:
        episode = take.evaluated.episode
        size = (_STRIP_PX, _STRIP_PX)
        images = [cv2.resize(group[-1], size, interpolation=cv2.INTER_AREA) for group in take.frames]
        caption = f"{_words(take)}, {len(episode)} steps"
        value = take.evaluated.values[-1]
        rows.append(filmstrip(replace(episode, images=np.stack(images)), caption + _q(value), most))
    return page(rows)


def reel(takes: Sequence[Take], fps: float) -> list[UInt8Array]:
    """Returns the frames of all takes running side by side, RGB uint8 (H, W, 3); who is done first waits."""
    columns = min(len(takes), min((3, 2, 4), key=lambda wide: -len(takes) % wide))  # that leaves the fewest cells empty
    tiles = [_tiles(take, fps) for take in takes]
    length = max(len(each) for each in tiles)
    empty = np.full_like(tiles[0][0], 255)
    frames = []
    for number in range(length):
        shown = [each[min(number, len(each) - 1)] for each in tiles]
        shown += [empty] * (-len(shown) % columns)
        rows = [np.concatenate(shown[row : row + columns], 1) for row in range(0, len(shown), columns)]
        frames.append(np.concatenate(rows))
    return frames


def save_animation(frames: Sequence[UInt8Array], path: Path, fps: float) -> None:
    """Writes an endless animation as WebP, at the best of four qualities that fits into three megabytes."""
    images = [Image.fromarray(frame) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in _QUALITIES:
        coded = io.BytesIO()
        images[0].save(
            coded,
            "WEBP",
            save_all=True,
            append_images=images[1:],
            duration=round(1000 / fps),
            loop=0,
            quality=quality,
            method=3,
        )
        if coded.tell() <= MOST_BYTES:
            break
    path.write_bytes(coded.getvalue())


def _tiles(take: Take, fps: float) -> list[UInt8Array]:
    """Returns a take's pictures with caption, each decision standing still for a moment before it is carried out."""
    episode, values = take.evaluated.episode, take.evaluated.values
    tiles: list[UInt8Array] = []
    pause, end = math.ceil(_PAUSE_S * fps), math.ceil(_END_S * fps)
    before = take.frames[0][-1]
    for number, group in enumerate(take.frames[1:]):
        closed = bool(episode.gripper_closed[number])
        caption = f"{number + 1}  {_act(episode.actions[number])}"
        seen, value = episode.images[number], values[number]
        shown = [before] * pause + list(group)
        tiles += [_tile(image, seen, caption, value, closed=closed) for image in shown]
        before = group[-1]
    colour = GREEN if episode.success else RED
    last = _tile(before, episode.images[-1], _words(take), values[-1], closed=None, colour=colour)
    return tiles + [last] * end


def _tile(
    picture: UInt8Array, seen: UInt8Array, caption: str, value: float, *, closed: bool | None, colour: str = ""
) -> UInt8Array:
    size = picture.shape[0]
    image = Image.new("RGB", (size, size + _BAR_PX), "white")
    image.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(image)
    inset = size // 5
    corner = (size - inset - 2 * _EDGE_PX, 2 * _EDGE_PX)
    image.paste(Image.fromarray(seen).resize((inset, inset), Image.Resampling.NEAREST), corner)
    draw.rectangle((corner[0] - 1, corner[1] - 1, corner[0] + inset, corner[1] + inset), outline=INK)
    if colour:
        draw.rectangle((0, 0, size - 1, size - 1), outline=colour, width=_EDGE_PX)
    draw.text((12, size + 3), caption, fill=colour or INK, font=_font(17, bold=True))
    if closed is not None:
        draw.text((size - 12, size + 5), _FINGERS[closed], fill="#777777", font=_font(14), anchor="ra")
    if math.isfinite(value):
        left, right, top = 70, size - 12, size + 32
        draw.text((12, top - 5), f"Q {value:.2f}", fill=INK, font=_font(14))
        draw.rectangle((left, top, right, top + 9), outline="#999999")
        draw.rectangle((left, top, left + round(value * (right - left)), top + 9), fill=BLUE)
    return np.asarray(image)


def _act(action: FloatArray) -> str:
    words = [word for word, flag in zip(("close", "open", "end"), action[5:8], strict=True) if flag > 0.5]
    return " ".join(words) or "move"


def _words(take: Take) -> str:
    return take.evaluated.episode.outcome.name.lower().replace("_", " ").replace("success", "held")


def _q(value: float) -> str:
    return f", Q of the last action {value:.2f}" if math.isfinite(value) else ""


@functools.cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)
