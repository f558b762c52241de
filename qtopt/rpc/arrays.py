"""Arrays and images as bytes, with dtype and shape said and checked: what the codec is made of."""

import enum
import math
from typing import Final, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from qtopt.errors import SchemaMismatch
from qtopt.rpc.gen import types_pb2 as pb
from qtopt.types import UInt8Array

Scalar = TypeVar("Scalar", bound=np.generic)
Enum = TypeVar("Enum", bound=enum.IntEnum)

F32: Final = np.dtype("<f4")
I64: Final = np.dtype("<i8")
U8: Final = np.dtype("u1")
_JPEG: Final = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def encode_images(images: UInt8Array, *, jpeg: bool = False) -> pb.Images:
    """Returns uint8 (N, H, W, 3) RGB images as a message, raw or as JPEG of quality 95 at 4:4:4."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise SchemaMismatch(f"images: found {images.dtype}{list(images.shape)}, expected uint8[N, H, W, 3]")
    count, height, width, _ = images.shape
    message = pb.Images(count=count, height=height, width=width)
    if jpeg:
        message.encoding = pb.IMAGE_ENCODING_JPEG
        message.frames.extend(cv2.imencode(".jpg", image[..., ::-1], _JPEG)[1].tobytes() for image in images)
    else:
        message.encoding = pb.IMAGE_ENCODING_RAW
        message.raw = images.tobytes()
    return message


def decode_images(message: pb.Images) -> UInt8Array:
    """Returns the images of a message, uint8 (N, H, W, 3); raises SchemaMismatch."""
    shape = (message.count, message.height, message.width, 3)
    if message.encoding == pb.IMAGE_ENCODING_RAW:
        return from_bytes(message.raw, U8, shape, "images")
    if message.encoding != pb.IMAGE_ENCODING_JPEG:
        raise SchemaMismatch(f"images: found encoding {message.encoding}, expected 1 (raw) or 2 (JPEG)")
    if len(message.frames) != message.count:
        raise SchemaMismatch(f"images: found {len(message.frames)} JPEG frames, expected {message.count}")
    decoded = [_decode_jpeg(frame, shape[1:]) for frame in message.frames]
    return np.stack(decoded) if decoded else np.empty(shape, np.uint8)


def _decode_jpeg(frame: bytes, shape: tuple[int, ...]) -> UInt8Array:
    try:
        image = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        image = None
    if image is None or image.shape != shape:
        found = "bytes that are no JPEG" if image is None else f"an image of {list(image.shape)}"
        raise SchemaMismatch(f"images: found {found}, expected a JPEG of {list(shape)}")
    return np.asarray(image, np.uint8)


def to_bytes(array: npt.NDArray[np.generic], dtype: np.dtype[np.generic]) -> bytes:
    """Returns an array's bytes; raises SchemaMismatch unless it has ``dtype`` (flags count as uint8)."""
    if array.dtype.kind == "b" and dtype == U8:
        return array.tobytes()
    if array.dtype != dtype:
        raise SchemaMismatch(f"array: found {array.dtype}{list(array.shape)}, expected {dtype}")
    return array.tobytes()


def from_bytes(data: bytes, dtype: np.dtype[Scalar], shape: tuple[int, ...], name: str) -> npt.NDArray[Scalar]:
    """Returns an array of its own memory; raises SchemaMismatch, naming it, when the number of bytes does not fit."""
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise SchemaMismatch(f"{name}: found {len(data)} bytes, expected {expected} for {dtype}{list(shape)}")
    return np.frombuffer(data, dtype).reshape(shape).copy()


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
