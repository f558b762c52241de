"""The policy of a checkpoint as ONNX graphs, for a robot's computer without torch."""

from dataclasses import dataclass, field
from pathlib import Path

from qtopt.agent.export import export_policy
from qtopt.apps.process import limit_threads, say
from qtopt.config import STRICT, CemConfig
from qtopt.exported import HEAD_FILE, TOWER_FILE
from qtopt.loops.checkpoints import POLICY_FILE, find_checkpoint


@dataclass(frozen=True)
class Config:
    """Writes two ONNX graphs and policy.json; act with them through robot_bridge.onnx_policy, or qtopt eval.

    Attributes:
        checkpoint: a checkpoint, a policy.safetensors, a run's directory for its newest checkpoint, or the word
            pretrained.
        output: directory for the graphs; made if missing, an earlier export in it is replaced.
        cem: sizes of the search that the robot will do.
    """

    __pydantic_config__ = STRICT

    checkpoint: Path
    output: Path
    cem: CemConfig = field(default_factory=CemConfig)


def main(config: Config) -> int:
    """Exports and says what was written."""
    limit_threads(1)
    path = config.checkpoint if config.checkpoint.is_file() else find_checkpoint(config.checkpoint) / POLICY_FILE
    manifest = export_policy(path.read_bytes(), config.output, config.cem)
    kind = manifest.network["kind"]
    sizes = [(config.output / name).stat().st_size / 1e6 for name in (TOWER_FILE, HEAD_FILE)]
    say(f"{kind} policy of step {manifest.step}: tower {sizes[0]:.1f} MB, head {sizes[1]:.1f} MB in {config.output}")
    return 0
