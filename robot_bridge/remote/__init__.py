"""An arm behind an authenticated HTTP port: the messages, a reference server, and the client that drivers use.

The protocol is described in docs/drivers-http.md, so that the server can be written for any robot, in any language.
"""

from robot_bridge.remote.endpoint import Endpoint, LinkOptions
from robot_bridge.remote.link import Link, Refused
from robot_bridge.remote.server import ArmServer, ServerOptions
from robot_bridge.remote.stop_link import StopLink

__all__ = ["ArmServer", "Endpoint", "Link", "LinkOptions", "Refused", "ServerOptions", "StopLink"]
