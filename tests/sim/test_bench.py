"""The benchmark beside the reference, in a process of its own because the reference takes the first Bullet client."""

import json
import subprocess
import sys

import numpy as np
import pytest

from qtopt.config import CameraConfig
from qtopt.errors import ConfigError
from sim.bench import measure, run_random_episode
from sim.cell import make_environment
from sim.config import SimConfig


def test_one_line_with_both_figures():
    code = "import json; from sim.bench import measure; print(json.dumps(measure(1.5)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    result = json.loads(done.stdout)
    assert result["name"] == "sim"
    assert result["ours"] > result["reference"] > 0
    assert result["ratio"] == pytest.approx(result["ours"] / result["reference"], rel=0.02)
    assert done.stderr == ""


def test_its_episodes_can_succeed():
    environment = make_environment(SimConfig(object_count=(5, 5), camera=CameraConfig(size_px=48)), 0)
    rng = np.random.default_rng(0)
    assert any(success for _, success in (run_random_episode(environment, rng) for _ in range(40)))
    environment.close()


def test_a_measurement_of_no_length_is_refused():
    with pytest.raises(ConfigError, match="seconds"):
        measure(0.0)
