"""How frames lie on disk.

Small frames are kept raw: there is nothing to decode when they are sampled. Large ones are JPEG, quality 95 with full
chroma (5 to 11 times smaller, 1.4 ms to decode at 472 px); PNG is the option for those who may lose nothing.
"""

import enum

import cv2
import numpy as np
import simplejpeg

from qtopt.errors import ConfigError, CorruptEpisode
from qtopt.types import UInt8Array

RAW_UP_TO_PX = 128
JPEG_QUALITY = 95


class FrameCodec(enum.StrEnum):
    """The encoding of every frame of a store."""

    RAW = "raw"
    JPEG = "jpeg"
    PNG = "png"


def choose_codec(height: int, width: int, wanted: str = "auto") -> FrameCodec:
    """Returns the codec named ``wanted``; ``auto`` is raw up to 128 px and JPEG above."""
    if wanted == "auto":
        return FrameCodec.RAW if max(height, width) <= RAW_UP_TO_PX else FrameCodec.JPEG
    try:
        return FrameCodec(wanted)
    except ValueError as error:
        known = ", ".join(["auto", *FrameCodec])
        raise ConfigError(f"frame codec is {wanted!r}, expected one of {known}") from error


def encode(image: UInt8Array, codec: FrameCodec) -> bytes:
    """Returns ``image``, uint8 (H, W, 3) RGB, as bytes."""
    if codec is FrameCodec.RAW:
        return image.tobytes()
    contiguous = np.ascontiguousarray(image)
    if codec is FrameCodec.JPEG:
        return bytes(simplejpeg.encode_jpeg(contiguous, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"))
    _, encoded = cv2.imencode(".png", contiguous[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return encoded.tobytes()


def decode_into(data: bytes, codec: FrameCodec, out: UInt8Array) -> None:
    """Decodes ``data`` into ``out``, uint8 (H, W, 3) RGB; raises CorruptEpisode when it is not such an image."""
    if codec is FrameCodec.RAW:
        if len(data) != out.size:
            raise CorruptEpisode(f"raw frame of {len(data)} bytes, expected {out.size}; run `qtopt data verify`")
        out.data.cast("B")[:] = data
        return
    if codec is FrameCodec.JPEG:
        try:
            _require_shape((*simplejpeg.decode_jpeg_header(data)[:2], 3), out)
            simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=out)
        except ValueError as error:
            raise CorruptEpisode(f"frame is not a JPEG image: {error}; run `qtopt data verify`") from error
        return
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise CorruptEpisode("frame is not a PNG image; run `qtopt data verify`")
    _require_shape(decoded.shape, out)
    out[:] = decoded[:, :, ::-1]


def _require_shape(found: tuple[int, ...], out: UInt8Array) -> None:
    if found != out.shape:
        raise CorruptEpisode(f"frame of shape {found}, expected {out.shape}; run `qtopt data verify`")
