"""The published Q-network (QT-Opt, appendix E; layout as in tensor2robot)."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qtopt.agent.network import Features, Inputs, NetworkConfig, QNetwork
from qtopt.errors import ConfigError

AT_ONCE = 4
"""Candidates whose maps are computed together on a CPU: at 472 px one is 187 KB, and in and out fit 2 MB of cache."""


def convolution(
    channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, padding: int = 0
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, ReLU: the block of the paper's trunk."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False),
        batch_norm(channels_out),
        nn.ReLU(inplace=True),
    )


def batch_norm(channels: int, *, gamma: bool = True) -> nn.BatchNorm2d:
    """BatchNorm with the paper's decay 0.9997 and epsilon 0.001; ``gamma=False`` keeps the offset alone trainable."""
    layer = nn.BatchNorm2d(channels, eps=1e-3, momentum=3e-4)
    if not gamma:
        layer.weight.requires_grad = False
    return layer


class PaperNetwork(QNetwork):
    """QT-Opt's network (appendix E; layout as published in tensor2robot): 1,242,817 trainable parameters at 472 px."""

    ACTION_BLOCKS = (3, 2, 1, 1, 1, 1, 1)
    """Sizes of world_vector, vertical_rotation, close, open, terminate, gripper_closed, height_to_bottom."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.first = nn.Sequential(nn.Conv2d(3, 64, 6, 2, 2), batch_norm(64, gamma=False))
        self.before = nn.Sequential(*(convolution(64, 64, 5, padding=2) for _ in range(6)))
        self.blocks = nn.ModuleList(nn.Linear(size, 256) for size in self.ACTION_BLOCKS)
        self.merge = nn.Sequential(
            batch_norm(256, gamma=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 64, 1, bias=False),
            batch_norm(64),
            nn.ReLU(inplace=True),
        )
        self.after = nn.Sequential(*(convolution(64, 64, 3, padding=1) for _ in range(6)))
        self.last = nn.Sequential(*(convolution(64, 64, 3) for _ in range(3)))
        side = self._final_side(config.image.crop_px)
        self.head = nn.Sequential(
            convolution(64 * side * side, 64, 1), convolution(64, 64, 1), nn.Conv2d(64, 1, 1), nn.Flatten(0)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.trunc_normal_(parameter, std=0.01, a=-0.02, b=0.02)

    @staticmethod
    def _final_side(crop_px: int) -> int:
        side = crop_px
        for stride in (2, 3, 3, 2):
            side = -(-side // stride)
        if side <= 6:
            raise ConfigError(f"the paper's network needs crops of at least 217 px, found crop_px {crop_px}")
        return side - 6

    def encode(self, inputs: Inputs) -> Features:
        """Runs the seven convolutions before the merge: (B, 64, 27, 27) at 472 px."""
        with self.autocast():
            portions = torch.split(inputs.pixels, 1) if self._in_portions else [inputs.pixels]
            image = torch.cat([self._before_merge(pixels) for pixels in portions])
        return {"image": image, "state": inputs.state}

    @property
    def _in_portions(self) -> bool:
        """Whether maps are computed a few at a time, to stay in a core's cache; not where BatchNorm learns."""
        return not self.training and self.device.type == "cpu"

    def _before_merge(self, pixels: Tensor) -> Tensor:
        # ReLU and max commute, so that only the map of a ninth of the size is rectified
        image: Tensor = _pool_same(self.before(F.relu_(_pool_same(self.first(pixels), 3))), 3)
        return image

    def _after_merge(self, image: Tensor, embedding: Tensor) -> Tensor:
        final: Tensor = self.last(_pool_same(self.after(image + embedding), 2))
        return final.flatten(1)

    def _blocks_after(self) -> list[nn.Sequential]:
        return [block for block in self.after if isinstance(block, nn.Sequential)]

    def _after_shared(self, convolved: Tensor, embedding: Tensor) -> Tensor:
        """As ``_after_merge`` of the image whose first convolution is ``convolved``, for N embeddings (N, 64, 1, 1).

        A convolution is linear: of the sum of image and embedding it is the sum of both's, and that of an embedding,
        the same at every place, has one value inside and others along the border, where the padding's zeros reach in.
        """
        first, *others = self._blocks_after()
        weight = first[0].weight
        assert isinstance(weight, Tensor)
        of_constant = F.conv2d(embedding.expand(-1, -1, 3, 3), weight, padding=1)
        rectified = first[2](first[1](self._add_at_places(convolved, of_constant)))
        for block in others:
            rectified = block(rectified)
        final: Tensor = self.last(_pool_same(rectified, 2))
        return final.flatten(1)

    def _add_at_places(self, convolved: Tensor, of_constant: Tensor) -> Tensor:
        """The sum of maps (1, 64, H, W) and values (N, 64, 3, 3): one for each corner, each side and the inside."""
        merged = convolved + of_constant[:, :, 1:2, 1:2]
        places = ((slice(0, 1), slice(0, 1)), (slice(1, 2), slice(1, -1)), (slice(2, 3), slice(-1, None)))
        for (row, here), (column, there) in itertools.product(places, places):
            if (row, column) != (slice(1, 2), slice(1, 2)):
                merged[:, :, here, there] = convolved[:, :, here, there] + of_constant[:, :, row, column]
        return merged

    def score(self, features: Features, actions: Tensor) -> Tensor:
        """Adds each candidate's embedding to every place of its state's map and runs the rest."""
        batch, candidates = actions.shape[:2]
        with self.autocast():
            embedding = self._embed(features["state"], actions)
            image = features["image"]
            if self._in_portions:
                convolved = torch.split(self._blocks_after()[0][0](image), 1)
                states = zip(convolved, torch.split(embedding, candidates), strict=True)
                portions = ((one, few) for one, own in states for few in torch.split(own, AT_ONCE))
                final = torch.cat([self._after_shared(one, few) for one, few in portions])
            else:
                final = self._after_merge(image.repeat_interleave(candidates, 0), embedding)
            logits: Tensor = self.head(final[:, :, None, None])
        return logits.float().view(batch, candidates)

    def _embed(self, state: Tensor, actions: Tensor) -> Tensor:
        """Returns what each of the actions (B, N, 8) adds to the map of its state (B, 2): (B N, 64, 1, 1)."""
        of_state = state[:, None].expand(-1, actions.shape[1], -1)
        parts = torch.split(torch.cat([actions, of_state], -1).flatten(0, 1), list(self.ACTION_BLOCKS), 1)
        embedding = sum((block(part) for block, part in zip(self.blocks, parts, strict=True)), parts[0].new_zeros(()))
        merged: Tensor = self.merge(embedding[:, :, None, None])
        return merged


def _pool_same(image: Tensor, size: int) -> Tensor:
    """Max pooling with TensorFlow's SAME padding, kernel and stride ``size`` (2 or 3); what is padded never wins."""
    before = [-int(side) % size // 2 for side in image.shape[-2:]]  # int: a number in an exported graph, too
    return F.max_pool2d(image, size, padding=before, ceil_mode=True)
