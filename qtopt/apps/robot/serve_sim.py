"""A simulated cell behind a vendor's protocol: one plant, arm's controller, gripper's socket, camera's stream."""

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

from qtopt.apps.process import StopSignal, say
from qtopt.apps.robot import ServeSim
from qtopt.config import CameraConfig
from qtopt.errors import ConfigError
from robot_bridge.cell.launch import prefer

if TYPE_CHECKING:
    from sim.plant import Plant

_XARM_CONTROL_PORT = 15020
_ARMS = {
    "ur": """[arm]
driver = "ur"
host = "{host}"
watchdog_hz = 3.0

[gripper]
driver = "robotiq-ur-socket"
host = "{host}"
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
_CELL = """schema = 1
cell = "sim-{name}"

{arm}
[camera.main]
driver = "uvc"
url = "{url}"
latency_s = 0.02

[bin]
floor_z_m = 0.0
inner_min_m = [0.45, -0.15]
inner_max_m = [0.75, 0.15]
rim_z_m = 0.05

[limits]
speed_m_s = 0.40
slow_speed_m_s = 0.10
slow_episodes = 0
slow_height_m = 0.02
accel_m_s2 = 2.0
yaw_rate_rad_s = 1.6
step_m = 0.10
step_yaw_rad = 1.5708
wall_m = 0.05
floor_soft_m = 0.005

# A simulation shares its processors with other programs: more patience than an arm of metal would be given.
[watchdog]
hold_s = 0.4
stop_s = 0.8
latch_s = 2.0
arm_latch_s = 0.3
camera_hold_s = 2.0
camera_stop_s = 6.0

[home]
clear_pose_m = [0.60, 0.0, 0.30]

[success]
diff_area_px = 40

[spool]
dir = "{spool}"
min_free = 0.01
"""


def main(config: ServeSim) -> int:
    """Serves until SIGTERM or SIGINT."""
    from sim.config import SimConfig
    from sim.plant import Plant
    from sim.servers.mjpeg import MjpegServer

    sys.setswitchinterval(1e-3)  # the physics thread would keep the others waiting for five times as long
    prefer()
    stop = StopSignal()
    camera = CameraConfig(size_px=config.camera_px)
    cell = SimConfig(object_count=(config.objects, config.objects), camera=camera)
    with (
        Plant(cell, config.seed) as plant,
        MjpegServer(plant.image, config.fps, config.host) as pictures,
        contextlib.ExitStack() as servers,
    ):
        if config.protocol == "ur":
            _serve_ur(plant, config, pictures.url, servers, stop)
        else:
            asyncio.run(_serve_xarm(plant, config, pictures.url, stop))
    return 0


def _serve_ur(plant: "Plant", config: ServeSim, url: str, servers: contextlib.ExitStack, stop: StopSignal) -> None:
    from sim.servers.robotiq import RobotiqSocketServer
    from sim.servers.robotiq_model import RobotiqModel
    from sim.servers.ur import UrServer

    server = UrServer(config.host, plant)
    servers.callback(server.close)
    servers.enter_context(RobotiqSocketServer(RobotiqModel(plant), config.host))
    _announce(config, url, server.fault_port)
    while not stop.wait(3600.0):
        continue


async def _serve_xarm(plant: "Plant", config: ServeSim, url: str, stop: StopSignal) -> None:
    from sim.servers.xarm import XArmServer

    server = XArmServer(plant, config.host, config.seed)
    ports = await server.listen(_XARM_CONTROL_PORT, 0)
    _announce(config, url, ports["fault_port"])
    life = asyncio.ensure_future(server.run())
    while not stop() and not life.done():
        await asyncio.sleep(0.05)
    server.close()
    life.cancel()


def _announce(config: ServeSim, url: str, fault_port: int) -> None:
    """Prints the cell file, or says where it is, when everything listens."""
    name = f"{config.protocol}-{config.host.replace('.', '-')}"
    arm = _ARMS[config.protocol].format(host=config.host, control=_XARM_CONTROL_PORT)
    spool = "spool" if config.output is None else str(config.output.absolute().parent / "spool")
    text = _CELL.format(name=name, arm=arm, url=url, spool=spool)
    if config.output is None:
        say(text)
    else:
        try:
            config.output.write_text(text)
        except OSError as error:
            raise ConfigError(f"{config.output}: cannot be written: {error}") from error
    say(f"# serving {config.protocol} on {config.host}, faults on port {fault_port}; Ctrl-C ends it")
