"""What fuzzing is made of: something that takes bytes from strangers, with bytes that it takes."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError, Message

from qtopt.apps.drills.mutate import damage_bytes, damage_fields
from qtopt.errors import SchemaMismatch
from qtopt.replay import MemoryStore, StoreFormat
from qtopt.replay.record import encode_episode
from qtopt.specs import make_action
from qtopt.types import Behaviour, Episode, EpisodeEnd, Outcome, Targets, new_episode_uuid

IMAGE_PX: Final = 16


@dataclass(frozen=True)
class Target:
    """Something that takes bytes from strangers.

    Attributes:
        name: of the call or the file.
        seeds: bytes that it takes.
        take: takes bytes; raises QtOptError for those that it refuses, anything else is a fault.
        damage: changes a seed.
        weight: share of the inputs, in proportion to the others'.
        kind: of message, where it takes one.
    """

    name: str
    seeds: tuple[bytes, ...]
    take: Callable[[bytes], object]
    damage: Callable[[random.Random, bytes], bytes] = damage_bytes
    weight: float = 1.0
    kind: type[Message] | None = None


def message_target(
    name: str,
    take: Callable[[Any], object],
    *seeds: Message,
    sign: Callable[[Any], None] = lambda message: None,
    weight: float = 1.0,
) -> Target:
    """Returns a target whose seeds are messages; ``sign`` makes a changed one as its sender would have sent it."""
    kind = type(seeds[0])

    def parse_and_take(data: bytes) -> object:
        try:
            message = kind.FromString(data)
        except DecodeError as error:
            raise SchemaMismatch(f"no {kind.__name__}: {error}") from error
        return take(message)

    def damage(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.3:
            return damage_bytes(rng, data)
        message = kind.FromString(data)
        for _ in range(1 + rng.getrandbits(1)):
            damage_fields(rng, message)
        if rng.random() < 0.9:
            sign(message)
        return message.SerializeToString()

    return Target(name, tuple(each.SerializeToString() for each in seeds), parse_and_take, damage, weight, kind)


def make_episode(rng: np.random.Generator, steps: int = 3, px: int = IMAGE_PX) -> Episode:
    """Returns a legal episode of ``steps`` actions whose images, uint8 (steps + 1, px, px, 3), are noise."""
    return Episode(
        uuid=new_episode_uuid(),
        images=rng.integers(0, 256, (steps + 1, px, px, 3), dtype=np.uint8),
        gripper_closed=rng.random(steps + 1) < 0.5,
        height_to_bottom=rng.uniform(0.0, 0.4, steps + 1).astype(np.float32),
        tool_pose=rng.uniform(-1.0, 1.0, (steps + 1, 4)).astype(np.float32),
        actions=np.stack([make_action((0.01, 0.0, -0.02), 0.3, close=step == 1) for step in range(steps)]),
        rewards=np.full(steps, -0.05, np.float32),
        behaviour=np.full(steps, Behaviour.NOISE, np.uint8),
        end=EpisodeEnd.TERMINATED,
        outcome=Outcome.SUCCESS,
        policy_version=4,
        collector="arm-0",
        metadata={"seed": 7, "objects": [1, 2], "object_set": "train"},
        is_intervention=rng.random(steps) < 0.5,
    )


class PassingStore(MemoryStore):
    """Takes every episode as stores do, and keeps none: millions would fill the memory."""

    def append(self, episode: Episode, digest: bytes | None = None) -> bool:
        """Encodes an episode; returns True. Raises as a store does."""
        encode_episode(episode, self.format, digest)
        return True


def labelled_store(rng: np.random.Generator) -> PassingStore:
    """Returns a store of two episodes with a label for each of their transitions."""
    store = PassingStore(StoreFormat.for_images(IMAGE_PX), rng=np.random.default_rng(0))
    for steps in (1, 3):
        MemoryStore.append(store, make_episode(rng, steps))
    store.put_targets(Targets(np.arange(4), np.full(4, 0.5, np.float32), model_version=3))
    return store
