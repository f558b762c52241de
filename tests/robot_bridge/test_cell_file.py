"""The cell file: what it says, what it must not say, and what becomes of it."""

import math
from types import SimpleNamespace

import pytest

from qtopt.errors import ConfigError
from robot_bridge.cell.open import make_detector
from robot_bridge.cell.places import STATE_VARIABLE, Places
from robot_bridge.cell_file import Table, cell_config, load_cell_file, parse_cell_file
from robot_bridge.registry import arm_driver
from robot_bridge.safety.limits import LIMIT_BOUNDS, WATCHDOG_BOUNDS
from tests.robot_bridge.safety.cells import TEXT


def test_it_is_read(tmp_path):
    path = tmp_path / "cell.toml"
    path.write_text(TEXT)
    cell = load_cell_file(path)
    assert cell.cell == "lab-a-ur5e"
    assert cell.arm == Table("ur", {"host": "192.168.1.10"})
    assert cell.cameras["main"].driver == "uvc"
    assert cell.limits.speed_m_s == 0.25
    assert cell.contact.latch_n == 60.0
    assert not cell.recovery.auto_recover


def test_the_policys_workspace_by_hand():
    config = cell_config(parse_cell_file(TEXT + "[grasp]\nclosed_empty_width_m = 0.001\n"))
    assert config.limits.low_m == pytest.approx((0.44, -0.16, 0.020))
    assert config.limits.high_m == pytest.approx((0.70, 0.16, 0.262))
    assert config.limits.step_xy_m == config.limits.step_z_m == 0.05
    assert config.limits.yaw_rad == pytest.approx(math.radians(150))
    assert config.floor_z_m == 0.012
    assert config.empty_width_m == pytest.approx(0.003)


def test_the_hash_is_of_what_it_says():
    same = TEXT.replace('cell = "lab-a-ur5e"', 'cell   =   "lab-a-ur5e"  # ours')
    assert parse_cell_file(same).config_hash == parse_cell_file(TEXT).config_hash
    for old, new in (("0.012", "0.013"), ("192.168.1.10", "192.168.1.11"), ("rim_z_m", "around_m = 0.1\nrim_z_m")):
        assert parse_cell_file(TEXT.replace(old, new)).config_hash != parse_cell_file(TEXT).config_hash


def test_the_hash_is_of_the_calibration_that_it_names_too(tmp_path):
    def hashed():
        return parse_cell_file(TEXT.replace("[arm]", f'[arm]\ncalibration_file = "{file}"')).config_hash

    file = tmp_path / "zeros.json"
    missing = hashed()
    file.write_text('{"zero": 2048}')
    first = hashed()
    file.write_text('{"zero": 2049}')
    assert len({missing, first, hashed()}) == 3
    file.write_text('{"zero": 2048}')
    assert hashed() == first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT + "[limits]\nspeed_ms = 0.1", r"\[limits\]: unknown key 'speed_ms'; did you mean 'speed_m_s'\?"),
        (TEXT + "[limit]\nspeed_m_s = 0.1", r"unknown key 'limit'; did you mean 'limits'\?"),
        (TEXT + "[limits]\nspeed_m_s = 0.6", r"speed_m_s is 0.6; this program allows 0.005 to 0.5"),
        (TEXT + "[limits]\nspeed_m_s = nan", "speed_m_s is nan"),
        (TEXT + "[limits]\nslow_speed_m_s = 0.08\nspeed_m_s = 0.06", "above speed_m_s"),
        (TEXT + "[limits]\nstep_m = 0.11", "step_m is 0.11"),
        (TEXT + "[contact]\nlatch_n = 101", "latch_n is 101"),
        (TEXT + "[contact]\nretract_n = 10", "must rise"),
        (TEXT + "[watchdog]\nstop_s = 0.05\nhold_s = 0.1", "rising"),
        (TEXT + "[watchdog]\nperiod_s = 0.2", "six periods"),
        (TEXT + "[recovery]\nper_hour = 4", "per_hour is 4"),
        (TEXT + "[recovery]\nwait_s = 1", "wait_s is 1"),
        (
            TEXT + "[success]\ndrop_height_m = 0.0",
            r"\[success\] drop_height_m is 0.0; this program allows 0.001 to 0.3",
        ),
        (TEXT + '[policy]\nsource = "magic"', 'expected "scripted"'),
        (TEXT + "[episode]\nclear_height_m = 0.5", "clear_height_m"),
        (TEXT.replace("schema = 1", "schema = 2"), "schema is 2, expected 1"),
        (TEXT.replace("schema = 1", ""), "schema is None"),
        (TEXT.replace('cell = "lab-a-ur5e"', 'cell = "Lab A"'), "lower-case"),
        (TEXT.replace("[camera.main]", "[camera.side]"), r"\[camera.main\] is missing; found \['side'\]"),
        (TEXT.replace('driver = "ur"', ""), r"\[arm\] driver is None"),
        (TEXT.replace("[0.42, -0.18]", "[420.0, -180.0]"), "are the values in metres"),
        (TEXT.replace("0.11", "0.001"), "rim_z_m"),
        (TEXT.replace("rim_z_m = 0.11", ""), "rim_z_m"),
        (TEXT + "[limits]\nwall_m = 0.2", "must lie below high_m"),
        (TEXT + "[episode]\nmax_steps = 25", "max_steps is 25; this program allows 1 to 20"),
        (TEXT + "[episode]\nstep_penalty = nan", "step_penalty is nan"),
        (TEXT + "[home]\nclear_pose_m = [450.0, 0.0, 360.0]", "clear_pose_m is .* a place in metres"),
        (TEXT + "[home]\nclear_pose_m = [0.45, nan, 0.36]", "clear_pose_m is"),
        (TEXT.replace('ur-socket"', 'ur-socket"\nhost = "192.168.1.11"'), "192.168.1.11', expected the arm's own"),
        ("schema = ", "is not TOML"),
    ],
)
def test_what_cannot_work_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_cell_file(text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_cell_file(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("table", "key", "bound"),
    [("limits", key, bound) for key, bound in LIMIT_BOUNDS.items()]
    + [("watchdog", key, bound) for key, bound in WATCHDOG_BOUNDS.items()],
)
def test_no_file_leaves_the_bounds(table, key, bound):
    for beyond in (math.nextafter(bound[0], -math.inf) - 1e-9, bound[1] * 1.001 + 1e-9):
        value = round(beyond) + (1 if beyond > 1 else -1) if key == "slow_episodes" else beyond
        with pytest.raises(ConfigError, match=f"{key} is"):
            parse_cell_file(f"{TEXT}[{table}]\n{key} = {value}")


@pytest.mark.parametrize(
    ("arm", "simulated"),
    [
        ('host = "127.0.3.1"', True),
        ('url = "http://127.0.3.1:8000"', True),
        *((f'host = "{host}"', False) for host in ("127.0.0.1", "127.1", "127.00.0.1", "127.lab.example", "10.0.0.5")),
        ('url = "http://127.lab.example"', False),
        ('url = "http://[127.0.3.1"', False),
        ('host = "192.168.1.10"\nurl = "http://127.0.3.1"', False),
    ],
)
def test_only_an_arm_that_is_simulated_here_may_do_without_slow_mode(arm, simulated):
    text = TEXT.replace('host = "192.168.1.10"', arm) + "[limits]\nslow_episodes = 0\n"
    if simulated:
        assert parse_cell_file(text).limits.slow_episodes == 0
        return
    with pytest.raises(ConfigError, match="slow_episodes"):
        parse_cell_file(text)


@pytest.mark.parametrize(
    ("driver", "more"),
    [("ur", {}), ("franka", {}), ("xarm", {"box_low_m": (0.1, -0.2, 0.0), "box_high_m": (0.5, 0.2, 0.5)})],
)
@pytest.mark.parametrize("host", ["", "arm.lab.example", "192.168.1", "192.168.01.10"])
def test_an_arm_is_named_by_numbers_as_its_locks_are_kept_for_them(driver, more, host):
    with pytest.raises(ConfigError, match="in numbers"):
        arm_driver(driver).options(host=host, **more)


def test_one_arm_has_one_lock_however_its_url_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))

    def locks(url):
        arm = f'driver = "http"\nurl = "{url}"'
        return Places(parse_cell_file(TEXT.replace('driver = "ur"\nhost = "192.168.1.10"', arm))).latch_file.directory

    urls = ("https://arm.lab", "https://ARM.lab/", "https://arm.lab:443", "https://arm.lab:443/")
    assert len({locks(url) for url in urls}) == 1
    assert len({locks(url) for url in (*urls, "https://arm.lab:444", "https://[arm", "https://arm.lab:abc")}) == 4


@pytest.mark.parametrize(
    "line",
    [
        *(f"[success]\n{key} = {value}" for key, value in (("width_margin_m", 0.0002), ("width_margin_m", 0.02))),
        *(f"[success]\n{key} = 1.0" for key in ("diff_t", "diff_area_px")),
        *(f"[success]\ndrop_height_m = {value}" for value in (0.001, 0.3)),
        *(f"[grasp]\nclosed_empty_width_m = {value}" for value in (-0.005, 0.05)),
    ],
)
def test_what_the_file_allows_the_judge_takes(line):
    cell = parse_cell_file(f"{TEXT}{line}")
    make_detector(cell, SimpleNamespace(clear_m=(0.5, 0.0, 0.3)), None)


def test_the_ceilings_are_what_the_documentation_says():
    assert LIMIT_BOUNDS["speed_m_s"][1] == 0.5
    assert LIMIT_BOUNDS["step_m"][1] == 0.10
    with pytest.raises(ConfigError, match="100"):
        parse_cell_file(TEXT + "[contact]\nlatch_n = 100.1")
