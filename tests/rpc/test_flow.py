"""Flow control over a real server: clients in turn, order kept through refusals, nothing piles up."""

import contextlib
import gc
import itertools
import socket
import threading
import time
import tracemalloc
from contextlib import ExitStack
from dataclasses import replace

import grpc

from qtopt.errors import ServerUnavailable, StoreFull
from qtopt.loops.outbox import Outbox
from qtopt.rpc import BackgroundServer, ClientConfig, Limits, ServerConfig, Services, connect
from qtopt.rpc.gen.replay_pb2 import HandshakeRequest
from qtopt.rpc.gen.replay_pb2_grpc import ReplayServiceStub
from qtopt.rpc.handshake import local_schema
from qtopt.rpc.inbox import READ_AT_ONCE, SMALL_BYTES, Inbox, largest_requests
from qtopt.rpc.settings import SLOWEST_LINK
from robot_bridge.spool import Spool
from tests.episodes import make_episode
from tests.rpc.conftest import SIZE
from tests.rpc.stores import DictStore, GatedStore
from tests.waiting import wait_until


class MoodyStore(DictStore):
    """A store that takes every third episode only; the others meet a full disk, or nobody."""

    def __init__(self):
        super().__init__()
        self.order, self._turn = [], itertools.count()

    def append(self, episode, digest=None):
        turn = next(self._turn) % 3
        if turn == 0:
            raise StoreFull("no room")
        if turn == 1:
            raise ServerUnavailable("not now")
        self.order.append(episode.uuid)
        return super().append(episode)


def inside(server):
    return server._server.figures()["calls_inside_large"]


def test_a_client_with_many_calls_does_not_stand_before_one_with_a_single_call(rng):
    store = GatedStore()
    episodes = [replace(make_episode(rng, 1), collector="greedy") for _ in range(50)]
    last = replace(make_episode(rng, 1), collector="modest")
    with (
        BackgroundServer(ServerConfig(port=0), Services(SIZE, lambda: store)) as server,
        connect(server.address, SIZE) as greedy,
        connect(server.address, SIZE) as modest,
    ):
        workers = server._server._replay._appends
        calls = [threading.Thread(target=greedy.replay.append, args=(episode,)) for episode in episodes]
        for call in calls:
            call.start()
        wait_until(lambda: inside(server) == 50)
        calls.append(threading.Thread(target=modest.replay.append, args=(last,)))
        calls[-1].start()
        wait_until(lambda: inside(server) == 51 and len(store.begun) == 5)
        read = workers.inside
        store.gate.set()
        for call in calls:
            call.join(30)
        wait_until(lambda: inside(server) == 0)
    share = READ_AT_ONCE["/qtopt.v1.ReplayService/AppendEpisode"] // 4
    assert read == share + 1 == 5  # the others are still with their client
    assert store.begun.index("modest") == share
    assert len(store.begun) == 51


def test_requests_that_do_not_come_hold_up_nobody(rng):
    """As many as are read at a time begin an append and send nothing more; another one is served all the same."""
    method = "/qtopt.v1.ReplayService/AppendEpisode"
    store, over = DictStore(), threading.Event()

    def nothing():
        over.wait(60)
        yield from ()

    with (
        BackgroundServer(ServerConfig(port=0), Services(SIZE, lambda: store)) as server,
        connect(server.address, SIZE) as client,
        ExitStack() as channels,
    ):
        places = READ_AT_ONCE[method]
        stalled = [
            channels.enter_context(grpc.insecure_channel(server.address)).stream_unary(method).future(nothing())
            for _ in range(places)
        ]
        wait_until(lambda: inside(server) == places)
        assert all(client.replay.append(make_episode(rng, 1)) for _ in range(3))
        assert not any(call.done() for call in stalled)
        over.set()
        assert {call.exception().code() for call in stalled} == {grpc.StatusCode.ABORTED}
        wait_until(lambda: inside(server) == 0)


@contextlib.contextmanager
def slow_link(port, bytes_per_s):
    """Yields the port of a line to another port that carries so much towards it."""

    def carry(source, target, pause_s):
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                time.sleep(len(data) * pause_s)
                target.sendall(data)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                near = listening.accept()[0]
                far = socket.create_connection(("127.0.0.1", port))
                ends.extend((near, far))
                threading.Thread(target=carry, args=(near, far, 1 / bytes_per_s), daemon=True).start()
                threading.Thread(target=carry, args=(far, near, 0.0), daemon=True).start()

    ends = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    for end in ends:
        end.close()


def test_an_episode_arrives_over_a_link_that_needs_longer_than_a_request_may(rng):
    """Some 340 kB at 150 kB/s; the client gives them 2 s more than the server's half second, the server too."""
    store, limits = DictStore(), Limits(request_s=0.5)
    with (
        BackgroundServer(ServerConfig(port=0, limits=limits), Services((72, 72), lambda: store)) as server,
        slow_link(server.port, 150_000) as port,
        connect(ClientConfig(f"127.0.0.1:{port}", call_timeout_s=5.0, attempts=1)) as connection,
    ):
        assert connection.replay.append(make_episode(rng, 20, size_px=72))


def test_a_request_is_waited_for_as_long_as_the_largest_of_its_kind_needs_and_no_longer():
    inbox = Inbox(ServerConfig(limits=Limits(request_s=5.0)), (72, 72))
    append, stats = "/qtopt.v1.ReplayService/AppendEpisode", "/qtopt.v1.ReplayService/GetStats"
    assert inbox.patience_s(append, "") == 5.0
    assert inbox.patience_s(append, str(10 * SLOWEST_LINK)) == 15.0
    assert inbox.patience_s(append, "9" * 9) == 5.0 + largest_requests((72, 72))[append] / SLOWEST_LINK
    assert inbox.patience_s(stats, "9" * 9) == 5.0 + SMALL_BYTES / SLOWEST_LINK
    assert [inbox.patience_s(append, said) for said in ("-1", "1e9", "9" * 5000, "x")] == [5.0] * 4


def test_order_is_kept_through_refusals_and_nothing_is_sent_twice_or_dropped(rng, tmp_path):
    store, now = MoodyStore(), itertools.count(step=100)
    episodes = [make_episode(rng, 1) for _ in range(20)]
    with (
        BackgroundServer(ServerConfig(port=0), Services(SIZE, lambda: store)) as server,
        connect(server.address, SIZE) as connection,
        contextlib.closing(Spool(tmp_path)) as spool,
    ):
        outbox = Outbox(connection.replay, spool, clock=lambda: float(next(now)))  # no backoff lasts
        for episode in episodes:
            outbox.keep(episode)
            outbox.flush()
        while outbox.waiting:
            outbox.flush()
    assert store.order == [episode.uuid for episode in episodes]


def test_an_answered_request_leaves_nothing_for_the_garbage_collector_to_free(connection):
    channel, schema = connection.replay._channel, local_schema(SIZE)
    handshake = ReplayServiceStub(channel.grpc).Handshake
    request = HandshakeRequest(schema=schema)
    request.schema.package_version = "x" * (1000 << 10)  # any request will do that is large and answered
    channel.call(handshake, request, "handshake")
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(10):
            channel.call(handshake, request, "handshake")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept < 4 << 20
