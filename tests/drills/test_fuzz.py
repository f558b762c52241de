"""The drill sees faults, hangs and refusals for what they are; inputs that once were faults are refused for good."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from qtopt.apps.drills import fuzz
from qtopt.apps.drills.every_target import every_target
from qtopt.apps.drills.mutate import damage_bytes, damage_fields
from qtopt.apps.drills.targets import Target
from qtopt.errors import QtOptError, SchemaMismatch
from qtopt.rpc.gen import replay_pb2
from qtopt.rpc.roles import ROLES

CORPUS = Path(__file__).parent / "corpus"


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    rng = np.random.default_rng(0)
    return {target.name: target for target in every_target(rng, tmp_path_factory.mktemp("room"))}


def without_list(targets):
    return [target for name, target in targets.items() if name != "List"]


def test_each_method_of_a_server_has_a_target(targets):
    methods = {method.rpartition("/")[2] for method in ROLES}
    assert len(methods) == len(ROLES)
    assert methods - targets.keys() == set()


@pytest.mark.xfail(raises=NotImplementedError, strict=True, reason="grpc_health's asynchronous servicer has no List")
def test_health_lists_its_services(targets):
    targets["List"].take(b"")


def test_every_seed_is_taken(targets):
    assert len(targets) > 35
    for target in without_list(targets):
        for seed in target.seeds:
            if target.name != "exported policy":  # its digest is that of nothing
                target.take(seed)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.bin")), ids=lambda path: path.stem)
def test_what_once_was_a_fault_is_refused(targets, path):
    with pytest.raises(QtOptError):
        targets[path.stem.partition(".")[0]].take(path.read_bytes())


def test_damaged_inputs_are_no_faults(targets, tmp_path):
    rng, tally = random.Random(7), fuzz.Tally()
    for target in without_list(targets):
        for _ in range(60 if target.weight > 0.02 else 2):
            fuzz.take_one(target, target.damage(rng, rng.choice(target.seeds)), tally, tmp_path)
    assert tally.traces == {}
    assert tally.refused.total() > 200


def test_faults_hangs_and_refusals_are_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "_HANG_S", 0.02)

    def take(data):
        if data == b"fault":
            raise KeyError("surprise")
        if data == b"refused":
            raise SchemaMismatch("no")
        until = time.process_time() + 0.05
        while data == b"hang" and time.process_time() < until:
            pass

    tally, target = fuzz.Tally(), Target("call", (), take)
    for data in (b"good", b"refused", b"fault", b"fault", b"hang"):
        fuzz.take_one(target, data, tally, tmp_path)
    assert tally.inputs == {"call": 5}
    assert tally.refused == {"call": 1}
    assert tally.faults == {"call: KeyError at test_fuzz.py:take": 2}
    assert tally.slowest_s["call"] > 0.02
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"fault", b"hang"]


def test_damage_reaches_every_field_and_mostly_still_parses():
    rng, seed = random.Random(1), replay_pb2.HandshakeRequest()
    seed.schema.schema_version, seed.schema.image_height, seed.schema.package_version = 1, 16, "0.1.0"
    seed.schema.action_fields.extend(["x", "y"])
    changed, parsed = set(), 0
    for _ in range(400):
        message = replay_pb2.HandshakeRequest.FromString(seed.SerializeToString())
        damage_fields(rng, message)
        for field in seed.schema.DESCRIPTOR.fields:
            if getattr(message.schema, field.name) != getattr(seed.schema, field.name):
                changed.add(field.name)
        try:
            replay_pb2.HandshakeRequest.FromString(damage_bytes(rng, seed.SerializeToString()))
            parsed += 1
        except DecodeError:
            continue
    assert changed == {field.name for field in seed.schema.DESCRIPTOR.fields}
    assert 20 < parsed < 400
