"""The learned policy on the robot's own computer: ONNX Runtime on a processor core, neither torch nor a GPU.

A choice that takes too long is not acted on: the picture behind it is old by then. The arm then stands still for one
step, which the episode records as it records any action, and looks again.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qtopt.config import CemConfig
from qtopt.errors import CheckpointError, ConfigError, SchemaMismatch
from qtopt.exported import (
    ACTIONS,
    HEAD_FILE,
    IMAGE,
    LOGITS,
    STATE,
    TOWER_FILE,
    Manifest,
    read_graph,
    read_manifest,
)
from qtopt.specs import make_action
from qtopt.types import Behaviour, Decision, FloatArray, IntArray, JsonValue, Observation
from robot_bridge.search import Draws, NumpyDraws, maximise, prior, to_actions

Features = dict[str, Any]


class OnnxPolicy:
    """Takes the action of highest Q, as torch's ``CemPolicy`` does; satisfies ``qtopt.interfaces.Policy``.

    Args:
        directory: what ``qtopt export`` wrote.
        cem: sizes of the search; by default those that were exported.
        deadline_s: a choice that takes longer becomes a hold: no displacement, the fingers as they are. None waits for
            as long as it takes, which is for simulated cells only.
        threads: of ONNX Runtime.
        make_draws: makes the source of an episode's chance from a seed.
        clock: measures the time of a choice [s].

    Raises:
        CheckpointError: the directory holds no sound export that this version can read.
        ConfigError: onnxruntime is not installed, or an argument cannot work.
    """

    def __init__(
        self,
        directory: Path,
        cem: CemConfig | None = None,
        *,
        deadline_s: float | None = None,
        threads: int = 1,
        make_draws: Callable[[int], Draws] = NumpyDraws,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if deadline_s is not None and not deadline_s > 0:
            raise ConfigError(f"deadline_s is {deadline_s}, expected more than 0 s, or None for none")
        self.manifest = read_manifest(directory)
        self._networks = Graphs(directory, self.manifest, threads)
        self._cem = cem if cem is not None else self.manifest.cem
        self._deadline_s, self._clock = deadline_s, clock
        self._make_draws = make_draws
        self._draws: Draws = make_draws(0)
        self.late = 0

    late: int
    """How many choices came too late since the policy was made."""

    def begin_episode(self, rng: np.random.Generator) -> None:
        """Seeds the search of the coming episode."""
        self._draws = self._make_draws(int(rng.integers(2**63)))

    def select(self, observation: Observation) -> Decision:
        """Returns the best action found and its Q, or a hold where that took too long; ``facts`` says how long.

        Raises:
            SchemaMismatch: the image has another size than the network's.
        """
        started = self._clock()

        def late() -> bool:
            return self._deadline_s is not None and self._clock() - started > self._deadline_s

        manifest, state = self.manifest, self._state(observation)
        features = self._networks.encode(centre_crop(observation, manifest), state)

        def score(point: FloatArray, mode: IntArray) -> FloatArray:
            if late():
                raise _TooLate
            return self._networks.score(features, state, to_actions(point, mode, observation))

        may = prior(observation, manifest.reach.lifted_m, manifest.terminate_above_m)
        try:
            best = maximise(score, may, self._cem, self._draws)
        except _TooLate:
            return self._hold(started)
        action = to_actions(best.point[None], np.array([best.mode]), observation)[0]
        if late():
            return self._hold(started)
        value = float(1.0 / (1.0 + np.exp(-np.float64(best.score))))
        return Decision(action, Behaviour.GREEDY, value, facts=self._facts(started))

    def _state(self, observation: Observation) -> FloatArray:
        seen = (float(observation.gripper_closed), observation.height_to_bottom)
        return np.array([self.manifest.fixed_state or seen], np.float32)

    def _hold(self, started: float) -> Decision:
        self.late += 1
        facts = {**self._facts(started), "late": True, "deadline_s": self._deadline_s}
        return Decision(make_action(), Behaviour.SCRIPTED, facts=facts)

    def _facts(self, started: float) -> dict[str, JsonValue]:
        return {"select_s": round(self._clock() - started, 4)}


class _TooLate(Exception):
    """The deadline passed in the middle of a search."""


class Graphs:
    """The two graphs, loaded and checked against their digests.

    Args:
        directory: where they are.
        manifest: what is said of them.
        threads: of ONNX Runtime.

    Raises:
        CheckpointError: a graph is missing, damaged, or cannot be run.
        ConfigError: onnxruntime is not installed.
    """

    def __init__(self, directory: Path, manifest: Manifest, threads: int = 1) -> None:
        self._at_once = manifest.at_once
        self._tower = _session(directory, TOWER_FILE, manifest.tower_sha256, threads)
        self._head = _session(directory, HEAD_FILE, manifest.head_sha256, threads)
        self._names = [output.name for output in self._tower.get_outputs()]
        self._takes = {given.name for given in self._tower.get_inputs()}
        head = {given.name for given in self._head.get_inputs()}
        if not self._takes <= {IMAGE, STATE} or not head <= {*self._names, STATE, ACTIONS}:
            raise CheckpointError(
                f"{directory}: the graphs take {sorted(self._takes)} and {sorted(head)}, expected {IMAGE}, {STATE}, "
                f"{ACTIONS} and the tower's outputs {self._names}; export the policy again"
            )
        self._head_takes = head

    def encode(self, image: np.ndarray, state: FloatArray) -> Features:
        """Returns the features of a cropped image uint8 (1, crop, crop, 3) and a state float32 (1, 2)."""
        given = {IMAGE: image, STATE: state}
        values = self._tower.run(self._names, {name: given[name] for name in self._takes})
        return dict(zip(self._names, values, strict=True))

    def score(self, features: Features, state: FloatArray, actions: FloatArray) -> FloatArray:
        """Returns the logits (N,) of candidate actions (N, 8)."""
        given = {**features, STATE: state}
        step = self._at_once or len(actions)
        scores = []
        for start in range(0, len(actions), step):
            given[ACTIONS] = actions[None, start : start + step]
            scores.append(self._head.run([LOGITS], {name: given[name] for name in self._head_takes})[0][0])
        return np.concatenate(scores)


def centre_crop(observation: Observation, manifest: Manifest) -> np.ndarray:
    """Returns the middle of an image, uint8 (1, crop, crop, 3); raises SchemaMismatch for another size."""
    config = manifest.image
    if observation.image.shape != (config.stored_px, config.stored_px, 3):
        raise SchemaMismatch(
            f"the exported policy works with images of {config.stored_px}x{config.stored_px} px, RGB, found the shape "
            f"{observation.image.shape}; use a camera of that size"
        )
    start, size = config.centre_offset_px, config.crop_px
    return observation.image[None, start : start + size, start : start + size]


def _session(directory: Path, name: str, digest: str, threads: int) -> Any:
    content = read_graph(directory, name, digest)
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("an exported policy needs onnxruntime: pip install 'qtopt[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base but this
        raise CheckpointError(f"{directory / name}: ONNX Runtime cannot run it: {error}; update onnxruntime") from error
