"""The compact network: it learns to grasp on two CPU cores because it looks where the fingers will be.

What it shares with the paper's network: one trunk a state, the action merged by addition into image features, a sigmoid
Q. What differs, and why:

* The tool is found in the image by a soft argmax, trained on the side against telemetry (``auxiliary_loss``). Only the
  image, the gripper state and the height enter; telemetry is a label, never an input.
* The camera's nominal projection turns "the action moves the tool there" into pixels, and features are read *at those
  pixels*: under the middle of the gripper, under both fingers and beside them, after the commanded rotation. Position
  and azimuth, which a plain trunk of this size takes millions of samples to untangle, thus need not be learned. As
  everything is measured from where the tool was *seen*, a camera that stands a little off shifts both alike.
* An action that leads beyond the workspace is taken for the one that the cell executes in its place. Stored actions
  are the executed ones, so nothing would ever contradict what others seem to be worth, and a search finds just those.
* Whether the fingers hold something shows around and below the place where they meet: features are read there too.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qtopt.agent.network import Features, Inputs, NetworkConfig, QNetwork
from qtopt.specs import ROTATION_COS, ROTATION_SIN

FINGER_M = 0.05
"""Half the opening between the fingers: where they come down beside the middle [m]."""
DECIMETRES = 10.0
"""Lengths enter the layers in decimetres, so that they are of the size of the flags."""
HELD_M = 0.03
"""How far around and below the middle of the fingers a held object is looked for [m]."""
GRASP_HEIGHT_M = 0.02
"""Height above the floor at which the place under the gripper is looked up [m]: about the middle of an object."""


class CompactNetwork(QNetwork):
    """A trunk with a fine (stride 2) and a coarse (stride 4) map, read at the places that an action leads to."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        width = config.width
        fine, hidden = width // 3, 64
        self.stem = nn.Sequential(_block(3, fine, 6, 2, 2), _block(fine, fine, 3, 1, 1))
        self.coarse = nn.Sequential(
            _block(fine, width, 4, 2, 1), _block(width, width, 3, 1, 1), _block(width, width, 3, 1, 1)
        )
        self.tool_heat = nn.Conv2d(width, 1, 1)
        self.tool_yaw = nn.Sequential(nn.Linear(fine + width, hidden), nn.ReLU(), nn.Linear(hidden, 2))
        local = fine + width
        self.under_middle = nn.Linear(local, hidden)
        self.under_finger = nn.Linear(local, hidden)
        self.beside = nn.Linear(local, hidden)
        self.at_tool = nn.Linear(local, hidden)
        self.held = nn.Linear(_PLACES * local, hidden)
        self.scene = nn.Linear(width, hidden)
        self.command = nn.Linear(9, hidden)
        self.head = nn.Sequential(
            nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        final = self.head[-1]
        assert isinstance(final, nn.Linear)
        nn.init.constant_(final.bias, -2.0)
        projection = torch.from_numpy(config.camera.projection()).float()
        self.register_buffer("projection", projection)
        self.register_buffer("reach_low", torch.tensor(config.reach.low_m))
        self.register_buffer("reach_high", torch.tensor(config.reach.high_m))

    projection: Tensor
    reach_low: Tensor
    reach_high: Tensor

    def encode(self, inputs: Inputs) -> Features:
        """Runs the trunk and finds the tool.

        Returns:
            ``fine`` and ``coarse`` maps; ``tool_px`` (B, 2), column and row in the crop, and ``tool_yaw`` (B, 2), sine
            and cosine of twice the azimuth, as seen; ``tool_xy`` (B, 2) [m] and ``tool_azimuth`` (B,) [rad], the same
            in the base frame and without a gradient; ``state_code`` (B, 64), what ``score`` adds for the state;
            ``state``.
        """
        with self.autocast():
            fine = self.stem(inputs.pixels)
            coarse = self.coarse(fine)
            heat = self.tool_heat(coarse)
        fine, coarse, heat = _keep_layout(fine.float()), _keep_layout(coarse.float()), heat.float()
        tool_px = _soft_argmax(heat[:, 0]) * (self.config.image.crop_px / heat.shape[-1])
        seen_px = tool_px.detach()
        local = self._read(fine, coarse, seen_px[:, None])[:, 0]
        tool_yaw = self.tool_yaw(local)
        tool_azimuth = 0.5 * torch.atan2(*tool_yaw.detach().unbind(1))
        height = inputs.state[:, 1, None]
        tool_xy = self._unproject(seen_px + self._offset, height[:, 0])
        around = self._project(_places(tool_xy, tool_azimuth, HELD_M), height - HELD_M * _is_middle(height))
        held = self._read(fine, coarse, around - self._offset)
        return {
            "fine": fine,
            "coarse": coarse,
            "tool_px": tool_px,
            "tool_yaw": tool_yaw,
            "tool_xy": tool_xy,
            "tool_azimuth": tool_azimuth,
            "state_code": self.at_tool(local) + self.held(held.flatten(1)) + self.scene(coarse.mean((2, 3))),
            "state": inputs.state,
        }

    def score(self, features: Features, actions: Tensor) -> Tensor:
        """Reads the maps where each candidate leads and merges them by addition."""
        closed = features["state"][:, :1]
        batch, candidates = actions.shape[:2]
        here = torch.cat([features["tool_xy"], features["state"][:, 1:]], 1)[:, None]
        target = (here + actions[..., :3]).clamp(self.reach_low, self.reach_high)
        moved = target - here
        turn = torch.atan2(actions[..., ROTATION_SIN], actions[..., ROTATION_COS])
        azimuth = features["tool_azimuth"][:, None] + turn
        places = _places(target[..., :2], azimuth, FINGER_M).flatten(1, 2)
        pixels = self._project(places, GRASP_HEIGHT_M) - self._offset
        local = self._read(features["fine"], features["coarse"], pixels).view(batch, candidates, _PLACES, -1)
        command = torch.cat(
            [
                DECIMETRES * target[..., 2:],
                DECIMETRES * moved[..., [2, 0, 1]],
                actions[..., ROTATION_COS:],
                closed[..., None].expand(batch, candidates, 1),
            ],
            -1,
        )
        fingers = self.under_finger(local[:, :, 1:3]).relu().sum(2)
        beside = self.beside(local[:, :, 3:5]).relu().sum(2)
        of_place = self.under_middle(local[:, :, 0]) + fingers + beside
        hidden = of_place + self.command(command) + features["state_code"][:, None]
        logits: Tensor = self.head(hidden)[..., 0]
        return logits

    def auxiliary_loss(self, features: Features, inputs: Inputs, tool_pose: Tensor) -> Tensor:
        """Squared error of where the tool is seen (in units of 8 px) plus that of its azimuth's double-angle vector."""
        seen = self._project(tool_pose[:, None, :2], tool_pose[:, 2, None])[:, 0] - inputs.corner
        place = F.smooth_l1_loss(features["tool_px"] / 8, seen / 8)
        double = torch.stack([(2 * tool_pose[:, 3]).sin(), (2 * tool_pose[:, 3]).cos()], 1)
        return place + F.mse_loss(features["tool_yaw"], double)

    @property
    def _offset(self) -> float:
        return float(self.config.image.centre_offset_px)

    def _project(self, xy: Tensor, height: Tensor | float) -> Tensor:
        """Pixels (B, K, 2) in the stored image of base-frame points (B, K, 2) at heights (B, K) or one height [m]."""
        p = self.projection
        above = p[:, 2] * height if isinstance(height, float) else height[..., None] * p[:, 2]
        pixel = xy @ p[:, :2].T + (above + p[:, 3])
        return pixel[..., :2] / pixel[..., 2:]

    def _unproject(self, pixel: Tensor, height: Tensor) -> Tensor:
        """Base-frame xy (B, 2) of the points at heights (B,) [m] that are seen at pixels (B, 2) of the stored image."""
        p = self.projection
        rows = p[None, :2] - pixel[:, :, None] * p[None, 2:]
        right = -(rows[..., 2] * height[:, None] + rows[..., 3])
        a, b, c, d = rows[:, 0, 0], rows[:, 0, 1], rows[:, 1, 0], rows[:, 1, 1]
        determinant = a * d - b * c
        x = (d * right[:, 0] - b * right[:, 1]) / determinant
        y = (a * right[:, 1] - c * right[:, 0]) / determinant
        return torch.stack([x, y], 1)

    def _read(self, fine: Tensor, coarse: Tensor, pixels: Tensor) -> Tensor:
        """Features (B, K, F) of both maps at crop pixels (B, K, 2), interpolated."""
        grid = (pixels * (2 / self.config.image.crop_px) - 1)[:, :, None]
        read = [F.grid_sample(m, grid, padding_mode="border", align_corners=False)[..., 0] for m in (fine, coarse)]
        return torch.cat(read, 1).transpose(1, 2)


def _block(channels_in: int, channels_out: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out, eps=1e-3, momentum=0.01),
        nn.ReLU(inplace=True),
    )


_PLACES = 5


def _places(middle: Tensor, azimuth: Tensor, half_m: float) -> Tensor:
    """The middle (..., 2), two places along the opening and two across it, ``half_m`` away: (..., 5, 2) [m]."""
    x, y = half_m * azimuth.cos(), half_m * azimuth.sin()
    zero = torch.zeros_like(x)
    offsets = torch.stack([zero, zero, x, y, -x, -y, -y, x, y, -x], -1)
    return middle[..., None, :] + offsets.view(*azimuth.shape, _PLACES, 2)


def _is_middle(like: Tensor) -> Tensor:
    """1 for the first of the places, 0 for the others: (5,)."""
    return F.one_hot(torch.tensor(0, device=like.device), _PLACES).to(like.dtype)


class _KeepLayout(torch.autograd.Function):
    """Does nothing, and brings the gradient into the layout of the network's maps, channels last.

    ``grid_sample`` returns a gradient with the channels first; the backward pass of ReLU and BatchNorm behind it takes
    four to nine times as long where the layouts of map and gradient differ.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        """Returns its argument."""
        del ctx
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Returns the gradient with the channels last."""
        del ctx
        return gradient.contiguous(memory_format=torch.channels_last)


def _keep_layout(features: Tensor) -> Tensor:
    kept: Tensor = _KeepLayout.apply(features)  # type: ignore[no-untyped-call]
    return kept


def _soft_argmax(heat: Tensor) -> Tensor:
    """Mean place (B, 2), column and row in cells from the corner, of softmax(heat) over maps (B, H, W)."""
    weight = heat.flatten(1).softmax(1).view_as(heat)
    rows = torch.arange(heat.shape[1], dtype=heat.dtype, device=heat.device) + 0.5
    columns = torch.arange(heat.shape[2], dtype=heat.dtype, device=heat.device) + 0.5
    return torch.stack([(weight.sum(1) * columns).sum(1), (weight.sum(2) * rows).sum(1)], 1)
