"""What an exported policy is on disk: two ONNX graphs, and ``policy.json``, which says how to search with them.

Written where torch is (``qtopt.agent.export``) and read where it is not (``robot_bridge.onnx_policy``). ``policy.json``
is written last and holds the digests of the graphs and of itself: a directory that reads is whole.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from qtopt.config import STRICT, CemConfig, ImageConfig, Reach, from_plain, to_plain
from qtopt.durable import write_text
from qtopt.errors import CheckpointError, ConfigError
from qtopt.types import JsonValue

FORMAT = "qtopt-onnx"
SCHEMA = 1
"""Raised when a key of ``policy.json`` or an input of a graph changes meaning."""
MANIFEST_FILE, TOWER_FILE, HEAD_FILE = "policy.json", "tower.onnx", "head.onnx"

IMAGE, STATE, ACTIONS, LOGITS = "image", "state", "actions", "logits"
"""Names in the graphs, beside those of the features that the tower gives and the head takes."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """How to act with two graphs.

    ``tower.onnx`` takes ``image`` uint8 (1, crop, crop, 3), RGB, the middle of a stored image, and ``state`` float32
    (1, 2), gripper_closed in {0, 1} and height_to_bottom [m]. It returns features. ``head.onnx`` takes these, ``state``
    and ``actions`` float32 (1, N, 8), and returns ``logits`` float32 (1, N), whose sigmoid is Q.

    Attributes:
        step: gradient steps behind the networks.
        version: of the program that exported them.
        policy_sha256: of the ``policy.safetensors`` that they come from.
        network: the network's whole configuration, plain.
        image: sizes of captured and of cropped images.
        reach: where the cell of the training let the tool go; ``lifted_m`` says where ending is a candidate.
        cem: sizes of the search.
        terminate_above_m: height of the scripted rule that ends episodes [m]; None where ending is an action like any.
        fixed_state: what goes into both graphs in place of the state, for a network that must not see it; else None.
        at_once: candidates that ``head.onnx`` scores fastest in one call; 0 for all of them.
        tower_sha256: of the file.
        head_sha256: of the file.
    """

    __pydantic_config__ = STRICT

    step: int
    version: str
    policy_sha256: str
    network: dict[str, Any]
    image: ImageConfig
    reach: Reach
    cem: CemConfig
    terminate_above_m: float | None
    fixed_state: tuple[float, float] | None
    at_once: int
    tower_sha256: str
    head_sha256: str

    def write(self, directory: Path) -> None:
        """Writes ``policy.json``; nobody ever reads half of it."""
        body = {"format": FORMAT, "schema": SCHEMA, **to_plain(self)}
        write_text(directory / MANIFEST_FILE, json.dumps({**body, "sha256": _digest(body)}, indent=1) + "\n")


def is_exported(path: Path) -> bool:
    """Returns whether ``path`` is the directory of an exported policy."""
    return (path / MANIFEST_FILE).is_file()


def read_manifest(directory: Path) -> Manifest:
    """Reads ``policy.json``.

    Raises:
        CheckpointError: it is missing, damaged or changed, or of another format or schema; the message says what to do.
    """
    path = directory / MANIFEST_FILE
    body = _load(path)
    if body.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path}: expected the format '{FORMAT}'; give a directory that qtopt export wrote")
    schema, digest = body.pop("schema", None), body.pop("sha256", None)
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        hint = "update qtopt on this machine" if newer else "export the policy again"
        raise CheckpointError(f"{path}: found schema {schema!r}, expected {SCHEMA}; {hint}")
    if digest != _digest({"format": FORMAT, "schema": schema, **body}):
        raise CheckpointError(
            f"{path}: the content does not match its SHA-256: it was changed or damaged; export the policy again (the "
            "search is set where it is used, not here)"
        )
    try:
        return from_plain(Manifest, body, str(path))
    except ConfigError as error:
        raise CheckpointError(f"{error}; export the policy again") from error


def read_graph(directory: Path, name: str, digest: str) -> bytes:
    """Returns the bytes of a graph; raises CheckpointError unless they are there and have this SHA-256."""
    path = directory / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; copy the whole directory, or export again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise CheckpointError(
            f"{path}: found the SHA-256 {found[:12]}..., expected {digest[:12]}... as {MANIFEST_FILE} says: it was "
            "changed or damaged; copy the whole directory again, or export again"
        )
    return content


def _load(path: Path) -> dict[str, JsonValue]:
    try:
        body = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent}: found no {MANIFEST_FILE}, expected a directory that qtopt export wrote; check the path"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; export the policy again") from error
    if not isinstance(body, dict):
        raise CheckpointError(f"{path}: found a JSON {type(body).__name__}, expected an object; export again")
    return body


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
