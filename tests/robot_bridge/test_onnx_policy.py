"""The exported policy does what torch's does, never acts late, and refuses what it cannot trust."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import qtopt
from qtopt.agent.build import build_network
from qtopt.agent.cem import CemConfig
from qtopt.agent.export import export_policy
from qtopt.agent.network import NetworkConfig, QNetwork
from qtopt.agent.policy import CemPolicy
from qtopt.agent.snapshot import load_policy_network, pack
from qtopt.errors import CheckpointError, ConfigError, SchemaMismatch
from qtopt.exported import HEAD_FILE, MANIFEST_FILE, SCHEMA, TOWER_FILE, read_manifest
from qtopt.specs import MODE_TERMINATE, PRIOR_ENDS, PRIOR_MAY_END, PRIOR_NO_END, make_action
from qtopt.types import Behaviour, Observation, Observations
from robot_bridge.onnx_policy import Graphs, OnnxPolicy, centre_crop
from robot_bridge.search import NumpyDraws, maximise, prior
from sim import SimConfig, make_environment
from tests.agent.examples import SMALL_PAPER, TINY

PRETRAINED = Path(qtopt.__file__).parent / "pretrained" / "policy.safetensors"


class TorchDraws:
    """The random numbers that torch's search would draw."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, *shape):
        return torch.rand(*shape, generator=self.generator).numpy()

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator).numpy()

    def permutation(self, size):
        return torch.randperm(size, generator=self.generator).numpy()


def trained_like(config: NetworkConfig) -> QNetwork:
    """A network whose BatchNorms have seen something, and whose logits are spread."""
    torch.manual_seed(0)
    network = build_network(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        elif isinstance(module, nn.Conv2d | nn.Linear) and config.kind == "paper":
            nn.init.kaiming_normal_(module.weight)
    return network.eval()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The policy that ships, exported."""
    directory = tmp_path_factory.mktemp("pretrained")
    export_policy(PRETRAINED.read_bytes(), directory)
    return directory


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """An exported policy of a tiny compact network, and its networks."""
    directory = tmp_path_factory.mktemp("tiny")
    payload = pack(trained_like(TINY), trained_like(TINY), 7)
    export_policy(payload, directory, CemConfig(samples=16, elites=3, iterations=3))
    return directory, payload


@pytest.fixture(scope="module")
def seen():
    """What a simulated cell shows in two episodes of random actions."""
    environment = make_environment(SimConfig(objects="unseen"))
    rng = np.random.default_rng(3)
    observations = []
    for seed in (1, 2):
        observations.append(environment.start_episode(seed).observation)
        for step in range(4):
            action = make_action(tuple(rng.uniform(-0.08, 0.05, 3)), rng.uniform(-1, 1), close=step == 2)
            observations.append(environment.act(action).observation)
    environment.close()
    return observations


def random_observation(rng, size_px, closed=None, height_m=None):
    return Observation(
        rng.integers(0, 256, (size_px, size_px, 3), dtype=np.uint8),
        bool(rng.random() < 0.5) if closed is None else closed,
        float(rng.uniform(0.0, 0.2)) if height_m is None else height_m,
    )


def random_actions(rng, count):
    return np.stack(
        [
            make_action(tuple(rng.uniform(-0.08, 0.08, 3)), rng.uniform(-1.5, 1.5), close=i % 2 == 0)
            for i in range(count)
        ]
    )


def torch_logits(network, observation, actions):
    single = Observations(
        observation.image[None], np.array([observation.gripper_closed]), np.float32([observation.height_to_bottom])
    )
    with torch.inference_mode():
        return network.score(network.encode(network.inputs(single)), torch.from_numpy(actions)[None])[0].numpy()


def graph_logits(directory, observation, actions):
    manifest = read_manifest(directory)
    graphs = Graphs(directory, manifest)
    state = np.array([manifest.fixed_state or (observation.gripper_closed, observation.height_to_bottom)], np.float32)
    return graphs.score(graphs.encode(centre_crop(observation, manifest), state), state, actions)


def in_float32(payload):
    network = load_policy_network(payload)
    exact = build_network(replace(network.config, precision="float32")).eval()
    exact.load_state_dict(network.state_dict())
    return exact


def test_logits_of_the_shipped_policy_are_torchs_on_simulated_images(pretrained, seen, rng):
    network = in_float32(PRETRAINED.read_bytes())
    spread = []
    for observation in seen:
        actions = random_actions(rng, 37)
        expected = torch_logits(network, observation, actions)
        assert np.abs(graph_logits(pretrained, observation, actions) - expected).max() < 1e-4
        spread.append(np.ptp(expected))
    assert max(spread) > 1.0  # or the tolerance would say nothing


@pytest.mark.parametrize(
    "config",
    [SMALL_PAPER, TINY, replace(TINY, state="none"), replace(SMALL_PAPER, state="none")],
    ids=["paper", "compact", "compact-blind", "paper-blind"],
)
def test_logits_of_both_kinds_are_torchs(config, tmp_path, rng):
    network = trained_like(config)
    export_policy(pack(network, network, 0), tmp_path)
    for closed in (True, False):
        observation = random_observation(rng, config.image.stored_px, closed)
        for count in (1, 19):
            actions = random_actions(rng, count)
            expected = torch_logits(network, observation, actions)
            assert expected.shape == (count,)
            found = graph_logits(tmp_path, observation, actions)
            assert np.abs(found - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())
    nodes = [node.op_type for name in (TOWER_FILE, HEAD_FILE) for node in onnx.load(tmp_path / name).graph.node]
    assert "BatchNormalization" not in nodes
    types = {
        tensor.data_type for name in (TOWER_FILE, HEAD_FILE) for tensor in onnx.load(tmp_path / name).graph.initializer
    }
    assert onnx.TensorProto.DOUBLE not in types


def test_given_the_same_draws_it_takes_the_same_actions(pretrained, seen):
    theirs = CemPolicy(in_float32(PRETRAINED.read_bytes()))
    ours = OnnxPolicy(pretrained, make_draws=TorchDraws)
    modes = set()
    for episode in range(3):
        for policy in (theirs, ours):
            policy.begin_episode(np.random.default_rng(episode))
        for observation in seen:
            expected, found = theirs.select(observation), ours.select(observation)
            assert np.allclose(found.action, expected.action, atol=1e-5)
            assert found.value == pytest.approx(expected.value, abs=1e-4)
            assert found.behaviour is expected.behaviour
            modes.add(tuple(found.action[5:]))
    assert len(modes) >= 2


@pytest.mark.parametrize("above_m", [None, 0.1])
def test_the_same_with_other_sizes_and_where_ending_is_a_candidate(above_m, tmp_path, rng):
    network = trained_like(replace(TINY, terminate_above_m=above_m))
    payload, cem = pack(network, network, 0), CemConfig(samples=33, elites=5, iterations=4, prior_share=0.5)
    export_policy(payload, tmp_path, cem)
    theirs, ours = CemPolicy(load_policy_network(payload), cem), OnnxPolicy(tmp_path, make_draws=TorchDraws)
    ended = 0
    for step in range(30):
        observation = random_observation(rng, 36, closed=step % 3 > 0, height_m=(0.05, 0.09, 0.15)[step % 3])
        for policy in (theirs, ours):
            policy.begin_episode(np.random.default_rng(step))
        expected, found = theirs.select(observation), ours.select(observation)
        assert np.allclose(found.action, expected.action, atol=1e-5)
        ended += int(found.action[7])
    assert (ended == 10) == (above_m is not None)


def test_ending_is_a_candidate_only_with_closed_fingers_that_are_high_enough():
    def at(closed, height_m, **rule):
        seen = Observation(np.zeros((1, 1, 3), np.uint8), closed, height_m)
        return tuple(prior(seen, 0.08, rule.get("above_m")).tolist())

    def near(values):
        return pytest.approx(values, abs=1e-6)

    assert at(closed=True, height_m=0.08) == near(PRIOR_MAY_END)
    assert at(closed=True, height_m=0.079) == near(PRIOR_NO_END)
    assert at(closed=False, height_m=0.2) == near(PRIOR_NO_END)
    assert at(closed=True, height_m=0.2, above_m=0.1) == near(PRIOR_ENDS)
    assert at(closed=True, height_m=0.09, above_m=0.1) == near(PRIOR_NO_END)


def test_the_search_returns_the_best_ever_scored_and_finds_a_known_peak():
    scored = []
    peak = np.array([0.03, -0.05, 0.02, 0.4], np.float32)

    def score(point, mode):
        value = -np.abs((point - peak) / np.array([0.08, 0.08, 0.1, 1.6])).sum(1) - (mode == 0)
        scored.append(value.max())
        return value.astype(np.float32)

    config = CemConfig(samples=200, elites=12, iterations=6)
    best = maximise(score, np.array(PRIOR_MAY_END, np.float32), config, NumpyDraws(0))
    assert best.score == pytest.approx(max(scored))
    assert best.mode != 0
    assert best.mode == MODE_TERMINATE or np.allclose(best.point, peak, atol=0.03)


class Clock:
    """Goes on by ``step_s`` with each look at it."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def test_a_late_choice_is_a_hold_and_says_so(tiny, rng):
    observation = random_observation(rng, 36, closed=True, height_m=0.1)
    on_time = OnnxPolicy(tiny[0], deadline_s=1.0, clock=Clock(0.01))
    for step_s in (0.26, 0.45, 2.0):  # late behind the search, between populations, before the first
        late = OnnxPolicy(tiny[0], deadline_s=1.0, clock=Clock(step_s))
        decision = late.select(observation)
        assert np.array_equal(decision.action, make_action())
        assert decision.behaviour is Behaviour.SCRIPTED
        assert np.isnan(decision.value)
        assert decision.facts["late"] is True
        assert decision.facts["deadline_s"] == 1.0
        assert decision.facts["select_s"] > 1.0
        assert late.late == 1
    decision = on_time.select(observation)
    assert decision.behaviour is Behaviour.GREEDY
    assert "late" not in decision.facts
    assert on_time.late == 0


def test_a_real_deadline_is_met_or_holds(tiny, rng):
    policy = OnnxPolicy(tiny[0], CemConfig(samples=4000, elites=6, iterations=50), deadline_s=0.02)
    assert np.array_equal(policy.select(random_observation(rng, 36)).action, make_action())
    with pytest.raises(ConfigError, match="deadline_s is 0"):
        OnnxPolicy(tiny[0], deadline_s=0.0)


def test_manifest_says_where_it_comes_from(tiny):
    directory, payload = tiny
    manifest = read_manifest(directory)
    assert manifest.step == 7
    assert manifest.policy_sha256 == hashlib.sha256(payload).hexdigest()
    assert manifest.cem == CemConfig(samples=16, elites=3, iterations=3)
    assert manifest.reach == TINY.reach
    for name, digest in ((TOWER_FILE, manifest.tower_sha256), (HEAD_FILE, manifest.head_sha256)):
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest


@pytest.fixture
def copied(tiny, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(tiny[0], tmp_path / "copy"))


def change(directory, **values):
    path = directory / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("name", [TOWER_FILE, HEAD_FILE])
def test_a_changed_or_missing_graph_is_refused(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: found the SHA-256 .* expected"):
        OnnxPolicy(copied)
    (copied / name).unlink()
    with pytest.raises(CheckpointError, match="copy the whole directory"):
        OnnxPolicy(copied)


def test_a_manifest_that_is_newer_changed_or_none_is_refused(copied, tmp_path):
    change(copied, step=8)
    with pytest.raises(CheckpointError, match="does not match its SHA-256"):
        OnnxPolicy(copied)
    change(copied, schema=SCHEMA + 1)
    with pytest.raises(CheckpointError, match=rf"found schema {SCHEMA + 1}, expected {SCHEMA}; update qtopt"):
        OnnxPolicy(copied)
    change(copied, schema=0)
    with pytest.raises(CheckpointError, match="export the policy again"):
        OnnxPolicy(copied)
    change(copied, format="other")
    with pytest.raises(CheckpointError, match="expected the format 'qtopt-onnx'"):
        OnnxPolicy(copied)
    for text in ("{", "[]"):
        (copied / MANIFEST_FILE).write_text(text)
        with pytest.raises(CheckpointError, match=r"policy\.json"):
            OnnxPolicy(copied)
    with pytest.raises(CheckpointError, match=r"found no policy\.json, expected a directory that qtopt export wrote"):
        OnnxPolicy(tmp_path / "nowhere")


def test_images_of_another_size_are_refused(tiny, rng):
    with pytest.raises(SchemaMismatch, match="36x36 px"):
        OnnxPolicy(tiny[0]).select(random_observation(rng, 40))


def test_export_replaces_an_export_and_nothing_else(tiny, tmp_path):
    directory = tmp_path / "out"
    for _ in range(2):
        export_policy(tiny[1], directory)
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        export_policy(tiny[1], directory)
    assert (directory / MANIFEST_FILE).is_file()
