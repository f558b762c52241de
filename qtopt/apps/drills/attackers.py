"""What somebody may try against a server: each function returns how it was refused, or says that it was not.

They speak bare gRPC and bare sockets, as an attacker would, with keys made beforehand: those of clients that the server
knows, and others.
"""

import contextlib
import hashlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

import cv2
import grpc
import numpy as np
from safetensors.numpy import save

from qtopt.apps.benches.episodes import make_episode
from qtopt.apps.drills.attack_lines import AWAY, BAD, ROLE, WEIGHTS, WHO, Caller, GotThrough, Site, channel
from qtopt.rpc import codec
from qtopt.rpc.gen import model_pb2, policy_pb2, replay_pb2, types_pb2
from qtopt.rpc.roles import ROLES, Role
from qtopt.rpc.settings import MESSAGE_LIMIT_BYTES

APPEND: Final = "/qtopt.v1.ReplayService/AppendEpisode"
DRAW: Final = "/qtopt.v1.ReplayService/SampleTransitions"
PUBLISH: Final = "/qtopt.v1.ModelService/Publish"
STATS: Final = "/qtopt.v1.ReplayService/GetStats"
HANDSHAKE: Final = "/qtopt.v1.ReplayService/Handshake"
WATCH: Final = "/grpc.health.v1.Health/Watch"
BEGIN: Final = "/qtopt.v1.PolicyService/BeginEpisode"
CONNECTION: Final = "connection"
_LINES: Final = 40
_HUGE_PX: Final = 60_000
_STREAMS: Final = 64
"""Streams of each of so many connections as, together, are more than the calls that a server handles at a time."""
_STREAMING: Final = 9
_LENT_S: Final = 3.5
"""By then every place that there is for requests has been lent to another call."""
_AT_ONCE: Final = 12
_LARGE_BYTES: Final = 60 << 20
_HEADER_LISTS: Final = 6_000_000
_METADATA_LISTS: Final = 1_000_000  # in a request that an episode may have
_ROWS: Final = 256
_UNREAD: Final = 40
_KEPT: Final = 4
"""Answers of megabytes that a server may keep for one client, of so many that it does not read."""
_KNOCKS: Final = 100
_KNOCKING_S: Final = 1.0
"""Twice so many calls without a known token should take longer than this: the first are refused at once, more wait."""
_EMPTY_SCAN: Final = bytes.fromhex("ffda0008010100003f00")
_SCANS: Final = 3000
_GARBAGE: Final = b"\xff" * 1000


def no_tls(site: Site) -> str:
    """Speaks without TLS."""
    with grpc.insecure_channel(f"127.0.0.1:{site.port}") as channel:
        return Caller(channel, ()).refused(STATS, b"", *AWAY)


def no_certificate(site: Site) -> str:
    """Speaks TLS, and shows no certificate."""
    with channel(site, "good", certified=False) as caller:
        return caller.refused(STATS, b"", *AWAY)


def wrong_certificate(site: Site) -> str:
    """Shows a certificate of another authority, with a stolen token."""
    with channel(site, "stranger", token_of="viewer") as caller:
        return caller.refused(STATS, b"", *AWAY)


def expired_certificate(site: Site) -> str:
    """Shows a certificate that was good."""
    with channel(site, "expired") as caller:
        return caller.refused(STATS, b"", *AWAY)


def no_role(site: Site) -> str:
    """Shows a certificate of the right authority that names no role."""
    with channel(site, "nobody", token_of="viewer") as caller:
        return caller.refused(STATS, b"", *WHO)


def wrong_token(site: Site) -> str:
    """Sends a token that nobody has."""
    with channel(site, "viewer", token_of="stranger") as caller:
        return caller.refused(STATS, b"", *WHO)


def replayed_token(site: Site) -> str:
    """Sends a trainer's token over a viewer's connection."""
    with channel(site, "viewer", token_of="trainer") as caller:
        return caller.refused(PUBLISH, b"", *WHO)


def expired_token(site: Site) -> str:
    """Sends a token that was good until yesterday."""
    with channel(site, "late") as caller:
        return caller.refused(STATS, b"", *WHO)


def wrong_role(site: Site) -> str:
    """Calls, as each role, every method that is not for it."""
    count = 0
    for role in Role:
        with channel(site, str(role)) as caller:
            for method, allowed in ROLES.items():
                if role not in allowed and None not in allowed:
                    caller.refused(method, b"", *ROLE)
                    count += 1
    return f"PERMISSION_DENIED, {count} times of {count}"


def oversized_message(site: Site) -> str:
    """Sends more than a message may have."""
    with channel(site, "collector") as caller:
        return caller.refused(APPEND, bytes(MESSAGE_LIMIT_BYTES + 1), grpc.StatusCode.RESOURCE_EXHAUSTED)


def open_method_flood(site: Site) -> str:
    """Watches health, as anybody may, with more streams than the server takes calls; other calls still go through."""
    with contextlib.ExitStack() as lines:
        callers = [lines.enter_context(channel(site, "viewer")) for _ in range(_STREAMING)]
        streams = [stream for caller in callers for stream in caller.streams(WATCH, _STREAMS)]
        said = callers[0].most_end(streams, len(streams) // 50)
        with channel(site, "viewer") as caller:
            caller.refused(HANDSHAKE, b"", *BAD)  # as an empty one is, by its servicer
        held = sum(stream.is_active() for stream in streams)
        return f"{len(streams) - held} of {len(streams)} streams: {min(said)}"


def large_to_small(site: Site) -> str:
    """Sends 60 MB to a method that takes a few bytes, many times at once."""
    with channel(site, "viewer") as caller:
        return caller.refused_at_once(STATS, bytes(_LARGE_BYTES), _AT_ONCE, *BAD)


def json_bomb(site: Site) -> str:
    """Sends JSON of many small lists, which take many times their length: wherever a server is sent JSON.

    As the header of networks, with a good hash, as a generator's state, and as metadata.
    """
    header = f'{{"__metadata__": {{}}, "x": {_lists(_HEADER_LISTS)}}}'.encode()
    with channel(site, "trainer") as caller:
        caller.refused(PUBLISH, _publication(len(header).to_bytes(8, "little") + header), *WEIGHTS)
    with channel(site, "collector") as caller:
        for count in (_LARGE_BYTES // 4, 200_000):
            begin = policy_pb2.BeginEpisodeRequest(session="bomb", rng_json=_lists(count))
            caller.refused(BEGIN, begin.SerializeToString(), *BAD)
        episode = codec.encode_episode(make_episode(np.random.default_rng(0), site.image_px))
        episode.metadata_json = f'{{"x": {_lists(_METADATA_LISTS)}}}'
        episode.digest = codec.episode_digest(episode)
        return caller.refused(APPEND, _append(episode), *BAD)


def _lists(count: int) -> str:
    return f"[{'[],' * count}0]"


def garbage(site: Site) -> str:
    """Sends bytes that are no message."""
    with channel(site, "collector") as caller:
        return caller.refused(APPEND, _GARBAGE, *BAD)


def slow_handshake(site: Site) -> str:
    """Opens connections that say nothing, and others that begin TLS and send a byte a second."""
    lines = [socket.create_connection(("127.0.0.1", site.port), 10.0) for _ in range(_LINES)]
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
    try:
        deadline, at, left = time.monotonic() + site.patience_s + 15.0, 0, set(lines)
        while left:
            if time.monotonic() > deadline:
                raise GotThrough(f"{len(left)} of {_LINES} silent connections were still open")
            for number, line in enumerate(lines):
                if line in left and _hung_up(line, hello[at : at + 1] if number % 2 else b""):
                    left.discard(line)
            at += 1
            time.sleep(1.0)
    finally:
        for line in lines:
            line.close()
    return f"all {_LINES} connections were closed by the server"


def _hung_up(line: socket.socket, send: bytes) -> bool:
    line.settimeout(0.01)
    try:
        line.sendall(send)
        return line.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def slow_request(site: Site) -> str:
    """Begins a call and never sends its request."""
    with channel(site, "collector") as caller:
        return caller.stalled(APPEND)


def slow_requests(site: Site) -> str:
    """Begins as many calls as a client may and never sends their requests; another client's are read meanwhile."""
    with channel(site, "collector") as caller, channel(site, "good") as other:

        def append() -> None:
            time.sleep(_LENT_S)
            other.refused(APPEND, _GARBAGE, *BAD, within_s=site.patience_s - _LENT_S - 0.5)

        other.refused(HANDSHAKE, b"", *BAD)  # its connection is there before the places are taken
        return caller.stalled(APPEND, _STREAMS, append)


def unread_answers(site: Site) -> str:
    """Asks for answers of megabytes and reads none of them."""
    request = replay_pb2.SampleRequest(count=_ROWS, timeout_s=10.0).SerializeToString()
    with channel(site, "updater") as caller:
        streams = caller.streams(DRAW, _UNREAD, request)
        said = caller.most_end(streams, _KEPT)
        held = sum(stream.is_active() for stream in streams)
    return f"{_UNREAD - held} of {_UNREAD} calls: {min(said)}"


def knocking(site: Site) -> str:
    """Calls with a token that nobody has, as often as it can."""
    begun = time.monotonic()
    with channel(site, "viewer", token_of="stranger") as caller:
        for _ in range(2):
            said = caller.refused_at_once(STATS, b"", _KNOCKS, *WHO)
    if (took_s := time.monotonic() - begun) < _KNOCKING_S:
        raise GotThrough(f"{2 * _KNOCKS} calls were refused within {took_s:.2f} s, expected {_KNOCKING_S:g} s or more")
    return f"{2 * _KNOCKS} calls in {took_s:.1f} s: {said}"


def wrong_schema(site: Site) -> str:
    """Shakes hands with another schema, then sends an episode of other images."""
    other = replay_pb2.HandshakeRequest(schema=replay_pb2.Schema(schema_version=99, action_fields=["x"]))
    with channel(site, "collector") as caller:
        caller.refused(HANDSHAKE, other.SerializeToString(), *BAD)
        episode = codec.encode_episode(make_episode(np.random.default_rng(0), site.image_px + 8))
        return caller.refused(APPEND, _append(episode), *BAD)


def damaged_weights(site: Site) -> str:
    """Publishes networks that do not match their hash."""
    payload = _weights()
    request = model_pb2.PublishRequest(step=1, payload=payload, digest=hashlib.sha256(payload + b"x").hexdigest())
    with channel(site, "trainer") as caller:
        return caller.refused(PUBLISH, request.SerializeToString(), *WEIGHTS)


def wrong_weights(site: Site) -> str:
    """Publishes arrays that are no network, with a good hash, and a header that asks for a network of any size."""
    said = ""
    with channel(site, "trainer") as caller:
        for payload in (b"\x80\x04cposix\nsystem\n.", _weights(), _weights('{"width": 1000000000}')):
            said = caller.refused(PUBLISH, _publication(payload), *WEIGHTS)
    return said


def jpeg_bomb(site: Site) -> str:
    """Sends tiny JPEGs that say to be of 60,000 x 60,000 pixels, and two that would be decoded again and again."""
    image = np.zeros((site.image_px, site.image_px, 3), np.uint8)
    small = cv2.imencode(".jpg", image)[1].tobytes()
    again = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))[1].tobytes()
    scans = small[: small.index(b"\xff\xda")] + _EMPTY_SCAN * _SCANS
    size, huge = (site.image_px, site.image_px), (_HUGE_PX, _HUGE_PX)
    said = ""
    with channel(site, "collector") as caller:
        for frame, claimed in ((_inflated(small), huge), (_inflated(small), size), (again, size), (scans, size)):
            episode = codec.encode_episode(make_episode(np.random.default_rng(0), site.image_px))
            count = episode.images.count
            episode.images.Clear()
            episode.images.CopyFrom(
                types_pb2.Images(
                    count=count,
                    height=claimed[0],
                    width=claimed[1],
                    encoding=types_pb2.IMAGE_ENCODING_JPEG,
                    frames=[frame] * count,
                )
            )
            episode.digest = codec.episode_digest(episode)
            said = caller.refused(APPEND, _append(episode), *BAD)
    return said


def _publication(payload: bytes) -> bytes:
    """Returns a request to publish, with a good hash."""
    request = model_pb2.PublishRequest(step=1, payload=payload, digest=hashlib.sha256(payload).hexdigest())
    return request.SerializeToString()


def _append(episode: types_pb2.Episode) -> bytes:
    return replay_pb2.AppendEpisodeRequest(episode=episode).SerializeToString()


def _inflated(frame: bytes) -> bytes:
    """Returns a JPEG whose header has been given another size."""
    at = frame.index(b"\xff\xc0") + 5
    return frame[:at] + struct.pack(">HH", _HUGE_PX, _HUGE_PX) + frame[at + 4 :]


def _weights(network: str = "{}") -> bytes:
    header = {"format": "qtopt-targets-1", "step": "1", "network": network}
    return save({"theta1.x": np.zeros(4, np.float32)}, header)


ATTACKS: Final[dict[str, tuple[Callable[[Site], str], str]]] = {
    "no TLS": (no_tls, CONNECTION),
    "no certificate": (no_certificate, CONNECTION),
    "wrong certificate": (wrong_certificate, CONNECTION),
    "expired certificate": (expired_certificate, CONNECTION),
    "certificate without a role": (no_role, STATS),
    "wrong token": (wrong_token, STATS),
    "replayed token": (replayed_token, PUBLISH),
    "expired token": (expired_token, STATS),
    "wrong role": (wrong_role, PUBLISH),
    "oversized message": (oversized_message, APPEND),
    "large messages to a small method": (large_to_small, STATS),
    "JSON bomb": (json_bomb, APPEND),
    "open-method flood": (open_method_flood, WATCH),
    "garbage": (garbage, APPEND),
    "slow-loris, handshake": (slow_handshake, CONNECTION),
    "slow-loris, request": (slow_request, APPEND),
    "slow-loris, all requests of a client": (slow_requests, APPEND),
    "answers that nobody reads": (unread_answers, DRAW),
    "wrong schema": (wrong_schema, APPEND),
    "weights with a bad hash": (damaged_weights, PUBLISH),
    "weights of another schema": (wrong_weights, PUBLISH),
    "zip-bomb-like JPEG": (jpeg_bomb, APPEND),
    "flood of wrong tokens": (knocking, STATS),
}
"""By name: the attack, and what the audit log has to say was refused."""
