"""An arm behind an authenticated HTTP port: the messages, a reference server, and the client that drivers use.

The protocol is described in docs/drivers-http.md, so that the server can be written for any robot, in any language.
"""

from robot_bridge.remote.link import Link, LinkOptions, Refused
from robot_bridge.remote.server import ArmServer, ServerOptions

__all__ = ["ArmServer", "Link", "LinkOptions", "Refused", "ServerOptions"]
