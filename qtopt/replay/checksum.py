"""CRC-32C, the checksum that zarr's ``crc32c`` codec uses, over anything that lies in memory in one piece."""

import google_crc32c
import numpy as np
import numpy.typing as npt


def crc32c(*parts: bytes | npt.NDArray[np.generic]) -> int:
    """Returns the CRC-32C of ``parts`` laid end to end, an unsigned 32-bit number."""
    value = 0
    for part in parts:
        value = google_crc32c.extend(value, part)
    return int(value)
