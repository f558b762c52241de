"""Every type survives the wire unchanged, and what arrives damaged is refused."""

import dataclasses
import math

import cv2
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from qtopt import specs
from qtopt.digest import content_digest
from qtopt.errors import CheckpointError, CorruptEpisode, SchemaMismatch
from qtopt.rpc import arrays, codec
from qtopt.rpc.gen import types_pb2 as pb
from qtopt.types import (
    Behaviour,
    Decision,
    Episode,
    EpisodeEnd,
    LabelledBatch,
    ModelSnapshot,
    Observation,
    Observations,
    Outcome,
    Targets,
    Transitions,
)
from tests.episodes import make_episode

SEEDS = st.integers(0, 2**32 - 1).map(np.random.default_rng)
SIZES = st.integers(1, 7)
VERSIONS = st.integers(0, 2**62)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
)
JSON = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_size=4,
)


def assert_same(ours, theirs):
    """Compares two dataclasses field by field: dtype, shape and every bit of arrays, value and type of the rest."""
    assert type(ours) is type(theirs)
    for each in dataclasses.fields(ours):
        left, right = getattr(ours, each.name), getattr(theirs, each.name)
        if dataclasses.is_dataclass(left):
            assert_same(left, right)
        elif isinstance(left, np.ndarray):
            assert (left.dtype, left.shape) == (right.dtype, right.shape), each.name
            assert left.tobytes() == right.tobytes(), each.name
        elif isinstance(left, float) and math.isnan(left):
            assert math.isnan(right), each.name
        else:
            assert left == right, each.name
            assert isinstance(right, type(left)), each.name


def over_the_wire(message):
    return type(message).FromString(message.SerializeToString())


def make_observations(rng, count, height=6, width=5):
    return Observations(
        image=rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8),
        gripper_closed=rng.random(count) < 0.5,
        height_to_bottom=rng.normal(size=count).astype(np.float32),
    )


@given(rng=SEEDS, steps=st.integers(1, specs.MAX_STEPS), metadata=JSON, version=VERSIONS, name=st.text(max_size=9))
def test_episode_round_trip(rng, steps, metadata, version, name):
    episode = dataclasses.replace(
        make_episode(rng, steps, size_px=4),
        metadata=metadata,
        policy_version=version,
        collector=name,
        behaviour=rng.integers(1, 6, steps, dtype=np.uint8),
        end=EpisodeEnd(int(rng.integers(1, 3))),
        outcome=Outcome(int(rng.integers(1, 7))),
    )
    assert_same(episode, codec.decode_episode(over_the_wire(codec.encode_episode(episode))))


@given(rng=SEEDS, count=st.integers(0, 7))
def test_observations_round_trip(rng, count):
    ours = make_observations(rng, count)
    assert_same(ours, codec.decode_observations(over_the_wire(codec.encode_observations(ours)), count))


@given(rng=SEEDS, closed=st.booleans(), height=st.floats(-1, 10, width=32))
def test_observation_round_trip(rng, closed, height):
    ours = Observation(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8), closed, height)
    assert_same(ours, codec.decode_observation(over_the_wire(codec.encode_observation(ours))))


@given(rng=SEEDS, count=SIZES)
def test_transitions_round_trip(rng, count):
    ours = Transitions(
        position=rng.integers(0, 2**62, count),
        reward=rng.normal(size=count).astype(np.float32),
        terminal=rng.random(count) < 0.5,
        next=make_observations(rng, count),
        steps_left=rng.integers(0, 20, count),
        success=rng.random(count) < 0.5,
    )
    assert_same(ours, codec.decode_transitions(over_the_wire(codec.encode_transitions(ours))))


def test_transitions_of_a_server_that_does_not_tell_the_episode():
    ours = Transitions(
        position=np.array([4, 5]),
        reward=np.array([-0.05, 1.0], np.float32),
        terminal=np.array([False, True]),
        next=make_observations(np.random.default_rng(0), 2),
        steps_left=np.array([1, 0]),
        success=np.array([True, True]),
    )
    message = codec.encode_transitions(ours)
    message.ClearField("steps_left")
    message.ClearField("success")
    found = codec.decode_transitions(over_the_wire(message))
    assert found.reward.tolist() == ours.reward.tolist()
    assert found.steps_left.tolist() == [-1, -1]
    assert found.success.tolist() == [False, False]


@given(rng=SEEDS, count=st.integers(0, 7), version=VERSIONS)
def test_targets_round_trip(rng, count, version):
    ours = Targets(rng.integers(0, 2**62, count), rng.random(count, dtype=np.float32), version)
    assert_same(ours, codec.decode_targets(over_the_wire(codec.encode_targets(ours))))


@given(rng=SEEDS, count=SIZES)
def test_labelled_batch_round_trip(rng, count):
    ours = LabelledBatch(
        position=rng.integers(0, 2**62, count),
        observation=make_observations(rng, count),
        action=rng.normal(size=(count, specs.ACTION_SIZE)).astype(np.float32),
        tool_pose=rng.normal(size=(count, 4)).astype(np.float32),
        target=rng.random(count, dtype=np.float32),
        model_version=rng.integers(0, 2**62, count),
        age_s=rng.random(count, dtype=np.float32),
    )
    assert_same(ours, codec.decode_labelled(over_the_wire(codec.encode_labelled(ours))))


@given(
    rng=SEEDS,
    behaviour=st.sampled_from(Behaviour),
    value=st.just(float("nan")) | st.floats(0, 1),
    yaw=st.floats(-1.5, 1.5),
    close=st.booleans(),
)
def test_decision_round_trip(rng, behaviour, value, yaw, close):
    ours = Decision(specs.make_action(tuple(rng.uniform(-0.1, 0.1, 3)), yaw, close=close), behaviour, value)
    assert_same(ours, codec.decode_decision(over_the_wire(codec.encode_decision(ours))))


@given(version=VERSIONS, step=VERSIONS, payload=st.binary(max_size=200))
def test_snapshot_round_trip(version, step, payload):
    ours = ModelSnapshot(version, step, payload, codec.payload_digest(payload))
    assert_same(ours, codec.decode_snapshot(over_the_wire(codec.encode_snapshot(ours))))


@given(rng=SEEDS, data=st.data())
def test_no_flipped_bit_changes_an_episode(rng, data):
    episode = make_episode(rng, 2, size_px=3)
    sent = codec.encode_episode(episode).SerializeToString()
    where = data.draw(st.integers(0, len(sent) * 8 - 1))
    damaged = bytearray(sent)
    damaged[where // 8] ^= 1 << (where % 8)
    try:
        arrived = codec.decode_episode(pb.Episode.FromString(bytes(damaged)))
    except (CorruptEpisode, SchemaMismatch, DecodeError):  # gRPC answers what protobuf cannot read with INTERNAL
        return
    assert_same(episode, arrived)


def test_decoded_arrays_are_their_owners_and_only_images_read_only(episode):
    message = codec.encode_episode(episode)
    arrived = codec.decode_episode(message)
    message.Clear()
    assert_same(episode, arrived)
    for spec in specs.EPISODE_SPECS:
        assert getattr(arrived, spec.name).flags.writeable is (spec.name != "images"), spec.name


def test_jpeg_keeps_colours_in_their_order_and_loses_little():
    ramp = np.linspace(0, 255, 160, dtype=np.uint8)
    image = np.zeros((1, 160, 160, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = ramp, ramp[:, None], 40
    message = pb.Images()
    arrays.encode_images(message, image, jpeg=True)
    assert message.ByteSize() < image.nbytes / 5
    from_wire = arrays.decode_images(over_the_wire(message))
    assert np.abs(from_wire.astype(int) - image.astype(int)).mean() < 1.5
    passed_on = pb.Images()
    arrays.encode_images(passed_on, image[:0], frames=list(message.frames))
    assert passed_on == message


def test_an_episode_has_one_digest_on_its_way_and_in_a_store(rng):
    episode = dataclasses.replace(make_episode(rng, 5, size_px=16), metadata={"b": 0.1, "a": ["\u00fc", -3]})
    for each in (episode, dataclasses.replace(episode, is_intervention=np.arange(5) == 2)):
        message = over_the_wire(codec.encode_episode(each))
        assert message.digest == codec.episode_digest(message) == content_digest(each)
        assert codec.sent_digest(message, codec.decode_episode(message)) == message.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda message: setattr(message, "metadata_json", message.metadata_json.replace(" ", "")),
        lambda message: setattr(message, "is_intervention", bytes(5)),
        lambda message: arrays.encode_images(message.images, np.zeros((6, 16, 16, 3), np.uint8), jpeg=True),
    ],
)
def test_the_digest_of_other_words_for_an_episode_is_not_the_stores(rng, change):
    episode = dataclasses.replace(make_episode(rng, 5, size_px=16), metadata={"a": 1})
    message = codec.encode_episode(episode)
    change(message)
    decoded = codec.decode_episode(resigned(message))
    assert codec.sent_digest(message, decoded) is None
    assert content_digest(decoded) != message.digest


def resigned(message):
    """Gives a changed message a digest that fits, as a faulty but honest sender would."""
    message.digest = codec.episode_digest(message)
    return message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: setattr(m, "actions", m.actions[:-4]), "actions: found 156 bytes, expected 160"),
        (lambda m: setattr(m.images, "raw", m.images.raw + b"x"), "images: found"),
        (lambda m: setattr(m.images, "count", 9), "found 9 images for 5 actions, expected 6"),
        (lambda m: setattr(m.images, "encoding", 0), "encoding 0"),
        (lambda m: setattr(m.images, "encoding", 2), "found 0 JPEG frames"),
        (lambda m: setattr(m, "gripper_closed", b"\x02" * 6), "flag of 2"),
        (lambda m: setattr(m, "end", 0), "EpisodeEnd: found 0, expected one of 1, 2"),
        (lambda m: setattr(m, "outcome", 77), "Outcome: found 77"),
        (lambda m: setattr(m, "behaviour", b"\x09" * 5), "Behaviour: found 9"),
        (lambda m: setattr(m, "behaviour", b""), "found 0 actions, expected 1 to 20"),
        (lambda m: setattr(m, "behaviour", b"\x01" * 21), "found 21 actions, expected 1 to 20"),
        (lambda m: setattr(m, "metadata_json", "[1]"), "a JSON list, expected an object"),
        (lambda m: setattr(m, "metadata_json", "{"), "not JSON"),
        (lambda m: setattr(m, "metadata_json", '{"a": ' + "[" * 64 + "]" * 64 + "}"), "nested 65 deep, expected"),
        (lambda m: setattr(m, "metadata_json", '{"a": ' * 100_000), "nested 100000 deep, expected at most 64"),
        (lambda m: setattr(m, "rewards", np.full(5, np.nan, "<f4").tobytes()), "rewards"),
    ],
)
def test_a_sound_message_that_is_no_episode_is_refused_by_name(episode, change, says):
    message = codec.encode_episode(episode)
    change(message)
    with pytest.raises(SchemaMismatch, match="(?s)" + says.replace("(", r"\(")):
        codec.decode_episode(resigned(message))


def test_jpeg_bytes_that_are_no_image_are_refused(rng):
    message = codec.encode_episode(make_episode(rng, 1, size_px=32), jpeg=True)
    message.images.frames[0] = b"no image"
    with pytest.raises(SchemaMismatch, match="no JPEG"):
        codec.decode_episode(resigned(message))
    message.images.frames[0] = b""
    with pytest.raises(SchemaMismatch, match="no JPEG"):
        codec.decode_episode(resigned(message))


def test_a_jpeg_that_would_be_decoded_in_many_passes_or_is_mostly_padding_is_refused(rng):
    episode = make_episode(rng, 1, size_px=32)
    message = codec.encode_episode(episode, jpeg=True)
    kept = message.images.frames[0]
    passes = cv2.imencode(".jpg", episode.images[0], (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))[1].tobytes()
    empty = kept[: kept.index(b"\xff\xda")] + bytes.fromhex("ffda0008010100003f00") * 1000
    padded = passes[:2] + b"\xff" + passes[2:]
    for frame, says in (
        (passes, "progressive"),
        (empty, "several scans"),
        (padded, "one scan"),
        (kept + bytes(100_000), "expected at most 22528"),
        (kept, ""),
    ):
        message.images.frames[0] = frame
        if not says:
            assert len(codec.decode_episode(resigned(message)).images) == 2
            continue
        with pytest.raises(SchemaMismatch, match=says):
            codec.decode_episode(resigned(message))


def test_images_of_another_size_than_the_stores_are_refused_before_they_are_decoded(rng):
    message = codec.encode_episode(make_episode(rng, 1, size_px=32), jpeg=True)
    message.images.height = message.images.width = 60_000
    with pytest.raises(SchemaMismatch, match="found 60000x60000 pixels, expected 32x32"):
        codec.decode_episode(resigned(message), (32, 32))


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((6, 16, 16, 3), np.float32)},
        {"actions": np.zeros((5, 7), np.float32)},
        {"actions": np.zeros((4, 8), np.float32)},
        {"rewards": np.zeros(5, np.float64)},
        {"behaviour": np.zeros(5, np.uint8)},
        {"metadata": {"array": np.zeros(3)}},
        {"metadata": {"loss": float("nan")}},
    ],
)
def test_a_bad_episode_is_refused_before_it_is_sent(episode, change):
    with pytest.raises(SchemaMismatch):
        codec.encode_episode(dataclasses.replace(episode, **change))


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_targets_outside_the_unit_interval_are_refused(value):
    targets = Targets(np.zeros(1, np.int64), np.array([value], np.float32), 1)
    with pytest.raises(SchemaMismatch, match="expected 0 to 1"):
        codec.encode_targets(targets)
    message = pb.Targets(position=targets.position.tobytes(), value=targets.value.tobytes(), model_version=1)
    with pytest.raises(SchemaMismatch, match="expected 0 to 1"):
        codec.decode_targets(message)


def test_wrong_dtype_of_an_array_is_refused():
    with pytest.raises(SchemaMismatch, match="found int32"):
        codec.encode_targets(Targets(np.zeros(1, np.int32), np.zeros(1, np.float32), 1))


def test_damaged_networks_are_refused():
    message = codec.encode_snapshot(ModelSnapshot(1, 1, b"weights", codec.payload_digest(b"weights")))
    message.payload = b"weighty"
    with pytest.raises(CheckpointError, match="damaged"):
        codec.decode_snapshot(message)


def test_schema_types_have_the_values_of_the_vocabulary():
    for ours, prefix in ((Behaviour, "BEHAVIOUR"), (Outcome, "OUTCOME"), (EpisodeEnd, "EPISODE_END")):
        theirs = getattr(pb, ours.__name__)
        assert {f"{prefix}_{member.name}": int(member) for member in ours} == {
            name: number for name, number in theirs.items() if number != 0
        }


def test_every_field_of_an_episode_is_on_the_wire():
    names = {each.name for each in dataclasses.fields(Episode)}
    on_wire = {each.name for each in pb.Episode.DESCRIPTOR.fields}
    assert names - on_wire == {"metadata"}
    assert on_wire - names == {"metadata_json", "digest"}
