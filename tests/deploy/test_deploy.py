"""What deploy/ starts must exist: every command parses, and asks for files that `qtopt certs` makes."""

import importlib
import json
import re
import shlex
from typing import get_args

import pytest
import yaml

from qtopt import cli
from tests.deploy.manifests import DEPLOY, compose_services, container, directories_of_secrets, workloads

SHELL_VALUE = re.compile(r"\$\$?(?:\(\([^()]*\)\)|\([^()]*\)|\{[^}]*\}|\w+)")


def container_commands():
    """Yields the argument lists of all containers."""
    for service in compose_services().values():
        yield service["command"]
    for workload in workloads().values():
        yield container(workload)["args"]


def unit_commands():
    """Yields what the systemd units start."""
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        yield [re.search(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE).group(1)]


def without_shell(text):
    """Returns ``text`` with 1 wherever a shell would put a value, innermost values first."""
    while (shorter := SHELL_VALUE.sub("1", text)) != text:
        text = shorter
    return text


def words_of(arguments):
    """Returns the words after ``qtopt``, with 1 wherever a shell would put a value."""
    text = without_shell(
        arguments[-1].replace("%i", "1").replace("%H", "h").replace("%%", "%").replace(" $METRICS", "")
    )
    if "qtopt " not in text:
        return [without_shell(word) for word in arguments]
    return shlex.split(re.search(r"qtopt ([^']+)", text).group(1))


@pytest.mark.parametrize("arguments", [*container_commands(), *unit_commands()], ids=lambda each: words_of(each)[0])
def test_commands_have_the_flags_that_they_are_given(arguments):
    command, *flags = words_of(arguments)
    flags = ["--server=h:50051" if flag == "--server=1" else flag for flag in flags]
    module = importlib.import_module(f"qtopt.apps.{command}")
    config = cli.parse(module.Config, command, flags)
    kinds = [getattr(kind, "__origin__", kind) for kind in get_args(module.Config) or (module.Config,)]
    assert type(config) in kinds


def test_compose_mounts_what_qtopt_certs_makes(tmp_path):
    roles = {"trainer": "trainer", "updater": "updater", "probe": "viewer"}
    roles |= {"collector-0": "collector", "collector-1": "collector"}
    clients = [f"client --role {role} --name {name}" for name, role in roles.items()]
    for line in ["authority", "server --names server", *clients]:
        assert cli.main(["certs", *line.split(), "--directory", str(tmp_path / "secrets")]) == 0
    for service in compose_services().values():
        mounted = {at: tmp_path / source for source, at in directories_of_secrets(service)}
        assert all(source.is_dir() for source in mounted.values())
        asked = re.findall(
            r"=(/(?:secrets|probe))/([\w.]+)", json.dumps([service["command"], service.get("healthcheck")])
        )
        assert {at for at, _ in asked} == set(mounted)
        assert [name for at, name in asked if not (mounted[at] / name).is_file()] == []


def test_what_qtopt_certs_replaces_is_seen_in_a_container():
    """A mounted file stays the one that the container began with; a directory has what is in it now."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert "secrets" not in compose
    for service in compose_services().values():
        assert "secrets" not in service
        assert "configs" not in service
