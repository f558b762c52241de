"""What share of the machine's measured peak the paper's network reaches at 472 px: trunk, and scoring after the merge.

The peak is the best that torch's matrix product does in this run on as many threads, over sizes and both precisions.
Operations are those of the convolutions (two a multiplication with addition), counted from the shapes that pass.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from qtopt.agent.build import build_network
from qtopt.agent.network import PAPER_PROFILE, Inputs, QNetwork, fold_batch_norm
from qtopt.apps.benches.measure import Line, Settings, line

_SIZES: Final = (512, 1024, 2048)
_CANDIDATES = 64
_TURNS = 5


def measure(settings: Settings) -> list[Line]:
    """Measures trunk and scoring in turns with the products; the best of each counts, as peaks are meant."""
    torch.manual_seed(settings.seed)
    network = fold_batch_norm(build_network(PAPER_PROFILE).eval())
    size = PAPER_PROFILE.image.crop_px
    pixels = torch.rand(1, 3, size, size).sub_(0.5).contiguous(memory_format=torch.channels_last)
    inputs = Inputs(pixels, torch.zeros(1, 2), torch.zeros(1, 2))
    actions = torch.rand(1, _CANDIDATES, 8)
    with torch.inference_mode():
        features = network.encode(inputs)
        works: dict[str, Callable[[], object]] = {
            "trunk": lambda: network.encode(inputs),
            "scoring": lambda: network.score(features, actions),
        }
        operations = {name: count_operations(network, work) for name, work in works.items()}
        products = {(kind, side): _product(kind, side) for kind in (torch.float32, torch.bfloat16) for side in _SIZES}
        best = {key: 0.0 for key in (*works, *products)}
        for _ in range(_TURNS):
            for name, work in works.items():
                best[name] = max(best[name], operations[name] / _seconds(work) / 1e9)
            for key, product in products.items():
                best[key] = max(best[key], 2 * key[1] ** 3 / _seconds(product) / 1e9)
    kind, side = max(products, key=lambda key: best[key])
    reference_name = f"torch product of {side} x {side} matrices in {kind}, the best of {len(products)}".replace(
        "torch.", ""
    )
    return [
        line(
            f"peak {name}",
            best[name],
            best[kind, side],
            "GFLOP/s",
            f"paper network at 472 px, {what}, convolutions' operations over the time of everything",
            reference_name,
            gflop=round(operations[name] / 1e9, 3),
            threads=settings.threads,
            bfloat16=network.in_bfloat16,
        )
        for name, what in (("trunk", "trunk of one state"), ("scoring", f"{_CANDIDATES} candidates after the merge"))
    ]


def count_operations(network: QNetwork, work: Callable[[], object]) -> float:
    """Returns the operations of all convolutions that ``work`` runs, two for each multiplication with addition."""
    total = 0.0

    def add(module: Any, _: Any, output: Tensor) -> None:
        nonlocal total
        each = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
        total += 2.0 * output.numel() * each

    hooks = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, nn.Conv2d)]
    work()
    for hook in hooks:
        hook.remove()
    return total


def _product(kind: torch.dtype, side: int) -> Callable[[], object]:
    left, right = torch.ones(side, side).to(kind), torch.ones(side, side).to(kind)
    return lambda: left @ right


def _seconds(work: Callable[[], object]) -> float:
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
