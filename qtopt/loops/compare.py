"""Two policies on the same scenes, compared pair by pair: sharper than two intervals, as both met the same luck."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qtopt.errors import ConfigError
from qtopt.loops.report import Report, rows_of
from qtopt.types import JsonValue, Outcome

_SUCCESS = Outcome.SUCCESS.name.lower()
_VOID = {Outcome.ABORTED.name.lower(), Outcome.UNKNOWN.name.lower()}


@dataclass(frozen=True, slots=True)
class Paired:
    """Scenes by who succeeded in them.

    Attributes:
        both: scenes in which A and B succeeded.
        only_a: scenes in which A alone did.
        only_b: scenes in which B alone did.
        neither: scenes in which none did.
        void: scenes left out because a fault ended one of the episodes.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    void: int = 0

    @property
    def pairs(self) -> int:
        """Scenes that count."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Success of A minus success of B; NaN without pairs."""
        return (self.only_a - self.only_b) / self.pairs if self.pairs else math.nan

    def interval(self, z: float = 1.959964) -> tuple[float, float]:
        """Returns the 95 % interval of the difference: Wald's, half a scene added to each cell (Agresti, Min 2005)."""
        pairs, a, b = self.pairs + 2, self.only_a + 0.5, self.only_b + 0.5
        middle = (a - b) / pairs
        half = z * math.sqrt(a + b - (a - b) ** 2 / pairs) / pairs
        return max(-1.0, middle - half), min(1.0, middle + half)

    def p_value(self) -> float:
        """Returns the exact McNemar test's two-sided p: were only A and only B equally likely, how odd is this?"""
        discordant, fewer = self.only_a + self.only_b, min(self.only_a, self.only_b)
        tail = sum(math.comb(discordant, count) for count in range(fewer + 1))
        return min(1.0, float(2 * tail / 2**discordant))

    def to_json(self) -> dict[str, JsonValue]:
        """Returns all of it in JSON values."""
        low, high = self.interval()
        return {
            "pairs": self.pairs,
            "both": self.both,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "neither": self.neither,
            "void": self.void,
            "success_a": round((self.both + self.only_a) / self.pairs, 4) if self.pairs else None,
            "success_b": round((self.both + self.only_b) / self.pairs, 4) if self.pairs else None,
            "difference": round(self.difference, 4) if self.pairs else None,
            "interval": [round(low, 4), round(high, 4)],
            "p_value": self.p_value(),
        }


def pair(a: Report, b: Report) -> Paired:
    """Pairs two reports of the protocol fresh, scene by scene.

    Raises:
        ConfigError: they are not of the same scenes; the message names what differs.
    """
    facts, others = _facts(a), _facts(b)
    if "emptying" in (facts["protocol"], others["protocol"]):
        raise ConfigError(
            "compare: found the protocol emptying, expected fresh: attempts in one bin depend on those before them; "
            "evaluate both with --protocol fresh"
        )
    first, second = ({_scene(row): row for row in rows_of(report)} for report in (a, b))
    differing = [f"{name} {facts[name]!r} and {others[name]!r}" for name in facts if facts[name] != others[name]]
    if not differing and first.keys() != second.keys():
        differing = ["other scenes under one seed"]
    if differing:
        raise ConfigError(
            f"compare: found {', '.join(differing)}, expected the same scenes in both; "
            "evaluate both with the same --seed, --objects, --protocol, --episodes and --sim"
        )
    outcomes = [(str(row["outcome"]), str(second[scene]["outcome"])) for scene, row in first.items()]
    judged = [each for each in outcomes if not _VOID & {*each}]
    won = [(one == _SUCCESS, other == _SUCCESS) for one, other in judged]
    return Paired(
        won.count((True, True)),
        won.count((True, False)),
        won.count((False, True)),
        won.count((False, False)),
        len(outcomes) - len(judged),
    )


def _facts(report: Report) -> dict[str, JsonValue]:
    """What has to be the same in both; cameras may differ, as networks see images of different sizes."""
    sim = report.get("sim")
    kept = sim.items() if isinstance(sim, dict) else ()
    return {
        "seed": report.get("seed"),
        "objects": report.get("objects"),
        "protocol": report.get("protocol", "fresh"),
        "episodes": len(rows_of(report)),
        "sim": {name: value for name, value in kept if name not in ("camera", "objects")},
    }


def _scene(row: Mapping[str, JsonValue]) -> tuple[str, str]:
    return str(row["index"]), str(row["scene_seed"])
