"""The acting network as two ONNX graphs, for robots without torch.

The trunk is one graph and runs once a state; what joins the action to it is another, for any number of candidates. All
in float32, with every BatchNorm folded away. Traced, not compiled: torch's newer exporter takes minutes for the same
graphs.
"""

import hashlib
import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

import qtopt
from qtopt.agent.build import build_network
from qtopt.agent.network import NO_STATE, Features, Inputs, NetworkConfig, QNetwork, fold_batch_norm
from qtopt.agent.paper import PaperNetwork
from qtopt.agent.snapshot import load_policy_network, read_header
from qtopt.config import CemConfig, to_plain
from qtopt.errors import ConfigError
from qtopt.exported import ACTIONS, HEAD_FILE, IMAGE, LOGITS, MANIFEST_FILE, STATE, TOWER_FILE, Manifest
from qtopt.specs import ACTION_SIZE

_OPSET: Final = 17
"""Old enough for an onnxruntime of 2022, and the newest whose GridSample they all have."""
_FEATURES: Final = {
    "compact": ("fine", "coarse", "tool_xy", "tool_azimuth", "state_code"),
    "paper": ("convolved",),
}
"""The features that go from the tower to the head."""
_AT_ONCE: Final = {"compact": 0, "paper": 8}
_TRACED_CANDIDATES: Final = 3


class _PaperInGraphs(PaperNetwork):
    """The paper's network, cut behind the first convolution after the merge instead of before it.

    Of that convolution the image's part is the same for all candidates, so it is the tower's work.
    """

    _in_portions = False

    def encode(self, inputs: Inputs) -> Features:
        """Returns ``convolved``, the image's part of the first convolution after the merge, and ``state``."""
        image = super().encode(inputs)["image"]
        return {"convolved": self._blocks_after()[0][0](image), "state": inputs.state}

    def score(self, features: Features, actions: Tensor) -> Tensor:
        """Returns logits (1, N)."""
        final = self._after_shared(features["convolved"], self._embed(features["state"], actions))
        logits: Tensor = self.head(final[:, :, None, None])
        return logits[None]

    def _add_at_places(self, convolved: Tensor, of_constant: Tensor) -> Tensor:
        """As the original, with a gather in place of assignments, each of which would copy all maps in a graph."""
        nearest = torch.ones(convolved.shape[-1], dtype=torch.int64)
        nearest[0], nearest[-1] = 0, 2
        return convolved + of_constant.index_select(2, nearest).index_select(3, nearest)


class _Tower(nn.Module):
    def __init__(self, network: QNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        pixels = image.permute(0, 3, 1, 2).float() / 255.0 - 0.5  # images.normalise, without its in-place steps
        features = self.network.encode(Inputs(pixels, torch.zeros(1, 2), state))
        return tuple(features[name] for name in _FEATURES[self.network.config.kind])


class _Head(nn.Module):
    def __init__(self, network: QNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, *arguments: Tensor) -> Tensor:
        *values, state, actions = arguments
        features = dict(zip(_FEATURES[self.network.config.kind], values, strict=True))
        return self.network.score({**features, "state": state}, actions)


def export_policy(payload: bytes, directory: Path, cem: CemConfig | None = None) -> Manifest:
    """Writes the policy in published networks (``policy.safetensors``) to ``directory`` as ``qtopt.exported`` says.

    Args:
        payload: the published networks; the first one is the policy.
        directory: made if missing; an exported policy in it is replaced.
        cem: sizes of the search to go with it.

    Raises:
        CheckpointError: the bytes are no networks of this project.
        ConfigError: the directory holds other things, or what exporting needs is not installed.
    """
    header = read_header(payload)
    network = for_graphs(load_policy_network(payload))
    _make_room(directory)
    graphs = trace(network)
    for name, graph in zip((TOWER_FILE, HEAD_FILE), graphs, strict=True):
        (directory / name).write_bytes(graph)
    config = network.config
    tower_sha256, head_sha256 = (hashlib.sha256(graph).hexdigest() for graph in graphs)
    manifest = Manifest(
        step=int(header["step"]),
        version=qtopt.__version__,
        policy_sha256=hashlib.sha256(payload).hexdigest(),
        network=to_plain(config),
        image=config.image,
        reach=config.reach,
        cem=cem if cem is not None else CemConfig(),
        terminate_above_m=config.terminate_above_m,
        fixed_state=None if config.state == "full" else NO_STATE,
        at_once=_AT_ONCE[config.kind],
        tower_sha256=tower_sha256,
        head_sha256=head_sha256,
    )
    manifest.write(directory)
    return manifest


def for_graphs(network: QNetwork) -> QNetwork:
    """Returns a copy on the CPU in float32, every BatchNorm folded, cut where the graphs are."""
    config = replace(network.config, precision="float32")
    copy = _PaperInGraphs(config) if config.kind == "paper" else build_network(config)
    copy.load_state_dict(network.state_dict())
    folded = fold_batch_norm(copy)
    if isinstance(folded, PaperNetwork):
        _fold_merge(folded)
    return folded


@torch.no_grad()
def trace(network: QNetwork) -> tuple[bytes, bytes]:
    """Returns the graphs of tower and head of a network from ``for_graphs``; raises ConfigError without ``onnx``."""
    config: NetworkConfig = network.config
    size, names = config.image.crop_px, [f"features.{name}" for name in _FEATURES[config.kind]]
    image, state = torch.zeros(1, size, size, 3, dtype=torch.uint8), torch.tensor([[0.0, 0.15]])
    tower, head = _Tower(network).eval(), _Head(network).eval()
    features = tower(image, state)
    actions = torch.zeros(1, _TRACED_CANDIDATES, ACTION_SIZE)
    free = {ACTIONS: {1: "candidates"}, LOGITS: {1: "candidates"}}
    return (
        _to_onnx(tower, (image, state), [IMAGE, STATE], names, {}),
        _to_onnx(head, (*features, state, actions), [*names, STATE, ACTIONS], [LOGITS], free),
    )


def _to_onnx(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    free: dict[str, dict[int, str]],
) -> bytes:
    graph = io.BytesIO()
    with warnings.catch_warnings():
        # that the newer exporter is torch's default, and that constants of the network become constants of the graph
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        try:
            torch.onnx.export(
                module,
                arguments,
                graph,  # type: ignore[arg-type] # this exporter takes a file, whatever is said of the other
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=free,
                opset_version=_OPSET,
                dynamo=False,
            )
        except ModuleNotFoundError as error:
            raise ConfigError(f"exporting needs {error.name}: pip install 'qtopt[export]'") from error
    return graph.getvalue()


@torch.no_grad()
def _fold_merge(network: PaperNetwork) -> None:
    """Folds the BatchNorm behind the sum of the action's blocks into the blocks, in place."""
    norm, first = network.merge[0], network.blocks[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    for block in network.blocks:
        assert isinstance(block, nn.Linear)
        block.weight.mul_(scale[:, None])
        block.bias.mul_(scale)
    assert isinstance(first, nn.Linear)
    first.bias.add_(norm.bias - norm.running_mean * scale)
    network.merge[0] = nn.Identity()


def _make_room(directory: Path) -> None:
    known = {TOWER_FILE, HEAD_FILE, MANIFEST_FILE}
    directory.mkdir(parents=True, exist_ok=True)
    others = sorted(path.name for path in directory.iterdir() if path.name not in known)
    if others:
        raise ConfigError(
            f"{directory}: found {', '.join(others[:3])} there, expected an empty directory or an earlier export"
        )
    (directory / MANIFEST_FILE).unlink(missing_ok=True)
