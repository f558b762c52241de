"""Names and types of the variables that a Universal Robots controller sends and takes over RTDE."""

import struct

FORMATS = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT32": "I",
    "UINT64": "Q",
    "INT32": "i",
    "DOUBLE": "d",
    "VECTOR3D": "3d",
    "VECTOR6D": "6d",
    "VECTOR6INT32": "6i",
    "VECTOR6UINT32": "6I",
}
COUNTS = {"VECTOR3D": 3, "VECTOR6D": 6, "VECTOR6INT32": 6, "VECTOR6UINT32": 6}
REGISTERS = 48

_BY_TYPE = {
    "DOUBLE": (
        "timestamp actual_execution_time speed_scaling target_speed_fraction actual_momentum actual_main_voltage "
        "actual_robot_voltage actual_robot_current actual_robot_braking_energy_dissipated tool_output_current "
        "tool_temperature tcp_force_scalar payload "
        "tool_analog_input0 tool_analog_input1 standard_analog_input0 standard_analog_input1 standard_analog_output0 "
        "standard_analog_output1 io_current euromap67_24V_voltage euromap67_24V_current"
    ),
    "VECTOR6D": (
        "target_q target_qd target_qdd target_current target_moment actual_q actual_qd actual_current "
        "joint_control_output actual_TCP_pose actual_TCP_speed actual_TCP_force target_TCP_pose target_TCP_speed "
        "joint_temperatures actual_joint_voltage ft_raw_wrench payload_inertia actual_current_as_torque tcp_offset"
    ),
    "VECTOR6INT32": "joint_mode",
    "VECTOR3D": "actual_tool_accelerometer elbow_position elbow_velocity payload_cog",
    "UINT64": "actual_digital_input_bits actual_digital_output_bits",
    "INT32": "robot_mode safety_mode safety_status tool_mode",
    "UINT32": (
        "robot_status_bits safety_status_bits runtime_state analog_io_types output_bit_registers0_to_31 "
        "output_bit_registers32_to_63 input_bit_registers0_to_31 input_bit_registers32_to_63 tool_output_voltage"
    ),
}
OUTPUTS = {name: kind for kind, names in _BY_TYPE.items() for name in names.split()}
OUTPUTS |= {f"output_int_register_{n}": "INT32" for n in range(REGISTERS)}
OUTPUTS |= {f"output_double_register_{n}": "DOUBLE" for n in range(REGISTERS)}
OUTPUTS |= {f"input_int_register_{n}": "INT32" for n in range(REGISTERS)}
OUTPUTS |= {f"input_double_register_{n}": "DOUBLE" for n in range(REGISTERS)}

INPUTS = {
    "speed_slider_mask": "UINT32",
    "speed_slider_fraction": "DOUBLE",
    "standard_digital_output_mask": "UINT8",
    "standard_digital_output": "UINT8",
    "configurable_digital_output_mask": "UINT8",
    "configurable_digital_output": "UINT8",
    "tool_digital_output_mask": "UINT8",
    "tool_digital_output": "UINT8",
    "standard_analog_output_mask": "UINT8",
    "standard_analog_output_type": "UINT8",
    "standard_analog_output_0": "DOUBLE",
    "standard_analog_output_1": "DOUBLE",
    "input_bit_registers0_to_31": "UINT32",
    "input_bit_registers32_to_63": "UINT32",
    "external_force_torque": "VECTOR6D",
}
INPUTS |= {f"input_bit_register_{n}": "BOOL" for n in range(64, 128)}
INPUTS |= {f"input_int_register_{n}": "INT32" for n in range(REGISTERS)}
INPUTS |= {f"input_double_register_{n}": "DOUBLE" for n in range(REGISTERS)}


class Recipe:
    """An agreed list of variables: how it is packed, and which values are taken from and put where."""

    def __init__(self, names: tuple[str, ...], kinds: tuple[str, ...]) -> None:
        self.names = names
        self._counts = tuple(COUNTS.get(kind, 1) for kind in kinds)
        self._layout = struct.Struct(">" + "".join(FORMATS[kind] for kind in kinds))

    def pack(self, values: dict[str, object]) -> bytes:
        """Returns the bytes of the variables; those that ``values`` lacks are zero."""
        flat: list[object] = []
        for name, count in zip(self.names, self._counts, strict=True):
            value = values.get(name, 0)
            if isinstance(value, tuple):
                flat.extend(value)
            else:
                flat.extend((value,) * count)
        return self._layout.pack(*flat)

    def unpack(self, body: bytes) -> dict[str, object]:
        """Returns the variables in ``body``; raises struct.error where it has another size."""
        flat = iter(self._layout.unpack(body))
        return {
            name: next(flat) if count == 1 else tuple(next(flat) for _ in range(count))
            for name, count in zip(self.names, self._counts, strict=True)
        }
