"""What every Q-network here offers.

The image trunk runs once a state (``encode``); the action joins afterwards, so all CEM candidates share the features
(``score``). Q is the sigmoid of the logit that ``score`` returns.
"""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from qtopt.agent import images
from qtopt.agent.images import ImageConfig
from qtopt.agent.precision import Precision, uses_bfloat16
from qtopt.config import STRICT, CameraConfig, Reach
from qtopt.errors import ConfigError
from qtopt.types import Observations

Features = dict[str, Tensor]


@dataclass(frozen=True)
class NetworkConfig:
    """Which network, what it gets to see, and which actions it is the value of; travels with every set of weights.

    Attributes:
        kind: ``paper`` is the published network (1,242,817 parameters, 472 px), ``compact`` learns on two CPU cores.
        image: sizes of captured and of cropped images.
        camera: where the camera nominally stands; the compact network looks where the tool will be. Unused by
            ``paper``.
        reach: where the cell lets the tool go; the compact network takes actions beyond it for what the cell makes of
            them, ``paper`` does not. Neither is asked what ending below ``reach.lifted_m`` is worth: nothing.
        width: channels of the compact network's coarse map.
        precision: what convolutions and matrix products run in (always float32 results and parameters); ``auto`` takes
            what is faster where the network runs, so that every process decides for its own machine.
        state: ``full``, or ``none``: constants in place of the gripper's state and the height, an ablation. The compact
            network then has to place the tool as if it were always at the same height.
        terminate_above_m: None, ending an episode is an action like any other (the paper); or a height, the scripted
            rule it is compared with: closed fingers at least so high above the bin floor end it, nothing else does [m].
    """

    __pydantic_config__ = STRICT

    kind: Literal["compact", "paper"] = "compact"
    image: ImageConfig = field(default_factory=ImageConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    reach: Reach = field(default_factory=Reach)
    width: int = 48
    precision: Precision = "auto"
    state: Literal["full", "none"] = "full"
    terminate_above_m: float | None = None

    def __post_init__(self) -> None:
        if self.terminate_above_m is not None and not self.terminate_above_m > 0.0:
            raise ConfigError(
                f"network terminate_above_m is {self.terminate_above_m}, expected a height above 0 m, or nothing for "
                "learned termination"
            )


NO_STATE = (0.0, 0.1)
"""What a network without state gets: open fingers, 0.1 m high, the middle of where they move."""

PAPER_PROFILE = NetworkConfig(
    kind="paper", image=ImageConfig(stored_px=512, crop_px=472, photometric=1.0), reach=Reach(lifted_m=0.0)
)
"""Square frames of 512 px, cropped to 472 as in the paper, and its colours; the network alone decides where to end."""


@dataclass(frozen=True)
class Inputs:
    """A network's view of B observations.

    Attributes:
        pixels: float32 (B, 3, crop, crop) in [-0.5, 0.5].
        corner: (B, 2), column and row of the crop's corner in the stored image [px].
        state: (B, 2), gripper_closed in {0, 1} and height_to_bottom [m]; ``NO_STATE`` for a network without.
    """

    pixels: Tensor
    corner: Tensor
    state: Tensor


class QNetwork(nn.Module, ABC):
    """A state-action value whose trunk is shared by all candidates of a state."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self._bfloat16_on_cpu = uses_bfloat16(config.precision, "cpu")  # here, as torch.compile must not time anything

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def inputs(self, observations: Observations, augment: torch.Generator | None = None) -> Inputs:
        """Turns B observations into inputs; a generator asks for training's random crop and colour disturbance.

        Raises:
            SchemaMismatch: the images have another size than the network's.
        """
        pixels, corner = images.crop(observations.image, self.config.image, augment)
        normal = images.normalise(pixels.to(self.device, non_blocking=True))
        if augment is not None:
            normal = images.distort(normal, self.config.image.photometric, augment)
        if self.config.state == "full":
            closed = torch.from_numpy(observations.gripper_closed.astype("float32"))
            height = torch.from_numpy(observations.height_to_bottom.astype("float32"))
            state = torch.stack([closed, height], 1).to(self.device)
        else:
            state = torch.tensor(NO_STATE, device=self.device).expand(len(normal), -1)
        return Inputs(normal.contiguous(memory_format=torch.channels_last), corner.to(self.device), state)

    @property
    def in_bfloat16(self) -> bool:
        """Whether convolutions and products run in bfloat16 where the parameters are."""
        return self._bfloat16_on_cpu if self.device.type == "cpu" else uses_bfloat16(self.config.precision, "cuda")

    def autocast(self) -> torch.autocast:
        """Returns a context in which convolutions and products run in bfloat16, if they shall."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bfloat16)

    @abstractmethod
    def encode(self, inputs: Inputs) -> Features:
        """Runs the trunk: whatever ``score`` needs of B states."""

    @abstractmethod
    def score(self, features: Features, actions: Tensor) -> Tensor:
        """Returns logits (B, N) of N candidate actions (B, N, 8) for each of B states."""

    def auxiliary_loss(self, features: Features, inputs: Inputs, tool_pose: Tensor) -> Tensor:
        """Returns a scalar that helps the trunk in training; zero unless a network has one.

        Args:
            features: what ``encode`` returned.
            inputs: what it was given.
            tool_pose: (B, 4), x, y, z [m] and azimuth [rad] of the finger tips, known in training only.
        """
        del inputs, tool_pose
        return next(iter(features.values())).new_zeros(())


def fold_batch_norm(network: QNetwork) -> QNetwork:
    """Returns a copy for acting, with each BatchNorm folded into the convolution before it, in the precision used."""
    folded = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    for block in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for index in range(len(block) - 1):
            layer, following = block[index], block[index + 1]
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(layer, following)
                block[index] = fused.to(torch.bfloat16) if network.in_bfloat16 else fused
                block[index + 1] = nn.Identity()
    return folded
