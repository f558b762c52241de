"""One target of ``guided_fuzz`` under atheris, whose instruments see only what is imported after them."""

import logging
import os
import random
import sys
import traceback
import warnings
from pathlib import Path


def main(name: str, room: Path, corpus: Path, faults: Path, seed: int, options: list[str]) -> None:
    """Feeds the target of that name until libFuzzer's ``options`` end it; ends this process.

    Args:
        name: of the target.
        room: an empty directory on a fast disk, for the files of targets.
        corpus: directory of inputs that reach something new; it begins with the target's seeds.
        faults: directory that keeps what caused a fault: libFuzzer itself keeps no input of an exception.
        seed: of the seeds' content.
        options: of libFuzzer.
    """
    import atheris  # part of an extra

    with atheris.instrument_imports(include=["qtopt", "robot_bridge"]):
        import numpy as np
        import structlog
        from google.protobuf.message import DecodeError

        from qtopt.apps.drills.every_target import every_target
        from qtopt.apps.drills.fuzz import keep
        from qtopt.errors import QtOptError
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    warnings.simplefilter("ignore")  # of libraries about what is damaged
    chance = np.random.default_rng(seed)
    target = next(each for each in every_target(chance, room) if each.name == name)
    for number, data in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(data)

    def take(data: bytes) -> None:
        try:
            target.take(data)
        except QtOptError:
            return
        except Exception:
            keep(faults, name, data)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # atheris would end the interpreter, and libFuzzer's alarm kill it before it has said why

    def mutate(data: bytes, most_bytes: int, chance: int) -> bytes:
        """Damages as ``fuzz`` does, which knows messages and checksums, or as libFuzzer does."""
        rng = random.Random(chance)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, most_bytes))
        try:
            damaged = target.damage(rng, data)
        except (ValueError, LookupError, DecodeError):  # what libFuzzer has changed may be no message any more
            damaged = target.damage(rng, rng.choice(target.seeds))
        return damaged[:most_bytes]

    atheris.Setup([sys.argv[0], *options, str(corpus)], take, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])
