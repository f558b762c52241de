"""A Robotiq gripper in a process of its own, for tests over its wires."""

import subprocess
import sys
import time

from robot_bridge.drivers.robotiq import RTU_DRIVER, SOCKET_DRIVER, RtuOptions, SocketOptions


class GripperProcess:
    """``python -m sim.servers.robotiq`` and an unconnected gripper of ours for it."""

    def __init__(self, wire):
        command = [sys.executable, "-m", "sim.servers.robotiq", wire]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        where = self.process.stdout.readline().strip()
        if wire == "socket":
            host, port = where.split(":")
            self.gripper = SOCKET_DRIVER.open(SocketOptions(host, int(port)), None)
        else:
            self.gripper = RTU_DRIVER.open(RtuOptions(where), None)

    def fault(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        time.sleep(0.1)

    def kill(self):
        self.process.kill()
        self.process.communicate()
