"""Published networks: both target networks in one safetensors message that says of itself how to be rebuilt."""

import json
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, deserialize
from safetensors.numpy import load, save

from qtopt.agent.build import build_network
from qtopt.agent.network import NetworkConfig, QNetwork
from qtopt.config import from_plain, to_plain
from qtopt.errors import CheckpointError, ConfigError

FORMAT = "qtopt-targets-1"
MOST_HEADER_BYTES = 1 << 20
"""The longest header that is parsed; that of the paper's two networks has 25 KB."""
_TYPES = {torch.float32: "F32", torch.int64: "I64"}


@dataclass(frozen=True)
class TargetNetworks:
    """Both target networks in evaluation mode, and the gradient step that they come from."""

    theta1: QNetwork
    theta2: QNetwork
    step: int


def state_arrays(network: QNetwork, prefix: str) -> dict[str, npt.NDArray[np.generic]]:
    """Returns a network's parameters and buffers as arrays named ``prefix`` + name."""
    return {prefix + name: tensor.detach().cpu().contiguous().numpy() for name, tensor in network.state_dict().items()}


def pack(theta1: QNetwork, theta2: QNetwork, step: int) -> bytes:
    """Returns safetensors bytes that hold both networks, their configuration and ``step``."""
    header = {"format": FORMAT, "step": str(step), "network": json.dumps(to_plain(theta1.config))}
    return save({**state_arrays(theta1, "theta1."), **state_arrays(theta2, "theta2.")}, header)


def unpack(payload: bytes) -> TargetNetworks:
    """Rebuilds both networks; raises CheckpointError when the bytes are anything else."""
    header = read_header(payload)
    config, step = network_config(header), _step(header)
    try:
        arrays = load(payload)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"published weights cannot be read: {error}") from error
    return TargetNetworks(_load(config, arrays, "theta1."), _load(config, arrays, "theta2."), step)


def load_policy_network(payload: bytes) -> QNetwork:
    """Rebuilds the network that acts: the first target network, the averaged one."""
    return unpack(payload).theta1


def check(payload: bytes) -> None:
    """Raises CheckpointError unless the bytes are two networks of the configuration that they name, with their step.

    Names, shapes and types are compared with a network that has no memory behind it: a header may ask for any size.
    """
    header = read_header(payload)
    _step(header)
    config = replace(network_config(header), precision="float32")  # `auto` would measure, without memory
    try:
        entries = deserialize(payload)  # type: ignore[no-untyped-call]  # the library has no types
        found = {name: (tuple(facts["shape"]), facts["dtype"]) for name, facts in entries}
        with torch.device("meta"):
            wanted = build_network(config).state_dict()
    except (SafetensorError, ConfigError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"expected networks of the kind '{config.kind}', found none: {error}") from error
    expected = {
        prefix + name: (tuple(tensor.shape), _TYPES[tensor.dtype])
        for prefix in ("theta1.", "theta2.")
        for name, tensor in wanted.items()
    }
    if found != expected:
        wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        first = wrong[0][:80]
        raise CheckpointError(
            f"networks of the kind '{config.kind}': {len(wrong)} arrays differ, the first is {first!r}: found "
            f"{found.get(wrong[0])}, expected {expected.get(wrong[0])}; publish what this release trains"
        )


def read_header(payload: bytes) -> dict[str, str]:
    """Returns the safetensors header's own fields; raises CheckpointError unless they are this project's.

    A header of more than ``MOST_HEADER_BYTES`` is not parsed: JSON takes many times its length of memory.
    """
    length = int.from_bytes(payload[:8], "little")
    if length > MOST_HEADER_BYTES:
        raise CheckpointError(
            f"expected safetensors with a '{FORMAT}' header of at most {MOST_HEADER_BYTES} bytes, found bytes that are "
            f"not: the first eight say {length}; give a policy.safetensors that this project wrote"
        )
    try:
        header = json.loads(payload[8 : 8 + length]).get("__metadata__", {})
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"expected safetensors with a '{FORMAT}' header, found bytes that are not: {error}"
        ) from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"expected a policy of format '{FORMAT}', "
            f"found {found!r}; give a policy.safetensors that this project wrote"
        )
    return {str(key): str(value) for key, value in header.items()}


def network_config(header: dict[str, str]) -> NetworkConfig:
    """Returns the configuration named in a header; raises CheckpointError when it does not fit this version."""
    try:
        return from_plain(NetworkConfig, json.loads(header["network"]), "network in the checkpoint")
    except (KeyError, ValueError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"the checkpoint's network cannot be rebuilt by this version: {error}") from error


def _step(header: dict[str, str]) -> int:
    found = header.get("step")
    try:
        return int(found or "")
    except ValueError as error:
        raise CheckpointError(
            f"networks: found the step {str(found)[:80]!r} in their header, expected the number of gradient steps "
            "behind them; publish what this release trains"
        ) from error


def _load(config: NetworkConfig, arrays: dict[str, npt.NDArray[np.generic]], prefix: str) -> QNetwork:
    network = build_network(config)
    load_arrays(network, arrays, prefix)
    return network.eval().requires_grad_(requires_grad=False)


def load_arrays(network: QNetwork, arrays: dict[str, npt.NDArray[np.generic]], prefix: str) -> None:
    """Fills a network from arrays named ``prefix`` + name.

    Raises CheckpointError naming what is missing or misshapen.
    """
    state = {
        name[len(prefix) :]: torch.from_numpy(np.array(a)) for name, a in arrays.items() if name.startswith(prefix)
    }
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"weights do not fit the network '{network.config.kind}': {error}") from error
