"""Drivers by name: the project's own, another party's, and the examples that use them."""

import importlib.metadata
import sys
import tomllib
import types
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest

from qtopt.errors import ConfigError
from robot_bridge import registry
from robot_bridge.cell_file import CellFile, Table, cell_config, load_cell_file
from robot_bridge.driver import ARM_DRIVERS, ArmDriver, CameraDriver

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(each.name for each in resources.files("robot_bridge.cells").iterdir() if each.name.endswith(".toml"))


def example(name) -> CellFile:
    with resources.as_file(resources.files("robot_bridge.cells") / name) as path:
        return load_cell_file(path)


def groups(cell):
    yield "robot_bridge.arms", cell.arm
    yield "robot_bridge.grippers", cell.gripper
    for table in cell.cameras.values():
        yield "robot_bridge.cameras", table


def test_there_is_an_example_for_each_kind_of_arm():
    assert set(EXAMPLES) >= {"ur5e-robotiq.toml", "fr3-hand.toml", "xarm6.toml", "so101.toml", "http.toml"}
    others = set(registry.BUILT_IN[ARM_DRIVERS]) - {"sim"}  # which lives in one process
    assert {example(name).arm.driver for name in EXAMPLES} == others


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_load(name):
    cell = example(name)
    config = cell_config(cell)
    assert config.limits.low_m < config.limits.high_m
    for group, table in groups(cell):
        assert table.driver in registry.installed(group)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_fit_their_drivers(name):
    cell = example(name)
    resolved = registry.resolve(cell)
    assert isinstance(resolved.arm, ArmDriver)
    assert isinstance(resolved.cameras["main"][0], CameraDriver)


def test_an_unknown_driver_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match=r"'kuka' is unknown; arms known here: franka, http, sim, so101, ur, xarm"):
        registry.arm_driver("kuka")


@dataclass(frozen=True)
class FancyOptions:
    host: str
    speed: float = 1.0


def third_party(monkeypatch, found):
    """Installs a driver of another party, as its package's entry point would."""
    module = types.ModuleType("fancy_arms")
    module.DRIVER = found
    monkeypatch.setitem(sys.modules, "fancy_arms", module)
    entry = importlib.metadata.EntryPoint("fancy", "fancy_arms:DRIVER", ARM_DRIVERS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == ARM_DRIVERS else [])


def test_another_partys_driver_is_found(monkeypatch):
    driver = ArmDriver(FancyOptions, open=lambda options: None, open_stop_channel=lambda options: None, extra="")
    third_party(monkeypatch, driver)
    assert registry.arm_driver("fancy") is driver
    assert registry.driver_options(driver, Table("fancy", {"host": "a"}), "[arm]") == FancyOptions("a")
    with pytest.raises(ConfigError, match=r"\[arm\]: unknown key 'hots'; did you mean 'host'\?"):
        registry.driver_options(driver, Table("fancy", {"hots": "a"}), "[arm]")
    with pytest.raises(ConfigError, match=r"\[arm\]: host"):
        registry.driver_options(driver, Table("fancy", {}), "[arm]")


def test_what_is_no_driver_is_refused(monkeypatch):
    third_party(monkeypatch, "a string")
    with pytest.raises(ConfigError, match="is a str, expected ArmDriver"):
        registry.arm_driver("fancy")


def test_a_missing_library_says_what_to_install():
    driver = ArmDriver(FancyOptions, open=lambda options: None, open_stop_channel=lambda options: None, extra="ur")
    assert "pip install '.[ur]'" in str(registry.missing_library(driver, ImportError("no rtde_control")))


def test_a_driver_of_an_installed_package_is_found(tmp_path, monkeypatch):
    """As docs/drivers-own.md has it: a distribution on the path whose metadata name the entry point."""
    (tmp_path / "acme_robot").mkdir()
    (tmp_path / "acme_robot/driver.py").write_text(guide_block("from dataclasses"))
    metadata = tmp_path / "acme_robot-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-robot\nVersion: 1.0\n")
    groups = tomllib.loads(guide_block("[project]"))["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in found.items())
        for group, found in groups.items()
    ]
    (metadata / "entry_points.txt").write_text("".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    driver = registry.arm_driver("acme")
    assert registry.driver_options(driver, Table("acme", {"host": "a"}), "[arm]").host == "a"
    with pytest.raises(ConfigError, match="did you mean 'payload_kg'"):
        registry.driver_options(driver, Table("acme", {"host": "a", "payload": 1.0}), "[arm]")
    monkeypatch.delitem(sys.modules, "acme_robot.driver")


def guide_block(begins):
    """Returns the block of the guide that begins so."""
    blocks = (ROOT / "docs/drivers-own.md").read_text().split("```")[1::2]
    return next(text for _, _, text in (block.partition("\n") for block in blocks) if text.startswith(begins))
