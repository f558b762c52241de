"""Asks a server for its health as gRPC tells it, for a container's probes; in the image it is in /opt/qtopt.

Exits with 0 where the server serves, with 1 where it answers that it does not, with 2 where it does not answer. It is
`qtopt doctor --server` without the look at the machine, which takes seconds and other reasons to fail.
"""

import argparse
import sys
from pathlib import Path

from qtopt.errors import QtOptError
from qtopt.rpc.health import check_health
from qtopt.rpc.settings import ClientConfig

_SERVING = "SERVING"


def main(words: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="host:port")
    for name in ("ca-file", "cert-file", "key-file"):
        parser.add_argument(f"--{name}", type=Path, help="as of every client")
    parser.add_argument("--server-name", help="name in the server's certificate, where it differs from the address")
    parser.add_argument("--timeout-s", type=float, default=5.0)
    parser.add_argument(
        "--alive",
        action="store_true",
        help="exit with 0 for any answer: a server whose disk is full, or that opens its store, is not to be killed",
    )
    asked = vars(parser.parse_args(words))
    alive, timeout_s = asked.pop("alive"), asked.pop("timeout_s")
    try:
        (status,) = check_health(ClientConfig(**asked), ("",), timeout_s).values()
    except QtOptError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{status}\n")
    return 0 if alive or status == _SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
