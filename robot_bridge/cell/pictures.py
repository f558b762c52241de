"""Pictures in shared memory: a camera's newest frames with their times, one writer, any number of readers."""

import struct
from typing import Final

import numpy as np

from robot_bridge.cell.shared import Memory, Ring
from robot_bridge.contracts import Frame

_HEAD: Final = struct.Struct("<qqqII32s")
_FRAMES: Final = 3


class PictureRing:
    """The newest frames of a camera.

    Args:
        picture_bytes: size of a picture; the same for all.
        fd: of the memory that another process made; without it new memory is made.
    """

    def __init__(self, picture_bytes: int, fd: int | None = None) -> None:
        record = _HEAD.size + picture_bytes
        self._memory = Memory(fd, Ring.size(record, _FRAMES))
        self._ring = Ring(self._memory, 0, record, _FRAMES)

    @property
    def fd(self) -> int:
        """The file descriptor to pass on."""
        return self._memory.fd

    def write(self, frame: Frame) -> None:
        """Publishes a frame; raises ValueError where its picture is larger than the first one was."""
        height, width, _ = frame.rgb.shape
        head = _HEAD.pack(
            frame.t_capture_ns, frame.t_receive_ns, frame.sequence, height, width, frame.settings_hash.encode()[:32]
        )
        self._ring.write(head + frame.rgb.tobytes())

    def newest(self) -> Frame | None:
        """Returns the newest frame, a copy; None before the first."""
        record = self._ring.newest()
        if record is None:
            return None
        t_capture_ns, t_receive_ns, sequence, height, width, settings = _HEAD.unpack_from(record)
        rgb = np.frombuffer(record, np.uint8, height * width * 3, _HEAD.size).reshape(height, width, 3)
        return Frame(rgb, t_capture_ns, t_receive_ns, sequence, settings.rstrip(b"\0").decode())

    @property
    def count(self) -> int:
        """Frames published so far."""
        return self._ring.count

    def close(self) -> None:
        """Gives the memory back."""
        self._memory.close()
