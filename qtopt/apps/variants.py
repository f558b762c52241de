"""The variants of an ablation: each a name, a reason, and the settings in which it differs from the baseline.

The figures of the paper stand beside them. Those marked as remembered were not checked against it, and none can be
compared in height: other arms, other objects, a hundred times the grasps. What may be compared is the direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtopt.apps import offline
from qtopt.config import STRICT, from_plain, load_yaml, to_plain
from qtopt.errors import ConfigError


@dataclass(frozen=True)
class Variant:
    """One configuration to train and evaluate.

    Attributes:
        name: of its folder and its row.
        reason: what it shows, in one line.
        overrides: settings of ``qtopt offline`` by dotted name, such as ``target.discount``.
        paper: what the literature says of it; empty where it says nothing.
        remembered: that figure comes from memory and was not verified.
    """

    __pydantic_config__ = STRICT

    name: str
    reason: str
    overrides: dict[str, Any] = field(default_factory=dict)
    paper: str = ""
    remembered: bool = False

    def __post_init__(self) -> None:
        if not self.name or not all(each.isalnum() or each in "-_." for each in self.name):
            raise ConfigError(f"variant name is {self.name!r}, expected letters, digits, '-', '_' and '.' only")

    def apply(self, base: offline.Config) -> offline.Config:
        """Returns ``base`` with this variant's settings; raises ConfigError where there is no such setting."""
        values = to_plain(base)
        for name, value in self.overrides.items():
            *parts, last = name.split(".")
            inner = values
            for part in parts:
                inner = inner.get(part) if isinstance(inner, dict) else None
            if not isinstance(inner, dict) or last not in inner:
                raise ConfigError(f"variant {self.name}: found the setting {name!r}, expected one of qtopt offline")
            inner[last] = value
        return from_plain(offline.Config, values, f"variant {self.name}")


BASELINE = Variant(
    "baseline",
    "the paper's method, with the settings given on the command line",
    paper="87 % from stored grasps alone (QT-Opt, Table 1, real arms)",
)

VARIANTS = (
    BASELINE,
    Variant(
        "squared-error",
        "squared error on the sigmoid in place of cross-entropy",
        {"learner.loss": "squared_error"},
        "less stable than cross-entropy (QT-Opt, appendix C, no figure)",
    ),
    Variant(
        "single-target",
        "value of the first target network alone in place of the smaller of two",
        {"target.target_networks": "one"},
        "63 %, with the pair 80 % (QT-Opt, Table 5)",
        remembered=True,
    ),
    Variant(
        "no-state",
        "the image alone: constants in place of gripper state and height",
        {"learner.network.state": "none", "learner.network.reach.lifted_m": 0.0},
        "53 %, with state 58 % (QT-Opt, Table 2)",
        remembered=True,
    ),
    Variant(
        "penalty-0.05-discount-0.9",
        "the paper's reward, whatever the store was recorded with",
        {"target.step_penalty": 0.05, "target.discount": 0.9},
        "68 % (QT-Opt, Table 3)",
        remembered=True,
    ),
    Variant(
        "penalty-0",
        "no cost for an action",
        {"target.step_penalty": 0.0},
        "65 %, with the penalty 68 % (QT-Opt, Table 3)",
        remembered=True,
    ),
    Variant(
        "penalty-0-discount-0.7",
        "haste by a low discount in place of a penalty",
        {"target.step_penalty": 0.0, "target.discount": 0.7},
        "50 %, with penalty and 0.9 68 % (QT-Opt, Table 3)",
        remembered=True,
    ),
    Variant("discount-0.7", "a low discount on top of the penalty", {"target.discount": 0.7}),
    Variant("discount-0.95", "a higher discount: less haste", {"target.discount": 0.95}),
    Variant(
        "scripted-termination",
        "closed fingers 9 cm above the floor end the episode, not the network",
        {"learner.network.terminate_above_m": 0.09},
        "75 %, learned 87 % (QT-Opt, Table 4, from stored grasps alone)",
        remembered=True,
    ),
    Variant(
        "monte-carlo",
        "return of the stored episode in place of a Bellman target",
        {"target.kind": "monte_carlo"},
        "among the best with plentiful data, behind Q-learning with little (Quillen et al. 2018, no figure)",
    ),
    Variant(
        "supervised",
        "did the episode succeed, for each of its actions",
        {"target.kind": "supervised"},
        "67 % (Levine et al. on 400,000 grasps of QT-Opt's; QT-Opt, Table 1, real arms)",
    ),
)
"""What ``--variants all`` runs."""


@dataclass(frozen=True)
class VariantFile:
    """A YAML file of the user's own.

    Attributes:
        variants: in the order of the table.
    """

    __pydantic_config__ = STRICT

    variants: tuple[Variant, ...]


def choose(names: str, file: Path | None) -> Sequence[Variant]:
    """Returns the variants named, the baseline first: differences are to it.

    Args:
        names: ``all``, or names with commas between them.
        file: more variants, a YAML file.

    Raises:
        ConfigError: a name is not known, or used twice.
    """
    known = (*VARIANTS, *(() if file is None else load_yaml(VariantFile, file).variants))
    table = {variant.name: variant for variant in known}
    if len(table) < len(known):
        raise ConfigError(f"{file}: found a variant named like another, expected names of its own")
    wanted = list(table) if names == "all" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in table:
            raise ConfigError(f"variants: found {name!r}, expected all, or some of {', '.join(table)}")
    return [table[name] for name in dict.fromkeys([BASELINE.name, *wanted])]
