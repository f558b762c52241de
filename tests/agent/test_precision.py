"""The precision is a word in the configuration and a decision of the process."""

import dataclasses

import pytest
import torch

from qtopt.agent import snapshot
from qtopt.agent.build import build_network
from qtopt.agent.network import fold_batch_norm
from qtopt.agent.precision import uses_bfloat16
from qtopt.config import from_plain
from qtopt.errors import ConfigError
from tests.agent.examples import TINY


def test_a_named_precision_holds_everywhere() -> None:
    for device in ("cpu", "cuda"):
        assert uses_bfloat16("bfloat16", device)
        assert not uses_bfloat16("float32", device)


def test_auto_decides_once_a_process_and_takes_bfloat16_on_gpus() -> None:
    chance = torch.random.get_rng_state()
    assert uses_bfloat16("auto", "cpu") == uses_bfloat16("auto", "cpu")
    assert uses_bfloat16("auto", "cuda")
    assert torch.equal(torch.random.get_rng_state(), chance)


def test_published_networks_carry_the_word_not_the_decision() -> None:
    network = build_network(dataclasses.replace(TINY, precision="auto"))
    rebuilt = snapshot.unpack(snapshot.pack(network, network, 1)).theta1
    assert rebuilt.config.precision == "auto"
    assert rebuilt.in_bfloat16 == uses_bfloat16("auto", "cpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_folded_weights_are_in_the_precision_used(precision: str) -> None:
    config = from_plain(type(TINY), {"kind": "compact", "precision": precision})
    first = next(m for m in fold_batch_norm(build_network(config)).modules() if isinstance(m, torch.nn.Conv2d))
    assert first.weight.dtype == getattr(torch, precision)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision"):
        from_plain(type(TINY), {"precision": "float16"})
