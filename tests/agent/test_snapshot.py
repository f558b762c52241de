"""Published bytes are networks of the configuration that they name, or they are refused before a weight is used."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

import qtopt
from qtopt.agent.snapshot import check, read_header
from qtopt.errors import CheckpointError

PAYLOAD = (Path(qtopt.__file__).parent / "pretrained" / "policy.safetensors").read_bytes()

_LISTS = b'{"__metadata__": {"format": "x"}, "x": [' + b"[]," * 466_665 + b"0]}"
BOMB = len(_LISTS).to_bytes(8, "little") + _LISTS


def changed(arrays=None, **header):
    kept = load(PAYLOAD)
    if arrays is not None:
        arrays(kept)
    return save(kept, {name: text for name, text in {**read_header(PAYLOAD), **header}.items() if text is not None})


def test_networks_pass():
    check(PAYLOAD)
    check(changed())


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"\x80\x04cposix\nsystem\n.", "bytes that are not"),
        (PAYLOAD[:-1], "found none"),
        ((60_000).to_bytes(8, "little") + b"[" * 60_000, "bytes that are not"),
        (BOMB, "of at most 1048576 bytes, found bytes that are not: the first eight say 1400038"),
        (changed(format="other"), "expected a policy of format"),
        (changed(step=None), "found the step 'None' in their header"),
        (changed(step="soon"), "found the step 'soon' in their header"),
        (changed(network='{"width": 40}'), "arrays differ"),
        (changed(network="[" * 60_000), "cannot be rebuilt"),
        (changed(network=json.dumps({"width": 10**9})), "found none"),
        (changed(lambda kept: kept.pop(min(kept))), "1 arrays differ, the first is 'theta1"),
        (changed(lambda kept: kept.update(x=np.zeros(3, np.float32))), "1 arrays differ, the first is 'x'"),
        (changed(lambda kept: kept.update({min(kept): np.zeros(3, np.float64)})), "found .*F64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_refused(payload, says):
    with pytest.raises(CheckpointError, match=says):
        check(payload)
