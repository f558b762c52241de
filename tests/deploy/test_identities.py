"""Each robot is somebody: no two collectors of a deployment share a certificate, a token, a name or a spool."""

import shutil
import subprocess

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, compose_services, container, directories_of_secrets, workloads

FILES = {"ca.crt", "client.crt", "client.key", "token"}


def volume(workload, name):
    return next(each for each in workload["template"]["spec"]["volumes"] if each["name"] == name)


def mount(workload, name):
    return next(each for each in container(workload)["volumeMounts"] if each["name"] == name)


def test_each_pod_of_the_collector_sees_the_credentials_of_its_own_name_alone():
    collector = workloads()["qtopt-collector"]
    pods = [f"qtopt-collector-{ordinal}" for ordinal in range(collector["replicas"])]
    sources = [each["secret"] for each in volume(collector, "secrets")["projected"]["sources"]]
    assert [each["name"] for each in sources] == pods
    for source in sources:
        assert {item["key"]: item["path"] for item in source["items"]} == {
            file: f"{source['name']}/{file}" for file in FILES
        }
    assert mount(collector, "secrets")["subPathExpr"] == "$(POD_NAME)"
    assert '--name="$POD_NAME"' in container(collector)["args"][-1]


def test_each_collector_of_compose_has_credentials_and_a_spool_of_its_own():
    collectors = {name: each for name, each in compose_services().items() if name.startswith("collector")}
    assert len(collectors) >= 2
    for name, service in collectors.items():
        assert service["environment"]["NAME"] == name
        assert directories_of_secrets(service) == [(f"secrets/clients/{name}", "/secrets")]
    for key in ("environment", "volumes"):
        assert len({str(each[key]) for each in collectors.values()}) == len(collectors)


def test_the_manifests_can_be_rendered():
    tool = shutil.which("kubectl")
    if tool is None:
        pytest.skip("kubectl is not installed")
    told = subprocess.run(
        [tool, "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, text=True, check=True, timeout=60
    )
    kinds = [each["kind"] for each in yaml.safe_load_all(told.stdout)]
    assert sorted(kinds) == ["Deployment", "NetworkPolicy", "Service", "StatefulSet", "StatefulSet", "StatefulSet"]
