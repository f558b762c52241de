"""Who acts on a cell, as the words of ``qtopt robot collect`` and its cell file say."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import robot_bridge.cells
from qtopt.agent.exploration import ScriptedPolicy
from qtopt.apps.robot import Collect
from qtopt.apps.robot.policies import choose, open_device
from qtopt.errors import ConfigError, RobotError
from qtopt.exported import MANIFEST_FILE, read_manifest
from qtopt.types import Behaviour, Observation
from robot_bridge.cell_file import PolicyConfig, load_cell_file
from robot_bridge.onnx_policy import OnnxPolicy
from robot_bridge.teleop import TakeoverPolicy, TeleopPolicy
from tests.robot_bridge.test_onnx_policy import PRETRAINED, export_policy

FILE = Path(robot_bridge.cells.__file__).parent / "ur5e-robotiq.toml"


@pytest.fixture
def device(tmp_path):
    """A gamepad that says nothing: a pipe."""
    os.mkfifo(tmp_path / "js0")
    keep = os.open(tmp_path / "js0", os.O_RDWR)
    with contextlib.ExitStack() as parts:
        yield open_device(Collect(FILE, teleop="gamepad", gamepad=tmp_path / "js0"), parts)
    os.close(keep)


def test_the_device_is_closed_with_everything_else(tmp_path):
    os.mkfifo(tmp_path / "js0")
    with contextlib.ExitStack() as parts:
        found = open_device(Collect(FILE, teleop="gamepad", gamepad=tmp_path / "js0"), parts)
    with pytest.raises((OSError, ValueError, RobotError)):
        found.read(0.0)
    assert open_device(Collect(FILE), contextlib.ExitStack()) is None


def test_a_person_acts_alone_or_takes_over(device):
    cell = load_cell_file(FILE)
    alone, follower = choose(Collect(FILE, policy="person", teleop="gamepad"), cell, None, device)
    assert isinstance(alone, TeleopPolicy)
    assert not follower.refresh()
    over, _ = choose(Collect(FILE, policy="scripted", teleop="gamepad"), cell, None, device)
    assert isinstance(over, TakeoverPolicy)
    assert over._deadline_s == cell.watchdog.policy_hold_s
    script, _ = choose(Collect(FILE, policy="scripted"), cell, None, None)
    assert isinstance(script, ScriptedPolicy)
    with pytest.raises(ConfigError, match="--teleop"):
        Collect(FILE, policy="person")


def test_an_exported_network_acts_where_the_cell_file_names_one(tmp_path, rng):
    export_policy(PRETRAINED.read_bytes(), tmp_path / "policy")
    cell = replace(load_cell_file(FILE), policy=PolicyConfig(source=f"onnx:{tmp_path / 'policy'}"))
    policy, _ = choose(Collect(FILE), cell, None, None)
    assert isinstance(policy, OnnxPolicy)
    policy.begin_episode(rng)
    decision = policy.select(
        Observation(np.full((72, 72, 3), 128, np.uint8), gripper_closed=False, height_to_bottom=0.2)
    )
    assert decision.behaviour is Behaviour.GREEDY
    assert np.isfinite(decision.action).all()


def test_a_newer_export_acts_from_the_next_episode_on(tmp_path):
    directory = tmp_path / "policy"
    export_policy(PRETRAINED.read_bytes(), directory)
    cell = replace(load_cell_file(FILE), policy=PolicyConfig(source=f"onnx:{directory}"))
    first, follower = choose(Collect(FILE), cell, None, None)
    assert follower.refresh()
    assert (follower.current, follower.version) == (first, first.manifest.step)
    assert not follower.refresh()
    manifest = read_manifest(directory)
    (directory / MANIFEST_FILE).unlink()  # as while another is written
    assert not follower.refresh()
    replace(manifest, step=manifest.step + 100, policy_sha256="0" * 64).write(directory)
    assert follower.refresh()
    assert follower.current is not first
    assert (follower.version, follower.current.manifest.step) == (manifest.step + 100, manifest.step + 100)
    replace(manifest, tower_sha256="1" * 64).write(directory)
    assert not follower.refresh()
    assert follower.version == manifest.step + 100
