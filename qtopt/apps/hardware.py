"""The machine that a figure was measured on."""

import os
import platform
from pathlib import Path

import psutil
import torch

from qtopt.types import JsonValue


def hardware() -> dict[str, JsonValue]:
    """Returns the processor's model, cores that may be used, memory [GiB] and the GPU, None without one."""
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
