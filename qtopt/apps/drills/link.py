"""A link between two network namespaces that loses and delays what passes, packet by packet.

At both ends stands the kernel's own TCP; between them, in place of a cable, this process carries IP packets from one
TUN device to the other. (The kernel's ``netem`` would do the same where it is built in.) Needs root and ``ip``.
"""

import fcntl
import heapq
import math
import os
import random
import select
import struct
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from qtopt.apps.drills.joining import join_within
from qtopt.apps.drills.processes import enter_network
from qtopt.errors import ProcessFailed

_TUNSETIFF: Final = 0x400454CA
_IS_TUN, _NO_HEADER = 0x0001, 0x1000
_DEVICE: Final = "qtopt"
_LARGEST: Final = 1 << 16
_QUEUE: Final = 1000  # packets on their way, as netem's limit


@dataclass(frozen=True)
class Weather:
    """What the link does with a packet.

    Attributes:
        loss: share of packets lost.
        delay_s: time that each is on its way [s].
        forward: whether packets from the first end to the second pass at all.
        backward: whether packets from the second end to the first do.
    """

    loss: float = 0.0
    delay_s: float = 0.0
    forward: bool = True
    backward: bool = True


@dataclass
class Traffic:
    """What became of the packets of one direction that came to the link in one weather.

    Attributes:
        passed: carried.
        lost: not carried.
        shortest_s: the shortest time that one was on its way [s]; infinity before the first.
    """

    passed: int = 0
    lost: int = 0
    shortest_s: float = math.inf

    @property
    def share_lost(self) -> float:
        """Share of packets lost."""
        return self.lost / max(1, self.passed + self.lost)


@dataclass(frozen=True)
class Spell:
    """A weather, and what became of the packets meanwhile: from the first end to the second, and back."""

    weather: Weather
    forward: Traffic = field(default_factory=Traffic)
    backward: Traffic = field(default_factory=Traffic)


CUT: Final = Weather(forward=False, backward=False)
"""Nothing passes, and nobody is told."""


class Link:
    """Two namespaces, ``NAME-a`` with 10.77.0.1 and ``NAME-b`` with 10.77.0.2, and what is between them.

    Use as a context manager.

    Attributes:
        spell: the weather that is, and what became of the packets since.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.ends = (f"{name}-a", f"{name}-b")
        self.spell = Spell(Weather())
        self._chance = random.Random(seed)
        self._on_the_way: list[tuple[float, int, int, bytes, float, Traffic]] = []
        self._handles: list[int] = []
        self._over = False
        self._thread = threading.Thread(target=self._carry, name="link")

    def __enter__(self) -> "Link":
        try:
            for number, end in enumerate(self.ends, 1):
                _ip("netns", "add", end)
                self._handles.append(_make_device(end))
                _ip("-n", end, "link", "set", "lo", "up")
                _ip("-n", end, "addr", "add", f"10.77.0.{number}/24", "dev", _DEVICE)
                _ip("-n", end, "link", "set", _DEVICE, "up")
        except BaseException:
            self._remove()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        try:
            join_within([self._thread])
        finally:
            self._remove()

    def change(self, weather: Weather) -> Spell:
        """Lets another weather begin, at any time; returns what counts the packets that come in it."""
        self.spell = Spell(weather)
        return self.spell

    def _remove(self) -> None:
        for handle in self._handles:
            os.close(handle)
        for end in self.ends:
            subprocess.run(["ip", "netns", "del", end], stderr=subprocess.DEVNULL, check=False)

    def _carry(self) -> None:
        count = 0
        while not self._over:
            now = time.monotonic()
            while self._on_the_way and self._on_the_way[0][0] <= now:
                _, _, to, packet, since, traffic = heapq.heappop(self._on_the_way)
                os.write(self._handles[to], packet)
                traffic.passed += 1
                traffic.shortest_s = min(traffic.shortest_s, time.monotonic() - since)
            wait_s = min(0.1, self._on_the_way[0][0] - now) if self._on_the_way else 0.1
            for handle in select.select(self._handles, [], [], max(0.0, wait_s))[0]:
                packet, spell = os.read(handle, _LARGEST), self.spell
                to, weather, since = 1 - self._handles.index(handle), spell.weather, time.monotonic()
                passes, traffic = (weather.forward, spell.forward) if to == 1 else (weather.backward, spell.backward)
                if not passes or self._chance.random() < weather.loss or len(self._on_the_way) >= _QUEUE:
                    traffic.lost += 1
                    continue
                count += 1  # packets of one moment stay in order
                heapq.heappush(self._on_the_way, (since + weather.delay_s, count, to, packet, since, traffic))


def can_link() -> bool:
    """Whether this process may make namespaces and TUN devices."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
        _ip("netns", "add", "qtopt-probe")
        _ip("netns", "del", "qtopt-probe")
    except (OSError, ProcessFailed):
        return False
    return True


def _make_device(end: str) -> int:
    """Returns the handle of a new TUN device in a namespace."""
    handles: list[int] = []

    def make() -> None:
        enter_network(end)  # of this thread alone
        handle = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IS_TUN | _NO_HEADER))
        handles.append(handle)

    thread = threading.Thread(target=make)
    thread.start()
    join_within([thread])
    if not handles:
        raise ProcessFailed(f"no TUN device could be made in {end}, expected one; run as root, see what is said above")
    return handles[0]


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProcessFailed(f"ip {' '.join(words)}: {done.stderr.strip()}; run as root where iproute2 is installed")
