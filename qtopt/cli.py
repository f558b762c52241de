"""The command ``qtopt``: one subcommand per process; flags, help and defaults come from the configuration dataclasses.

Nothing heavy is imported before a subcommand is chosen.
"""

import contextlib
import errno
import importlib
import io
import os
import re
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from qtopt import __version__
from qtopt.errors import ConfigError, QtOptError

COMMANDS = {
    "run": "start everything on this machine: a simulated arm learns to grasp",
    "serve": "the server: episode store, labels, networks, policy service",
    "collect": "a collector: runs grasp episodes with the newest policy",
    "label": "a Bellman updater: computes targets for stored transitions",
    "train": "the trainer: gradient steps, publication, checkpoints",
    "eval": "evaluate a policy on fixed scenes with unseen objects, or let it empty bins",
    "compare": "two evaluations of the same scenes, against each other",
    "finals": "the last checkpoints of whole runs, evaluated into one result file",
    "offline": "train from stored grasps alone",
    "ablate": "variants of the method, trained from the same grasps, tried on the same scenes",
    "data": "look into a store: info, verify, show; copy out of it",
    "export": "the policy of a checkpoint as ONNX graphs, for a robot without torch",
    "figures": "draw: curve, calibration, film, cem, or all of a run",
    "bench": "measure: sim, cem, onnx, peak, sample, ingest, train, scale, or all",
    "robot": "a physical cell: check, home, calibrate, collect, status, estop, ack; serve-sim without one",
    "certs": "certificates and tokens: authority, server, client; renew, revoke, show",
    "doctor": "what is installed, and what is missing for which role",
}
"""The subcommands and what each does, in one line."""

_MODULES = {"eval": "evaluate"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs ``qtopt <command> ...``; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"qtopt {__version__}\n")
        return 0
    try:
        return _run(words[0], words[1:])
    except QtOptError as error:
        return _fail(str(error), error.exit_code, error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read the output, such as head, had enough
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno is None:
            raise
        hint = "; make room, or choose another place" if error.errno == errno.ENOSPC else ""
        return _fail(f"the system refused: {error}{hint}", 1, error)


def _run(command: str, arguments: list[str]) -> int:
    if command not in COMMANDS:
        raise ConfigError(f"found the command {command!r}, expected one of {', '.join(COMMANDS)}; see qtopt --help")
    with _ending_at_once():
        app = importlib.import_module(f"qtopt.apps.{_MODULES.get(command, command)}")
        defaults = getattr(app, "defaults", None)
        config = parse(app.Config, command, arguments, default=defaults(arguments) if defaults is not None else None)
    code: int = app.main(config)
    return code


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    """Lets Ctrl-C end the process there and then: code that is being imported may swallow a KeyboardInterrupt."""
    kept = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, kept)


def parse(kind: Any, command: str, arguments: list[str], default: Any = None) -> Any:
    """Builds a configuration of ``kind`` from flags, on top of ``--config FILE`` or ``default`` where given.

    Raises:
        ConfigError: a flag or value that does not fit; the message is one line.
        SystemExit: help was asked for and shown.
    """
    import tyro

    from qtopt.config import load_yaml

    file, rest = _take_config_file(arguments)
    if file is not None:
        default = load_yaml(kind, file)
    extra = {} if default is None else {"default": default}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind,
                prog=f"qtopt {command}",
                description=f"{COMMANDS[command]}. --config FILE reads defaults from YAML.",
                args=rest,
                **extra,
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise ConfigError(f"{_one_line(complaint.getvalue())} (see qtopt {command} --help)") from end


def _take_config_file(arguments: list[str]) -> tuple[Path | None, list[str]]:
    rest = [re.sub(r"^--server(?==|$)", "--server.address", word) for word in arguments]
    for index, word in enumerate(rest):
        if word == "--config":
            if index + 1 == len(rest):
                raise ConfigError("--config: expected a YAML file after it, found nothing")
            return Path(rest[index + 1]), rest[:index] + rest[index + 2 :]
        if word.startswith("--config="):
            return Path(word.removeprefix("--config=")), rest[:index] + rest[index + 1 :]
    return None, rest


def _one_line(box: str) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    _, _, text = plain.partition("\n")  # after the box's title, which says what the text says again
    words = " ".join(re.sub("[\u2500-\u257f]+|-{3,}", " ", text).split())
    return re.sub(r" (Argument helptext:|For full helptext).*", "", words)


def _usage() -> str:
    rows = "\n".join(f"  {name:<9}{text}" for name, text in COMMANDS.items())
    head = "usage: qtopt COMMAND [flags]     (qtopt COMMAND --help lists the flags)"
    return textwrap.dedent(f"{head}\n\n{rows}\n\n  --version  the version of this program\n")


def _fail(message: str, code: int, error: BaseException) -> int:
    if os.environ.get("QTOPT_DEBUG") == "1":
        raise error
    sys.stderr.write(f"qtopt: {' '.join(message.split())}\n")
    return code


def program() -> NoReturn:
    """Runs ``main`` and ends the process without the interpreter's teardown.

    Everything was closed before; taking torch down takes seconds on a busy machine, and Ctrl-C has ten.
    """
    code = main()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    program()
