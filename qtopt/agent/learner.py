"""Gradient steps on labelled transitions, the averaged network and its lagged copy (QT-Opt, section 4.2).

theta is trained; theta1 is its Polyak average and acts, argmaxes and is served; theta2 is theta1 of some thousand
steps ago. BatchNorm's running statistics are averaged and lagged with the weights.
"""

import copy
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor
from torch.nn import functional as F

from qtopt.agent.build import build_network
from qtopt.agent.network import PAPER_PROFILE, NetworkConfig, QNetwork
from qtopt.agent.snapshot import load_arrays, pack, state_arrays, unpack
from qtopt.config import STRICT, differences, from_plain, to_plain
from qtopt.errors import CheckpointError, ConfigError, QtOptError
from qtopt.types import LabelledBatch


@dataclass(frozen=True)
class LearnerConfig:
    """How the network is trained; the defaults suit the compact profile and some ten thousand steps.

    Attributes:
        network: the network.
        loss: cross-entropy on the sigmoid (the paper) or squared error, for the ablation.
        optimiser: ``sgd`` with momentum (the paper) or ``adam``.
        learning_rate: of the first step.
        momentum: of SGD.
        decay_steps: the rate falls by ``decay_rate`` once in so many steps; 0 keeps it.
        decay_rate: see ``decay_steps``.
        decay_floor: share of ``learning_rate`` below which it does not fall.
        weight_decay: L2 on weights of convolutions and linear layers.
        polyak: constant of the average theta1; 0.9999 in the paper, for millions of steps.
        lag_steps: theta2 is between one and two times so many steps older than theta1's newest; about 6000 in the
            paper, so 4000 for its profile.
        auxiliary_weight: weight of the network's auxiliary loss.
        batch: transitions in a step.
        compile: run the network through torch.compile; ``auto`` does so on a GPU.
    """

    __pydantic_config__ = STRICT

    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    decay_steps: int = 1000
    decay_rate: float = 0.93
    decay_floor: float = 0.1
    weight_decay: float = 7e-5
    polyak: float = 0.999
    lag_steps: int = 300
    auxiliary_weight: float = 1.0
    batch: int = 64
    compile: Literal["auto", "on", "off"] = "auto"

    def __post_init__(self) -> None:
        if not 0.0 < self.learning_rate < math.inf or not 0.0 <= self.momentum < 1.0:
            raise ConfigError(
                f"learner learning_rate is {self.learning_rate} and momentum {self.momentum}, expected a finite rate "
                "above 0 and a share in [0, 1)"
            )
        if not (0.0 <= self.weight_decay < math.inf and 0.0 <= self.auxiliary_weight < math.inf):
            raise ConfigError(
                f"learner weight_decay is {self.weight_decay} and auxiliary_weight {self.auxiliary_weight}, expected "
                "finite weights from 0"
            )
        if self.decay_steps < 0 or not 0.0 < self.decay_rate <= 1.0 or not 0.0 <= self.decay_floor <= 1.0:
            raise ConfigError(
                f"learner decay_steps is {self.decay_steps}, decay_rate {self.decay_rate} and decay_floor "
                f"{self.decay_floor}, expected 0 or more steps and shares in (0, 1] and [0, 1]"
            )
        if not 0.0 <= self.polyak < 1.0:
            raise ConfigError(f"learner polyak is {self.polyak}, expected a share in [0, 1)")
        if self.lag_steps < 1 or self.batch < 2:
            raise ConfigError(
                f"learner lag_steps is {self.lag_steps} and batch {self.batch}, expected at least 1 and 2"
            )


PAPER_LEARNER = LearnerConfig(
    network=PAPER_PROFILE,
    optimiser="sgd",
    learning_rate=1e-4,
    decay_steps=187_500,
    decay_rate=0.999,
    decay_floor=0.0,
    polyak=0.9999,
    lag_steps=4000,
    auxiliary_weight=0.0,
    batch=32,
)
"""The published constants (qtopt in tensor2robot; QT-Opt, section 5)."""


def q_loss(logit: Tensor, target: Tensor, kind: Literal["cross_entropy", "squared_error"]) -> Tensor:
    """Mean distance between sigmoid(logit) and soft targets in [0, 1], both (B,)."""
    if kind == "cross_entropy":
        return F.binary_cross_entropy_with_logits(logit, target)
    return F.mse_loss(logit.sigmoid(), target)


class Learner:
    """theta, theta1, theta2, the optimiser and the count of steps: all of it saved and restored together."""

    def __init__(self, config: LearnerConfig, seed: int, device: str = "cpu") -> None:
        self.config = config
        self.step = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            theta = build_network(config.network)
        self._theta: QNetwork = theta.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._theta1: QNetwork = copy.deepcopy(self._theta).eval().requires_grad_(requires_grad=False)
        self._theta2: QNetwork = copy.deepcopy(self._theta1)
        self._next_theta2 = copy.deepcopy(self._theta1)
        self._trained, self._averaged = _moving(self._theta), _moving(self._theta1)
        self._warm_up = True
        self._generator = torch.Generator().manual_seed(seed + 1)
        self._optimiser = _optimiser(self._theta, config)
        compiles = config.compile == "on" or (config.compile == "auto" and self._theta.device.type == "cuda")
        self._encode = torch.compile(self._theta.encode) if compiles else self._theta.encode
        self._score = torch.compile(self._theta.score) if compiles else self._theta.score

    @classmethod
    def from_policy(cls, payload: bytes, config: LearnerConfig, seed: int, device: str = "cpu") -> "Learner":
        """Returns a learner at step 0, with a fresh optimiser, that goes on from published networks.

        theta and theta1 begin as the policy's averaged network, theta2 as its lagged one. The average keeps its full
        weight from the first step on: it starts from something worth keeping.

        Args:
            payload: safetensors bytes as ``snapshot`` returns them.
            config: how to train; its network has to be the policy's.
            seed: of augmentation.
            device: of torch.

        Raises:
            CheckpointError: the bytes are no policy, or one of another network; the message says how it differs.
        """
        networks = unpack(payload)
        differing = differences(to_plain(config.network), to_plain(networks.theta1.config), "learner.network")
        if differing:
            raise CheckpointError(f"{differing}: a policy is trained on with the network that it has")
        learner = cls(config, seed, device)
        for own in (learner._theta, learner._theta1, learner._next_theta2):
            own.load_state_dict(networks.theta1.state_dict())
        learner._theta2.load_state_dict(networks.theta2.state_dict())
        learner._warm_up = False
        return learner

    @property
    def theta1(self) -> QNetwork:
        """The averaged network, in evaluation mode."""
        return self._theta1

    @property
    def theta2(self) -> QNetwork:
        """The lagged copy of the averaged network, in evaluation mode."""
        return self._theta2

    def update(self, batch: LabelledBatch) -> dict[str, float]:
        """Makes one gradient step and moves the averages; returns figures to log.

        Raises:
            SchemaMismatch: images of another size than the network's.
        """
        config, theta = self.config, self._theta
        theta.train()
        inputs = theta.inputs(batch.observation, self._generator)
        action = torch.from_numpy(batch.action.copy()).to(theta.device)
        target = torch.from_numpy(batch.target.copy()).to(theta.device)
        features = self._encode(inputs)
        logit = self._score(features, action[:, None])[:, 0]
        loss = q_loss(logit, target, config.loss)
        total = loss
        auxiliary = loss.new_zeros(())
        if config.auxiliary_weight > 0:
            pose = torch.from_numpy(batch.tool_pose.copy()).to(theta.device)
            auxiliary = theta.auxiliary_loss(features, inputs, pose)
            total = loss + config.auxiliary_weight * auxiliary
        self._optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self._set_learning_rate()
        self._optimiser.step()
        self.step += 1
        self._move_averages()
        with torch.no_grad():
            q = logit.sigmoid()
            figures = {
                "loss": loss,
                "excess_loss": loss - F.binary_cross_entropy(target, target),
                "auxiliary_loss": auxiliary,
                "q_mean": q.mean(),
                "target_mean": target.mean(),
                "q_error": (q - target).abs().mean(),
            }
            return dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))

    def snapshot(self) -> bytes:
        """Returns both target networks as safetensors bytes, ready to publish."""
        return pack(self._theta1, self._theta2, self.step)

    def save(self, directory: Path) -> None:
        """Writes everything that ``restore`` needs into an existing, empty directory; raises OSError if it cannot."""
        networks = (self._theta, self._theta1, self._theta2, self._next_theta2)
        arrays = {}
        for name, network in zip(_NETWORKS, networks, strict=True):
            arrays.update(state_arrays(network, name + "."))
        for index, state in self._optimiser.state_dict()["state"].items():
            for key, value in state.items():
                arrays[f"optimiser.{index}.{key}"] = torch.as_tensor(value).detach().cpu().contiguous().numpy()
        arrays["generator"] = self._generator.get_state().numpy()
        (directory / _ARRAYS_FILE).write_bytes(save(arrays))  # save_file would hide a full disk's errno
        (directory / "policy.safetensors").write_bytes(self.snapshot())
        state = {"step": self.step, "warm_up": self._warm_up, "config": to_plain(self.config)}
        (directory / "learner.json").write_text(json.dumps(state, indent=1))

    @classmethod
    def restore(cls, directory: Path, device: str = "cpu") -> "Learner":
        """Rebuilds a learner that goes on exactly as the saved one would have; raises CheckpointError if it cannot."""
        try:
            state = json.loads((directory / "learner.json").read_text())
            arrays = load_file(directory / _ARRAYS_FILE)
            config = from_plain(LearnerConfig, state["config"], str(directory / "learner.json"))
            learner = cls(config, seed=0, device=device)
            learner.step, learner._warm_up = int(state["step"]), bool(state.get("warm_up", True))
            networks = (learner._theta, learner._theta1, learner._theta2, learner._next_theta2)
            for name, network in zip(_NETWORKS, networks, strict=True):
                load_arrays(network, arrays, name + ".")
            learner._generator.set_state(torch.from_numpy(arrays["generator"]))
            optimiser = learner._optimiser.state_dict()
            for name, array in arrays.items():
                if name.startswith("optimiser."):
                    _, index, key = name.split(".")
                    optimiser["state"].setdefault(int(index), {})[key] = torch.from_numpy(array)
            learner._optimiser.load_state_dict(optimiser)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError, QtOptError) as error:
            raise CheckpointError(
                f"{directory}: expected a checkpoint with learner.json and learner.safetensors, found {error}; "
                "give the directory of one checkpoint, such as outputs/<job>/<time>/checkpoints/last"
            ) from error
        for parameter, moments in learner._optimiser.state.items():
            for key, value in moments.items():
                if value.shape == parameter.shape:  # fused optimisers take the layouts of both to be the same
                    moments[key] = torch.empty_like(parameter).copy_(value)
        return learner

    def _set_learning_rate(self) -> None:
        config = self.config
        if config.decay_steps:
            share = max(config.decay_floor, config.decay_rate ** (self.step // config.decay_steps))
            for group in self._optimiser.param_groups:
                group["lr"] = config.learning_rate * share

    @torch.no_grad()
    def _move_averages(self) -> None:
        warm = (1 + self.step) / (10 + self.step) if self._warm_up else 1.0
        torch._foreach_lerp_(self._averaged, self._trained, 1 - min(self.config.polyak, warm))
        if self.step % self.config.lag_steps == 0:
            self._theta2.load_state_dict(self._next_theta2.state_dict())
            self._next_theta2.load_state_dict(self._theta1.state_dict())


_NETWORKS = ("theta", "theta1", "theta2", "next_theta2")
_ARRAYS_FILE = "learner.safetensors"


def _moving(network: QNetwork) -> list[Tensor]:
    """Returns what the averages take from a network: its weights and BatchNorm's statistics, in a fixed order."""
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]


def _optimiser(network: QNetwork, config: LearnerConfig) -> torch.optim.Optimizer:
    weights = [p for p in network.parameters() if p.requires_grad and p.dim() > 1]
    offsets = [p for p in network.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": offsets, "weight_decay": 0.0}]
    if config.optimiser == "adam":
        return torch.optim.AdamW(groups, config.learning_rate, fused=True)
    return torch.optim.SGD(groups, config.learning_rate, config.momentum, fused=True)
