"""From camera images to network inputs: crop and photometric augmentation, the same code for training and acting.

Training crops at random and disturbs the colours; acting takes the middle (QT-Opt, appendix; ranges as published in
tensor2robot, scaled by ``photometric``).
"""

import numpy as np
import torch
from torch import Tensor

from qtopt.config import ImageConfig
from qtopt.errors import SchemaMismatch
from qtopt.types import UInt8Array

__all__ = ["ImageConfig", "crop", "distort", "normalise"]


def crop(images: UInt8Array, config: ImageConfig, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Crops B images, at random places with a generator, else in the middle.

    Args:
        images: uint8 (B, H, W, 3).
        config: sizes.
        generator: source of chance in training; None when acting.

    Returns:
        uint8 (B, 3, crop, crop) and the crops' corners (B, 2) as (column, row) [px].

    Raises:
        SchemaMismatch: the images have another size.
    """
    if images.shape[1:3] != (config.stored_px, config.stored_px):
        raise SchemaMismatch(
            f"the network works with images of {config.stored_px}x{config.stored_px} px, "
            f"found {images.shape[1]}x{images.shape[2]};"
            " use a network profile and a camera of the same size"
        )
    size, slack = config.crop_px, config.stored_px - config.crop_px
    if generator is None or slack == 0:
        start = config.centre_offset_px
        middle = images[:, start : start + size, start : start + size]
        corner = torch.full((len(images), 2), float(start))
        return torch.from_numpy(middle if middle.flags.writeable else middle.copy()).permute(0, 3, 1, 2), corner
    shift = torch.randint(0, slack + 1, (len(images), 2), generator=generator)
    cut = np.stack(
        [
            image[row : row + size, column : column + size]
            for image, (column, row) in zip(images, shift.tolist(), strict=True)
        ]
    )
    return torch.from_numpy(cut).permute(0, 3, 1, 2), shift.float()


def normalise(pixels: Tensor) -> Tensor:
    """Returns uint8 pixels (B, 3, H, W) as float32 in [-0.5, 0.5]."""
    return pixels.float().div_(255.0).sub_(0.5)


def distort(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Disturbs brightness, contrast, colour balance and adds noise, drawn for each image.

    Args:
        images: float32 (B, 3, H, W) in [-0.5, 0.5].
        strength: 1 gives brightness +-0.125, contrast 0.5 to 1.5, each colour channel's gain 0.8 to 1.2, noise of 0.02.
        generator: source of chance.
    """
    if strength == 0:
        return images
    batch = len(images)

    def uniform(half_width: float, channels: int) -> Tensor:
        draw = torch.rand(batch, channels, 1, 1, generator=generator)
        return ((2 * draw - 1) * half_width * strength).to(images.device)

    mean = images.mean((1, 2, 3), keepdim=True)
    gain = (1 + uniform(0.5, 1)) * (1 + uniform(0.2, 3))
    noise = torch.randn(images.shape[0], 1, *images.shape[2:], generator=generator).to(images.device)
    disturbed = (images - mean).mul_(gain).add_(mean + uniform(0.125, 1))
    return disturbed.add_(noise, alpha=0.02 * strength).clamp_(-0.5, 0.5)
