"""Messages survive the wire; what is no message is refused with the field's name."""

import json

import pytest

from robot_bridge.contracts import ArmMode, ArmState, GripperState, MotionOutcome, MotionResult, ObjectSensed, Pose
from robot_bridge.remote import messages
from robot_bridge.remote.messages import BadMessage

POSE = Pose((0.1, -0.2, 0.3), (0.0, 1.0, 0.0, 0.0))
TWIST = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
STATE = ArmState(5_000_000_000, 7.25, POSE, TWIST, None, (0.1, 0.2), ArmMode.REFLEX, False, 0.5, 41.0, {"a": 1})


def over_the_wire(message):
    return messages.parse(messages.dump(message))


def test_a_report_arrives_as_it_was_sent_but_for_its_time():
    sent = over_the_wire(messages.write_state(STATE, 5_250_000_000))
    arrived = messages.read_state(sent, 900_250_000_000)
    assert arrived.t_host_ns == 900_000_000_000
    for name in ("t_controller_s", "pose", "twist", "wrench", "joints_rad", "mode", "program_running", "speed_scale"):
        assert getattr(arrived, name) == getattr(STATE, name)
    assert (arrived.joint_temperature_c, arrived.codes) == (41.0, {"a": 1})


def test_results_and_grippers_arrive():
    result = MotionResult(MotionOutcome.CONTACT, "15 N", POSE)
    assert messages.read_result(over_the_wire(messages.write_result(result))) == result
    gripper = GripperState(2_000_000_000, 0.04, True, ObjectSensed.UNKNOWN, "")
    sent = over_the_wire(messages.write_gripper(gripper, 2_000_000_000))
    assert messages.read_gripper(sent, 2_000_000_000) == gripper


@pytest.mark.parametrize("body", [b"[1]", b"{", b'{"x": NaN}', b'{"x": Infinity}', b"\xff", b"[" * 10_000])
def test_no_json_object(body):
    with pytest.raises(BadMessage):
        messages.parse(body)


def test_infinity_is_not_sent():
    with pytest.raises(BadMessage):
        messages.dump({"x": float("inf")})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mode", "dancing"),
        ("twist", [0.0] * 5),
        ("twist", [0.0] * 5 + ["1"]),
        ("age_s", -1.0),
        ("t_controller_s", None),
        ("t_controller_s", True),
        ("speed_scale", 2.0),
        ("program_running", 1),
        ("codes", {"a": [1]}),
        ("pose", {"position_m": [0.0, 0.0, 0.0], "quaternion_xyzw": [0.0, 0.0, 0.0, 0.5]}),
        ("pose", [0.0]),
        ("joints_rad", [1e999]),
    ],
)
def test_a_bad_field_is_named(key, value):
    message = {**messages.write_state(STATE, STATE.t_host_ns), key: value}
    with pytest.raises(BadMessage, match=key):
        messages.read_state(json.loads(json.dumps(message)), 0)
