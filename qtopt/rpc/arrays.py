"""Arrays and images as bytes, with dtype and shape said and checked: what the codec is made of."""

import enum
import math
from collections.abc import Sequence
from typing import Final, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from qtopt.errors import SchemaMismatch
from qtopt.rpc.gen import types_pb2 as pb
from qtopt.types import UInt8Array

Scalar = TypeVar("Scalar", bound=np.generic)
Enum = TypeVar("Enum", bound=enum.IntEnum)

F32: Final = np.dtype("<f4")
I64: Final = np.dtype("<i8")
U8: Final = np.dtype("u1")
_JPEG: Final = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_JPEG_EXTRA_BYTES: Final = 16_384
"""Headers and tables of a JPEG at most; its pixels never take twice the bytes of raw ones."""
_MOST_PX: Final = 65_535
"""Height and width of a JPEG at most, and of raw images: numpy makes no array of any size, even where it is empty."""
_BASELINE: Final = 0xC0
_SCAN: Final = 0xDA
_TABLES: Final = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))
"""What else may stand before a scan: Huffman and quantisation tables, the restart interval, comments and the like."""


def encode_images(
    message: pb.Images, images: UInt8Array, *, jpeg: bool = False, frames: Sequence[bytes] | None = None
) -> None:
    """Fills a message with uint8 (N, H, W, 3) RGB images.

    Args:
        message: to fill.
        images: the images; with ``frames`` an empty stack of their size.
        jpeg: encode them as JPEG of quality 95 at 4:4:4 instead of sending them raw.
        frames: images that are JPEG files of that kind already, to be sent as they are.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise SchemaMismatch(f"images: found {images.dtype}{list(images.shape)}, expected uint8[N, H, W, 3]")
    message.count, message.height, message.width = images.shape[:3]
    if frames is not None:
        message.count = len(frames)
        message.encoding = pb.IMAGE_ENCODING_JPEG
        message.frames.extend(frames)
    elif jpeg:
        message.encoding = pb.IMAGE_ENCODING_JPEG
        message.frames.extend(cv2.imencode(".jpg", image[..., ::-1], _JPEG)[1].tobytes() for image in images)
    else:
        message.encoding = pb.IMAGE_ENCODING_RAW
        message.raw = images.tobytes()


def decode_images(message: pb.Images, raw: bytes | None = None, size: tuple[int, int] | None = None) -> UInt8Array:
    """Returns the images of a message, uint8 (N, H, W, 3); raw ones are read-only. Raises SchemaMismatch.

    Args:
        message: with the images.
        raw: the message's ``raw``, where it was read before: protobuf copies it at each access.
        size: (height, width) [pixels] that they must have; nothing is decoded of others.
    """
    if size is not None and (message.height, message.width) != size:
        raise SchemaMismatch(f"images: found {message.height}x{message.width} pixels, expected {size[0]}x{size[1]}")
    shape = (message.count, message.height, message.width, 3)
    if not (1 <= message.height <= _MOST_PX and 1 <= message.width <= _MOST_PX):
        found = f"{message.height}x{message.width}"
        raise SchemaMismatch(f"images: found {found} pixels, expected 1 to {_MOST_PX} in height and width")
    if message.encoding == pb.IMAGE_ENCODING_RAW:
        return _view(message.raw if raw is None else raw, U8, shape, "images")
    if message.encoding != pb.IMAGE_ENCODING_JPEG:
        raise SchemaMismatch(f"images: found encoding {message.encoding}, expected 1 (raw) or 2 (JPEG)")
    if len(message.frames) != message.count:
        raise SchemaMismatch(f"images: found {len(message.frames)} JPEG frames, expected {message.count}")
    for frame in message.frames:
        _require_jpeg(frame, shape[1:3])
    images = np.empty(shape, np.uint8)
    for frame, image in zip(message.frames, images, strict=True):
        try:
            simplejpeg.decode_jpeg(frame, colorspace="RGB", buffer=image)
        except ValueError as error:
            raise SchemaMismatch(f"images: found a broken JPEG ({error}), expected {list(shape[1:])}") from error
    return images


def _require_jpeg(frame: bytes, size: tuple[int, ...]) -> None:
    """Raises SchemaMismatch unless ``frame`` says that it is a JPEG of (height, width) pixels; nothing is allocated.

    Baseline ones in one scan only: each of any number of scans costs as much as an image, or much more than its bytes.
    """
    try:
        found = tuple(simplejpeg.decode_jpeg_header(frame)[:2])
    except ValueError as error:
        raise SchemaMismatch(f"images: found bytes that are no JPEG ({error}), expected {list(size)} px") from error
    if found != size:
        raise SchemaMismatch(f"images: found a JPEG of {list(found)} px, expected {list(size)}")
    most = largest_jpeg_bytes(size)
    if len(frame) > most:
        raise SchemaMismatch(f"images: found a JPEG of {len(frame)} bytes, expected at most {most}")
    if not _is_one_scan(frame):
        raise SchemaMismatch(
            "images: found a progressive, lossless or arithmetic JPEG, or one in several scans, expected a baseline "
            "JPEG in one scan"
        )


def largest_jpeg_bytes(size: tuple[int, ...]) -> int:
    """Returns how many bytes a JPEG of (height, width) pixels may have."""
    return 2 * 3 * math.prod(size) + _JPEG_EXTRA_BYTES


def _is_one_scan(frame: bytes) -> bool:
    """Whether a JPEG is a baseline one whose first scan has all its colours, after which a decoder takes no other.

    Its segments are gone through one by one. Padding and markers without a length are refused: a decoder would go on
    elsewhere, and see another image.
    """
    at, colours = 2, 0
    while frame[at : at + 1] == b"\xff" and at + 10 <= len(frame):
        kind = frame[at + 1]
        if kind == _SCAN:
            return frame[at + 4] == colours
        if kind == _BASELINE:
            colours = frame[at + 9]
        elif kind not in _TABLES:
            return False
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    return False


def to_bytes(array: npt.NDArray[np.generic], dtype: np.dtype[np.generic]) -> bytes:
    """Returns an array's bytes; raises SchemaMismatch unless it has ``dtype`` (flags count as uint8)."""
    if array.dtype.kind == "b" and dtype == U8:
        return array.tobytes()
    if array.dtype != dtype:
        raise SchemaMismatch(f"array: found {array.dtype}{list(array.shape)}, expected {dtype}")
    return array.tobytes()


def from_bytes(data: bytes, dtype: np.dtype[Scalar], shape: tuple[int, ...], name: str) -> npt.NDArray[Scalar]:
    """Returns an array of its own memory; raises SchemaMismatch, naming it, when the number of bytes does not fit."""
    return _view(data, dtype, shape, name).copy()


def _view(data: bytes, dtype: np.dtype[Scalar], shape: tuple[int, ...], name: str) -> npt.NDArray[Scalar]:
    """As ``from_bytes``, but read-only and without a copy; the array keeps the bytes alive."""
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise SchemaMismatch(f"{name}: found {len(data)} bytes, expected {expected} for {dtype}{list(shape)}")
    return np.frombuffer(data, dtype).reshape(shape)


def flags_from_bytes(data: bytes, shape: tuple[int, ...], name: str) -> npt.NDArray[np.bool_]:
    """Returns bytes of 0 and 1 as flags; raises SchemaMismatch."""
    value = from_bytes(data, U8, shape, name)
    if value.size and int(value.max()) > 1:
        raise SchemaMismatch(f"{name}: found a flag of {int(value.max())}, expected 0 or 1")
    return value.view(np.bool_)


def member(kind: type[Enum], value: int) -> Enum:
    """Returns a number as a member of an enum; raises SchemaMismatch."""
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(str(int(member)) for member in kind)
        raise SchemaMismatch(f"{kind.__name__}: found {value}, expected one of {known}") from error


def check_unit(value: npt.NDArray[np.float32], name: str) -> None:
    """Raises SchemaMismatch unless all values are in [0, 1]."""
    if value.size and not bool(np.all((value >= 0.0) & (value <= 1.0))):
        raise SchemaMismatch(f"{name}: found values {value.min()} to {value.max()}, expected 0 to 1")
