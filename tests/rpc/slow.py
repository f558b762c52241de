"""A slow link: a proxy that lets so many bytes a second through in each direction."""

import contextlib
import socket
import threading
import time

_PIECE = 4096


@contextlib.contextmanager
def slow_link(port, bytes_per_s):
    """Yields the loopback port from which what comes goes on to ``port``, no faster than ``bytes_per_s``."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as open_still:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    near = open_still.enter_context(listener.accept()[0])
                    far = open_still.enter_context(socket.create_connection(("127.0.0.1", port)))
                    for pair in ((near, far), (far, near)):
                        threading.Thread(target=_carry, args=(*pair, bytes_per_s), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _carry(source, sink, bytes_per_s):
    free_s = time.monotonic()
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            free_s = max(free_s, time.monotonic()) + len(piece) / bytes_per_s
            time.sleep(max(0.0, free_s - time.monotonic()))
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
