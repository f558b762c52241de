"""Whether convolutions run in bfloat16: a property of the machine, not of the weights.

A processor with AVX-512 bf16 or AMX may be faster in bfloat16 or slower, and nothing that it says of itself tells
which: Intel's without AMX lose almost half of their float32 speed, AMD's of the same year gain as much. So it is tried.
"""

import functools
import time
from typing import Final, Literal

import torch
from torch.nn import functional as F

Precision = Literal["auto", "bfloat16", "float32"]
"""What a configuration says; ``auto`` leaves it to each process, on its own machine."""

_REPEATS: Final = 8
_IMAGES, _CHANNELS, _SIDE, _KERNEL = 4, 64, 32, 3


def uses_bfloat16(precision: Precision, device_type: str) -> bool:
    """Returns whether to compute in bfloat16 on a kind of device; ``auto`` takes the faster on CPUs, bfloat16 on GPUs.

    The first ``auto`` on a CPU takes some 50 ms.
    """
    if precision == "auto":
        return _bfloat16_is_faster() if device_type == "cpu" else True
    return precision == "bfloat16"


@functools.cache
def _bfloat16_is_faster() -> bool:
    """Times a convolution of the networks' kind in both, in turns: the quickest of each counts, a draw is float32's.

    Time is the thread's own, so that what else the machine does cannot decide.
    """
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    with torch.inference_mode():
        layout = torch.channels_last
        image = torch.ones(_IMAGES, _CHANNELS, _SIDE, _SIDE).to(memory_format=layout)
        weight = torch.ones(_CHANNELS, _CHANNELS, _KERNEL, _KERNEL).to(memory_format=layout)
        operands = {kind: (image.to(kind), weight.to(kind)) for kind in best}
        for _ in range(_REPEATS):
            for kind, (pixels, kernel) in operands.items():
                started = time.thread_time()
                F.conv2d(pixels, kernel, padding=_KERNEL // 2)
                best[kind] = min(best[kind], time.thread_time() - started)
    return best[torch.bfloat16] < best[torch.float32]
