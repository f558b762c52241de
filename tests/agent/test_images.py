"""Crops keep what they show where they say, and the disturbance stays in range."""

import numpy as np
import pytest
import torch

from qtopt.agent.images import ImageConfig, crop, distort, normalise
from qtopt.errors import ConfigError

CONFIG = ImageConfig(stored_px=20, crop_px=16)


def coordinates(batch: int) -> np.ndarray:
    """Images whose red is the column and whose green is the row."""
    rows, columns = np.mgrid[:20, :20]
    image = np.stack([columns, rows, np.zeros_like(rows)], -1).astype(np.uint8)
    return np.repeat(image[None], batch, 0)


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_corner_tells_where_the_crop_was_taken(seed: int | None) -> None:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    images = coordinates(12)
    images.flags.writeable = seed == 1  # what came over the wire may be read-only
    pixels, corner = crop(images, CONFIG, generator)
    assert pixels.shape == (12, 3, 16, 16)
    assert torch.equal(pixels[:, 0, 0, 0].float(), corner[:, 0])
    assert torch.equal(pixels[:, 1, 0, 0].float(), corner[:, 1])
    assert torch.equal(pixels[:, 0, 0, 15].float(), corner[:, 0] + 15)
    if seed is None:
        assert corner.unique().tolist() == [2.0]
    else:
        assert corner.unique().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_distortion_differs_between_images_and_stays_in_range() -> None:
    images = normalise(torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8))
    changed = distort(images, 1.0, torch.Generator().manual_seed(0))
    assert float(changed.abs().max()) <= 0.5
    assert torch.equal(distort(images, 0.0, torch.Generator()), images)
    gains = (changed - images).abs().mean((1, 2, 3))
    assert len(gains.unique()) == 4


def test_crop_larger_than_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="crop_px is 30"):
        ImageConfig(stored_px=20, crop_px=30)
