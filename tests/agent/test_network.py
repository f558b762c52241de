"""The paper's network as published; the compact one's geometry."""

import dataclasses

import numpy as np
import pytest
import torch

from qtopt.agent.build import build_network
from qtopt.agent.compact import CompactNetwork
from qtopt.agent.device import resolve_device
from qtopt.agent.network import PAPER_PROFILE, Inputs, NetworkConfig, QNetwork, fold_batch_norm
from qtopt.agent.paper import PaperNetwork
from qtopt.errors import ConfigError, SchemaMismatch
from tests.agent.examples import SMALL_PAPER, TINY, observations


def test_the_papers_network_has_1242817_trainable_parameters() -> None:
    network = build_network(PAPER_PROFILE)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 1_242_817
    assert sum(b.numel() for name, b in network.named_buffers() if "running" in name) == 2_944


def test_the_papers_image_embedding_is_27_by_27_by_64() -> None:
    network = build_network(PAPER_PROFILE).eval()
    with torch.no_grad():
        features = network.encode(Inputs(torch.zeros(1, 3, 472, 472), torch.zeros(1, 2), torch.zeros(1, 2)))
        logits = network.score(features, torch.zeros(1, 2, 8))
    assert features["image"].shape == (1, 64, 27, 27)
    assert logits.shape == (1, 2)


@pytest.mark.parametrize("config", [TINY, SMALL_PAPER], ids=["compact", "paper"])
def test_candidates_are_scored_as_if_each_were_alone(config: NetworkConfig) -> None:
    torch.manual_seed(0)
    network = build_network(config).eval()
    states = observations(np.random.default_rng(0), 2, config.image.stored_px)
    actions = torch.rand(2, 5, 8)
    with torch.no_grad():
        together = network.score(network.encode(network.inputs(states)), actions)
        for candidate in range(5):
            alone = network.score(network.encode(network.inputs(states)), actions[:, candidate : candidate + 1])
            assert torch.allclose(together[:, candidate], alone[:, 0], atol=1e-5)


class InOnePiece(PaperNetwork):
    """The paper's network computed as in training: all maps at once, the merged map convolved for each candidate."""

    _in_portions = False


@pytest.mark.parametrize("folds", [False, True])
def test_looking_in_portions_changes_no_value(folds: bool) -> None:
    torch.manual_seed(0)
    whole = InOnePiece(SMALL_PAPER).eval()
    for module in whole.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)  # the published ones are too small for values to differ
    network = PaperNetwork(SMALL_PAPER).eval()
    network.load_state_dict(whole.state_dict())
    states = observations(np.random.default_rng(0), 2, SMALL_PAPER.image.stored_px)
    actions = torch.rand(2, 7, 8)
    looking = fold_batch_norm(network) if folds else network
    with torch.no_grad():
        expected, found = (n.score(n.encode(n.inputs(states)), actions) for n in (whole, looking))
    assert float(expected.std(1).min()) > 0.01
    assert torch.allclose(expected, found, rtol=1e-4, atol=1e-4)


def test_wrong_image_size_is_named() -> None:
    network = build_network(TINY)
    with pytest.raises(SchemaMismatch, match="images of 36x36 px, found 48x48"):
        network.inputs(observations(np.random.default_rng(0), 1, 48))


def compact() -> CompactNetwork:
    network = build_network(NetworkConfig())
    assert isinstance(network, CompactNetwork)
    return network


def test_unproject_undoes_project() -> None:
    network = compact()
    xy = torch.tensor([[0.6, 0.0], [0.5, 0.1], [0.7, -0.12]])
    height = torch.tensor([0.0, 0.1, 0.2])
    pixels = network._project(xy[:, None], height[:, None])[:, 0]
    assert torch.allclose(network._unproject(pixels, height), xy, atol=1e-4)


def test_the_tools_azimuth_is_read_from_the_double_angle() -> None:
    network = compact().eval()
    last = network.tool_yaw[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([np.sin(2 * 0.3), np.cos(2 * 0.3)]))
        features = network.encode(network.inputs(observations(np.random.default_rng(0), 2, 72)))
    assert features["tool_azimuth"].tolist() == pytest.approx([0.3, 0.3], abs=1e-5)


def test_fingers_turn_with_the_commanded_rotation() -> None:
    """A quarter turn of the command must do what a quarter turn of the tool does, a half turn nothing."""
    torch.manual_seed(0)
    network = compact().eval()
    actions = torch.zeros(1, 3, 8)
    for candidate, turn in enumerate((0.0, np.pi / 2, np.pi)):
        actions[0, candidate, 3], actions[0, candidate, 4] = np.sin(turn), np.cos(turn)
    with torch.no_grad():
        features = network.encode(network.inputs(observations(np.random.default_rng(0), 1, 72)))
        network.command.weight[:, 4].zero_()  # the cosine itself enters too; here only the places count
        straight = network.score(features, actions)[0]
        features["tool_azimuth"] += np.pi / 2
        turned = network.score(features, actions)[0]
    assert straight[1] == pytest.approx(float(turned[0]), abs=1e-5)
    assert straight[2] == pytest.approx(float(straight[0]), abs=1e-5)
    assert abs(float(straight[1] - straight[0])) > 1e-5


def test_a_displacement_moves_the_place_that_is_read() -> None:
    """A feature planted where an action leads must change the score of that action and hardly any other's."""
    torch.manual_seed(0)
    network = compact().eval()
    states = observations(np.random.default_rng(0), 1, 72)
    with torch.no_grad():
        features = network.encode(network.inputs(states))
        features["tool_xy"] = torch.tensor([[0.6, 0.0]])
        features["state"] = torch.tensor([[0.0, 0.1]])
        target = torch.tensor([[[0.64, 0.0]]])
        column, row = ((network._project(target, 0.02) - 4) / 2).long()[0, 0].tolist()
        actions = torch.zeros(1, 2, 8)
        actions[..., 4] = 1
        actions[0, 0, 0], actions[0, 1, 0] = 0.04, -0.06
        before = network.score(features, actions)
        features["fine"][0, :, row - 1 : row + 2, column - 1 : column + 2] += 10
        change = (network.score(features, actions) - before).abs()[0]
    assert change[0] > 1e-3
    assert change[1] < 1e-6


def test_an_action_beyond_the_workspace_is_worth_what_the_cell_makes_of_it() -> None:
    network = compact().eval()
    states = observations(np.random.default_rng(0), 2, network.config.image.stored_px)
    with torch.no_grad():
        features = network.encode(network.inputs(states))
        features["tool_xy"] = torch.tensor([[0.68, 0.07], [0.52, -0.08]])
        features["state"] = torch.tensor([[0.0, 0.03], [1.0, 0.20]])
        wanted = torch.tensor([[0.06, 0.08, -0.10], [-0.07, -0.05, 0.09]])
        executed = torch.tensor([[0.02, 0.03, -0.025], [-0.02, -0.02, 0.05]])
        rest = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]).expand(2, 5)
        both = torch.stack([torch.cat([wanted, rest], 1), torch.cat([executed, rest], 1)], 1)
        worth = network.score(features, both)
        torch.testing.assert_close(worth[:, 0], worth[:, 1])
        inside = network.score(features, torch.cat([0.5 * executed, rest], 1)[:, None])[:, 0]
    assert (inside - worth[:, 1]).abs().min() > 1e-6


def test_auxiliary_loss_is_zero_where_the_tool_is_seen_where_it_is() -> None:
    network = compact()
    pose = torch.tensor([[0.6, 0.05, 0.12, 0.4]])
    inputs = Inputs(torch.zeros(1, 3, 64, 64), torch.tensor([[2.0, 6.0]]), torch.tensor([[0.0, 0.12]]))
    seen = network._project(pose[:, None, :2], pose[:, 2, None])[:, 0] - inputs.corner
    double = torch.tensor([[np.sin(0.8), np.cos(0.8)]], dtype=torch.float32)
    assert float(network.auxiliary_loss({"tool_px": seen, "tool_yaw": double}, inputs, pose)) < 1e-9
    assert float(network.auxiliary_loss({"tool_px": seen + 8, "tool_yaw": double}, inputs, pose)) > 0.1


def test_gradients_of_the_maps_keep_the_maps_layout() -> None:
    network: QNetwork = build_network(TINY).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = network.inputs(observations(np.random.default_rng(0), 3, 36), torch.Generator())
    assert inputs.pixels.is_contiguous(memory_format=torch.channels_last)
    laid_out = []
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _m, _i, output: output.register_hook(laid_out.append) and None)
    network.score(network.encode(inputs), torch.rand(3, 2, 8)).sum().backward()
    assert len(laid_out) == 5
    assert all(gradient.is_contiguous(memory_format=torch.channels_last) for gradient in laid_out)


def test_base_class_has_no_auxiliary_loss() -> None:
    network: QNetwork = build_network(SMALL_PAPER)
    inputs = network.inputs(observations(np.random.default_rng(0), 2, 236))
    assert float(network.auxiliary_loss(network.encode(inputs), inputs, torch.zeros(2, 4))) == 0.0


@pytest.mark.parametrize("config", [NetworkConfig(), SMALL_PAPER], ids=["compact", "paper"])
def test_bfloat16_changes_little(config: NetworkConfig) -> None:
    torch.manual_seed(0)
    exact = build_network(dataclasses.replace(config, precision="float32")).eval()
    rounded = build_network(dataclasses.replace(config, precision="bfloat16")).eval()
    rounded.load_state_dict(exact.state_dict())
    states = observations(np.random.default_rng(0), 4, config.image.stored_px)
    actions = torch.rand(4, 3, 8)
    with torch.no_grad():
        q = [n.score(n.encode(n.inputs(states)), actions).sigmoid() for n in (exact, rounded)]
    assert q[1].dtype == torch.float32
    assert float((q[0] - q[1]).abs().max()) < 0.02


@pytest.mark.parametrize("config", [TINY, SMALL_PAPER], ids=["compact", "paper"])
def test_folding_batch_norm_changes_no_value(config: NetworkConfig) -> None:
    torch.manual_seed(0)
    network = build_network(config)
    states = observations(np.random.default_rng(0), 4, config.image.stored_px)
    network.train().score(network.encode(network.inputs(states)), torch.rand(4, 1, 8))  # statistics other than 0 and 1
    network.eval()
    folded = fold_batch_norm(network)
    actions = torch.rand(4, 3, 8)
    with torch.no_grad():
        q = [n.score(n.encode(n.inputs(states)), actions).sigmoid() for n in (network, folded)]
    assert torch.allclose(q[0], q[1], atol=1e-4)


def test_without_state_neither_gripper_nor_height_changes_a_value() -> None:
    torch.manual_seed(0)
    full, none = build_network(TINY).eval(), build_network(dataclasses.replace(TINY, state="none")).eval()
    none.load_state_dict(full.state_dict())
    states = observations(np.random.default_rng(0), 2, 36)
    other = dataclasses.replace(
        states, gripper_closed=~states.gripper_closed, height_to_bottom=states.height_to_bottom + np.float32(0.05)
    )
    actions = torch.rand(2, 3, 8)
    with torch.no_grad():
        q = {
            name: [n.score(n.encode(n.inputs(given)), actions) for given in (states, other)]
            for name, n in (("full", full), ("none", none))
        }
    assert torch.equal(*q["none"])
    assert not torch.allclose(*q["full"])
    assert none.inputs(states).state.tolist() == [pytest.approx([0.0, 0.1])] * 2


def test_a_height_to_end_at_is_above_the_floor() -> None:
    with pytest.raises(ConfigError, match="terminate_above_m is 0"):
        NetworkConfig(terminate_above_m=0.0)


def test_devices_by_name() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="device is 'gpu', expected auto"):
        resolve_device("gpu")
