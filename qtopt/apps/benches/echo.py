"""The reference of ``ingest``: ``python -m qtopt.apps.benches.echo PORT FILE`` writes, flushes and sends back bytes.

No protobuf, no checks, no index: nothing that takes in episodes durably over gRPC can do less.
"""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

METHOD = "/echo/Echo"
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_LARGEST_FILE_BYTES = 256 << 20


class Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Appends each request to a file, flushes the file to the disk, answers with the request."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def service(self, handler_call_details: Any) -> Any:
        """Returns the handler of every method."""
        del handler_call_details
        return grpc.unary_unary_rpc_method_handler(self._echo)

    def _echo(self, request: bytes, context: Any) -> bytes:
        del context
        if os.fstat(self._file).st_size > _LARGEST_FILE_BYTES:
            os.ftruncate(self._file, 0)
        left = memoryview(request)
        while left:
            left = left[os.write(self._file, left) :]
        os.fsync(self._file)
        return request


def main() -> None:
    """Serves until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(16), handlers=[Echo(sys.argv[2])], options=OPTIONS)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
