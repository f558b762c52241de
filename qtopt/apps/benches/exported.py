"""Choices per second of an exported policy in ONNX Runtime, beside the same policy in torch, on the same images.

Both as they act: one state at a time, image in, action out. Torch computes as it does on this machine by default.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from qtopt.agent.build import build_network
from qtopt.agent.export import export_policy
from qtopt.agent.network import PAPER_PROFILE, NetworkConfig, fold_batch_norm
from qtopt.agent.policy import CemPolicy
from qtopt.agent.snapshot import load_policy_network, pack
from qtopt.apps.benches.measure import Line, Settings, line
from qtopt.interfaces import Policy
from qtopt.types import Observation
from robot_bridge.onnx_policy import OnnxPolicy

_TURNS = {"compact": 40, "paper": 7}
_UNIT = "actions/s of one core's time"


def measure(settings: Settings) -> list[Line]:
    """Measures both networks, with fresh weights: what they are takes no part in the time."""
    torch.manual_seed(settings.seed)
    return [_measure(config, settings) for config in (NetworkConfig(), PAPER_PROFILE)]


def _measure(config: NetworkConfig, settings: Settings) -> Line:
    network = build_network(config).eval()
    payload = pack(network, network, 0)
    rng = np.random.default_rng(settings.seed)
    size = config.image.stored_px
    seen = Observation(rng.integers(0, 256, (size, size, 3), dtype=np.uint8), gripper_closed=True, height_to_bottom=0.1)
    with tempfile.TemporaryDirectory() as folder:
        export_policy(payload, Path(folder))
        ours = OnnxPolicy(Path(folder), threads=settings.threads)
        reference = CemPolicy(load_policy_network(payload))
        of_ours, of_reference = _in_turns(ours, reference, seen, _TURNS[config.kind])
    cem = ours.manifest.cem
    return line(
        f"onnx action {config.kind}",
        1 / of_ours,
        1 / of_reference,
        _UNIT,
        f"{config.kind} network, {config.image.crop_px} px: ONNX Runtime, float32",
        "the same network and search in torch",
        ours_ms=round(1e3 * of_ours, 2),
        reference_ms=round(1e3 * of_reference, 2),
        samples=cem.samples,
        iterations=cem.iterations,
        threads=settings.threads,
        bfloat16=fold_batch_norm(network).in_bfloat16,
    )


def _in_turns(ours: Policy, reference: Policy, seen: Observation, turns: int) -> tuple[float, float]:
    """Returns the median processor time of a choice of each [s]; both take turns, and choose once before."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for policy, times in zip((ours, reference), found, strict=True):
            policy.begin_episode(np.random.default_rng(turn))
            started = time.process_time()
            policy.select(seen)
            if turn:
                times.append(time.process_time() - started)
    return statistics.median(found[0]), statistics.median(found[1])
