"""What deploy/ describes: the manifests of Kubernetes and the services of compose."""

from pathlib import Path

import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def compose_services():
    """Returns the services of compose that run our image, by name."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return {name: each for name, each in services.items() if each["image"] == "qtopt"}


def directories_of_secrets(service):
    """Returns what a service of compose mounts of deploy/secrets, as pairs: path there, path in the container."""
    mounts = [volume.split(":") for volume in service["volumes"] if volume.startswith("./secrets/")]
    assert all(mode == "ro" for _, _, mode in mounts)
    return [(source.removeprefix("./"), at) for source, at, _ in mounts]


def workloads():
    """Returns the manifests that make pods, by name."""
    found = {}
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for manifest in yaml.safe_load_all(file.read_text()):
            if manifest["kind"] in ("Deployment", "StatefulSet"):
                found[manifest["metadata"]["name"]] = manifest["spec"]
    return found


def container(workload):
    """Returns the one container of a workload."""
    (found,) = workload["template"]["spec"]["containers"]
    return found
