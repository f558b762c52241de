"""A simulated cell behind a vendor's protocol: one plant, arm's controller, gripper's socket, camera's stream."""

import asyncio
import contextlib
import json
import secrets
import socket
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
payload_kg = 1.0
payload_centre_m = [0.0, 0.0, 0.05]

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
_ARMS["franka"] = """[arm]
driver = "franka"
host = "{host}"
realtime = false
collision_force_n = 40.0
speed_limit_m_s = 0.4
yaw_rate_rad_s = 1.6

[gripper]
driver = "franka-hand"
"""
_ARMS["so101"] = """[arm]
driver = "so101"
port = "{port}"
calibration_file = "{calibration}"

[gripper]
driver = "so101"
"""
_CELL = """schema = 1
cell = "{name}"

{arm}
[camera.main]
driver = "uvc"
url = "{url}"
latency_s = {latency}

{room}
[grasp]
close_force_n = 20  # the weakest of a 2F-85; coupled fingers put twice as much on what one of them alone touches

[success]
diff_area_px = 40
{known}calibrated = "in simulation"

[spool]
dir = "{spool}"
min_free = 0.01
"""

_ROOM = """[bin]
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
"""
_SO101_ROOM = """[bin]
floor_z_m = -0.10  # the arm stands on a plinth
inner_min_m = [0.12, -0.10]  # of the bin, what the arm reaches
inner_max_m = [0.26, 0.10]
above_m = 0.17
around_m = 0.05
rim_z_m = -0.05

[limits]
speed_m_s = 0.10
slow_speed_m_s = 0.06
accel_m_s2 = 0.5
yaw_rate_rad_s = 0.8
step_m = 0.10

[episode]
start_height_m = [0.14, 0.15]
clear_height_m = 0.15
lifted_height_m = 0.10
top_height_m = 0.155

[watchdog]
period_s = 0.02

[home]
clear_pose_m = [0.16, 0.0, 0.06]
"""


def main(config: ServeSim) -> int:
    """Serves until SIGTERM or SIGINT; raises ConfigError where the host is no address of this machine."""
    from sim.config import SimConfig
    from sim.plant import Plant
    from sim.servers.camera import SceneCamera
    from sim.truth import TruthLog

    try:
        with socket.socket() as listener:
            listener.bind((config.host, 0))
    except OSError as error:
        raise ConfigError(
            f"--host {config.host}: {error}; expected an address of this machine, 127.0.0.5 say"
        ) from error
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
        elif config.protocol == "so101":
            _serve_so101(plant, config, pictures, servers, stop)
        elif config.protocol == "franka":
            _serve_franka(plant, config, pictures, servers, stop)
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

    token = _beside(config, servers) / "arm-token"
    token.write_text(secrets.token_hex(24))
    token.chmod(0o600)
    server = servers.enter_context(HttpArmCell(plant, config.host, token, pictures.spoil))
    _announce(config, pictures.url, server.fault_port, control=server.port, token=token)
    while not stop.wait(3600.0):
        continue


def _serve_so101(
    plant: "Plant", config: ServeSim, pictures: "SceneCamera", servers: contextlib.ExitStack, stop: StopSignal
) -> None:
    from sim.servers.so101 import So101Cell, write_calibration

    directory = _beside(config, servers)
    port, calibration = directory / "so101-port", directory / "so101.json"
    write_calibration(calibration)
    server = servers.enter_context(So101Cell(plant, config.host, port, pictures.spoil))
    servers.callback(port.unlink, missing_ok=True)
    _announce(config, pictures.url, server.fault_port, port=port, calibration=calibration)
    while not stop.wait(3600.0):
        continue


def _serve_franka(
    plant: "Plant", config: ServeSim, pictures: "SceneCamera", servers: contextlib.ExitStack, stop: StopSignal
) -> None:
    from sim.servers.franka import FrankaCell

    server = servers.enter_context(FrankaCell(plant, config.host, pictures.spoil))
    _announce(config, pictures.url, server.fault_port)
    while not stop.wait(1.0):
        server.check()


def _beside(config: ServeSim, servers: contextlib.ExitStack) -> Path:
    """Returns the directory for what the cell file names: its own, or one that goes with the server."""
    if config.output is not None:
        return config.output.absolute().parent
    return Path(servers.enter_context(tempfile.TemporaryDirectory()))


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


def _announce(config: ServeSim, url: str, fault_port: int, **arm: object) -> None:
    """Prints the cell file, or says where it is, when everything listens; ``arm`` is what its part needs to know."""
    from sim.region import bin_region
    from sim.servers.camera import LATENCY_S

    words = _ARMS[config.protocol].format(host=config.host, open_width_m=config.open_width_m, **arm)
    # The clear pose of an SO-101 is in the picture: fingers that open there would be a change outside the bin.
    room, known = _SO101_ROOM, ""
    if config.protocol != "so101":
        room, known = _ROOM, f"bin_region = {json.dumps(bin_region(CameraConfig(size_px=config.camera_px)))}\n"
    spool = "spool" if config.output is None else str(config.output.absolute().parent / "spool")
    text = _CELL.format(name=_name(config), arm=words, room=room, known=known, url=url, spool=spool, latency=LATENCY_S)
    if config.output is None:
        say(text)
    else:
        try:
            config.output.write_text(text)
        except OSError as error:
            raise ConfigError(f"{config.output}: cannot be written: {error}") from error
    say(f"# serving {config.protocol} on {config.host}, faults on port {fault_port}; Ctrl-C ends it")
