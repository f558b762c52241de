"""What came of a fault that is not judged by the tool's way alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from qtopt.types import JsonValue


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a case.

    Attributes:
        case: its name.
        protocol: of the cell.
        label: of the episode; empty where none is meant.
        seen: in words, for the table.
        measured: in numbers.
        tries: episodes that it took to have the fault in the right moment.
        late_s: how much later than asked for this machine woke a sleeper meanwhile, at worst.
        failure: what was not as it must be; empty for nothing.
    """

    case: str
    protocol: str
    label: str
    seen: str
    failure: str
    tries: int = 1
    late_s: float = 0.0
    measured: Mapping[str, JsonValue] = field(default_factory=dict)
