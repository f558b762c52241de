"""Connections that never call, seen in the kernel's table."""

import asyncio
import json
import socket

from qtopt.rpc.audit import Audit
from qtopt.rpc.doorkeeper import Doorkeeper, read_connections
from qtopt.rpc.metrics import ServerMetrics


def test_addresses_of_both_families_are_written_as_grpc_writes_them():
    for family, host, pattern in ((socket.AF_INET, "127.0.0.1", "127.0.0.1:{}"), (socket.AF_INET6, "::1", "[::1]:{}")):
        with socket.socket(family) as listener:
            listener.bind((host, 0))
            listener.listen()
            port = listener.getsockname()[1]
            assert read_connections(port) == {}
            with socket.create_connection((host, port)) as line:
                near = pattern.format(line.getsockname()[1])
                assert read_connections(port)[near] is True


def test_who_leaves_without_a_call_is_told_and_who_called_is_not(tmp_path):
    audit, metrics = Audit(tmp_path / "audit.jsonl"), ServerMetrics()

    async def visit():
        keeper = Doorkeeper(audit, metrics)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            address = listener.getsockname()
            keeper.start(address[1])
            await asyncio.sleep(0.3)
            silent, caller = (socket.create_connection(address) for _ in range(2))
            accepted = [listener.accept()[0] for _ in range(2)]
            for _ in range(2):
                keeper.arrived()
            keeper.called(f"127.0.0.1:{caller.getsockname()[1]}")
            expected = f"127.0.0.1:{silent.getsockname()[1]}"
            await asyncio.sleep(1.0)
            for line in (*accepted, silent, caller):
                line.close()
            for _ in range(100):
                await asyncio.sleep(0.1)
                if (tmp_path / "audit.jsonl").read_text():
                    break
            await keeper.close()
        return expected

    expected = asyncio.run(visit())
    audit.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["peer"] for line in lines] == [expected]
    assert lines[0]["event"] == "refused"
    assert metrics.registry.get_sample_value("qtopt_connections_refused_total") == 1
