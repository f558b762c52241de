"""The small installation of a robot's computer: the same versions as the whole, and all that is imported there."""

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = """
import sys
import qtopt.cli, qtopt.apps.robot.check, qtopt.apps.robot.calibrate, qtopt.apps.robot.collect, qtopt.apps.robot.home
import qtopt.apps.robot.status, qtopt.apps.robot.estop, qtopt.apps.robot.ack
import robot_bridge.cell.arm_child, robot_bridge.cell.safety_child, robot_bridge.cell.camera_child
import robot_bridge.onnx_policy, robot_bridge.drivers.ur, robot_bridge.drivers.robotiq, robot_bridge.drivers.uvc
print(*{name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names)
"""
OURS = {"qtopt", "robot_bridge"}


def requirements():
    lines = (ROOT / "deploy" / "robot-requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_versions_are_those_of_the_whole_installation():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    whole = {str(Requirement(each)) for each in (*project["dependencies"], *project["optional-dependencies"]["onnx"])}
    assert {str(each) for each in requirements()} <= whole


def test_a_collector_imports_nothing_else_and_neither_torch_nor_the_simulator():
    ran = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = set(ran.stdout.split())
    assert not imported & {"torch", "zarr", "pybullet", "sim", "tensorboard", "matplotlib"}
    named = {canonicalize_name(each.name) for each in requirements()}
    of = packages_distributions()
    asked_for = {canonicalize_name(each) for name in imported - OURS for each in of.get(name, ())}
    direct = {
        canonicalize_name(Requirement(each).name)
        for each in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    assert asked_for & direct <= named
