"""A simulated cell behind a vendor's protocol: one plant, arm's controller, gripper's socket, camera's stream."""

import asyncio
import contextlib
import secrets
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from qtopt.apps.process import StopSignal, say
from qtopt.apps.robot import ServeSim
from qtopt.config import CameraConfig
from qtopt.errors import ConfigError
from robot_bridge.cell.launch import prefer

if TYPE_CHECKING:
    from sim.plant import Plant
    from sim.servers.camera import SceneCamera

_XARM_CONTROL_PORT = 15020
_ARMS = {
    "ur": """[arm]
driver = "ur"
host = "{host}"

[gripper]
driver = "robotiq-ur-socket"
host = "{host}"
calibration.open_width_m = {open_width_m}
""",
    "xarm": """[arm]
driver = "xarm"
host = "{host}"
control_port = {control}
box_low_m = [0.2, -0.45, 0.001]
box_high_m = [0.95, 0.45, 0.55]
speed_limit_m_s = 0.5

[gripper]
driver = "xarm"
full_width_m = 0.085
""",
}
_ARMS["http"] = """[arm]
driver = "http"
url = "http://{host}:{control}"
token_file = "{token}"

[gripper]
driver = "http"
"""
_CELL = """schema = 1
cell = "{name}"

{arm}
[camera.main]
driver = "uvc"
url = "{url}"
latency_s = {latency}

[bin]
floor_z_m = 0.0
inner_min_m = [0.45, -0.15]
inner_max_m = [0.75, 0.15]
rim_z_m = 0.05

[limits]
speed_m_s = 0.40
slow_speed_m_s = 0.03  # what is stiff presses with 15 N more for each 2 mm that it goes on
slow_episodes = 0
slow_height_m = 0.12  # objects stand or lie on each other up to here
accel_m_s2 = 2.0
stop_decel_m_s2 = 8.0
yaw_rate_rad_s = 1.6
step_m = 0.10
step_yaw_rad = 1.5708
wall_m = 0.05
floor_soft_m = 0.005

[home]
clear_pose_m = [0.60, 0.0, 0.44]  # out of the picture: fingers that open in it look like an object that came

[grasp]
close_force_n = 20  # the weakest of a 2F-85; coupled fingers put twice as much on what one of them alone touches

[success]
diff_area_px = 40
calibrated = "in simulation"

[spool]
dir = "{spool}"
min_free = 0.01
"""


def main(config: ServeSim) -> int:
    """Serves until SIGTERM or SIGINT."""
    from sim.config import SimConfig
    from sim.plant import Plant
    from sim.servers.camera import SceneCamera
    from sim.truth import TruthLog

    sys.setswitchinterval(1e-3)  # the physics thread would keep the others waiting for five times as long
    prefer()  # in place of hardware, which no other program keeps waiting
    stop = StopSignal()
    camera = CameraConfig(size_px=config.camera_px)
    cell = SimConfig(objects=config.object_set, object_count=(config.objects, config.objects), camera=camera)
    with (
        Plant(cell, config.seed) as plant,
        SceneCamera(plant, camera, config.fps, config.host) as pictures,
        contextlib.ExitStack() as servers,
    ):
        if config.truth is not None:
            servers.callback(TruthLog(plant, _name(config), config.truth).close)
        if config.protocol == "ur":
            _serve_ur(plant, config, pictures, servers, stop)
        elif config.protocol == "http":
            _serve_http(plant, config, pictures, servers, stop)
        else:
            asyncio.run(_serve_xarm(plant, config, pictures, stop))
    return 0


def _serve_ur(
    plant: "Plant", config: ServeSim, pictures: "SceneCamera", servers: contextlib.ExitStack, stop: StopSignal
) -> None:
    from sim.servers.robotiq import RobotiqSocketServer, parse_fault
    from sim.servers.robotiq_model import PlainHand, RobotiqModel
    from sim.servers.ur import UrServer

    gripper = RobotiqModel(plant, config.open_width_m)

    def spoil(what: str) -> None:
        gripper.fault = parse_fault(what, PlainHand())

    server = UrServer(config.host, plant, spoil_camera=pictures.spoil, spoil_gripper=spoil)
    servers.callback(server.close)
    servers.enter_context(RobotiqSocketServer(gripper, config.host))
    _announce(config, pictures.url, server.fault_port)
    while not stop.wait(3600.0):
        continue


def _serve_http(
    plant: "Plant", config: ServeSim, pictures: "SceneCamera", servers: contextlib.ExitStack, stop: StopSignal
) -> None:
    from sim.servers.http import HttpArmCell

    output = config.output or Path(servers.enter_context(tempfile.TemporaryDirectory())) / "cell.toml"
    token = output.absolute().parent / "arm-token"
    token.write_text(secrets.token_hex(24))
    token.chmod(0o600)
    server = servers.enter_context(HttpArmCell(plant, config.host, token, pictures.spoil))
    _announce(config, pictures.url, server.fault_port, control=server.port, token=token)
    while not stop.wait(3600.0):
        continue


async def _serve_xarm(plant: "Plant", config: ServeSim, pictures: "SceneCamera", stop: StopSignal) -> None:
    from sim.servers.xarm import XArmServer

    server = XArmServer(plant, config.host, config.seed, pictures.spoil)
    ports = await server.listen(_XARM_CONTROL_PORT, 0)
    _announce(config, pictures.url, ports["fault_port"], control=_XARM_CONTROL_PORT)
    life = asyncio.ensure_future(server.run())
    while not stop() and not life.done():
        await asyncio.sleep(0.05)
    server.close()
    life.cancel()


def _name(config: ServeSim) -> str:
    return f"sim-{config.protocol}-{config.host.replace('.', '-')}"


def _announce(config: ServeSim, url: str, fault_port: int, control: int = 0, token: Path | None = None) -> None:
    """Prints the cell file, or says where it is, when everything listens."""
    from sim.servers.camera import LATENCY_S

    arm = _ARMS[config.protocol].format(
        host=config.host, control=control, token=token, open_width_m=config.open_width_m
    )
    spool = "spool" if config.output is None else str(config.output.absolute().parent / "spool")
    text = _CELL.format(name=_name(config), arm=arm, url=url, spool=spool, latency=LATENCY_S)
    if config.output is None:
        say(text)
    else:
        try:
            config.output.write_text(text)
        except OSError as error:
            raise ConfigError(f"{config.output}: cannot be written: {error}") from error
    say(f"# serving {config.protocol} on {config.host}, faults on port {fault_port}; Ctrl-C ends it")
