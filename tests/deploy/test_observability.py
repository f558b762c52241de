"""Dashboards and alerts are well formed; that roles export what they ask for: tests/apps/test_end_to_end.py."""

import json
import re
import shutil
import subprocess

import promql_parser
import pytest
import yaml

from tests.deploy.manifests import compose_services, container, workloads
from tests.deploy.metric_names import DEPLOY, UP, expressions, selectors, used_names


@pytest.mark.parametrize("text", expressions().values(), ids=list(expressions()))
def test_every_expression_is_promql(text):
    promql_parser.parse(text)


def test_names_are_found_within_any_expression():
    assert len(used_names()) >= 25
    assert {"qtopt_episodes_stored_total", "qtopt_call_seconds_bucket", "qtopt_label_age_seconds"} <= used_names()


def test_alerts_say_what_to_do():
    names = []
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            names.append(rule["alert"])
            assert rule["labels"]["severity"] in ("page", "warn")
            assert rule["annotations"].keys() == {"summary", "description"}
    assert len(set(names)) == len(names) > 8


def test_the_death_of_every_job_that_is_scraped_is_told():
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    asked = [each for text in expressions().values() for each in selectors(promql_parser.parse(text))]
    told = {matcher.value for each in asked if each.name == UP for matcher in each.matchers.matchers}
    assert told | {"server"} == {job["job_name"] for job in scraped}
    assert "absent(qtopt_serving" in expressions()["alerts.yml: ServerDoesNotServe"]


def test_every_role_shows_its_metrics_where_prometheus_looks():
    told = json.dumps(yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text()))
    for name, service in compose_services().items():
        assert "--metrics.port=9100" in " ".join(service["command"])
        assert f"{name}:9100" in told or f'"names": ["{name}"]' in told
    for workload in workloads().values():
        ports = {each["name"]: each["containerPort"] for each in container(workload)["ports"]}
        assert f"--metrics.port={ports['metrics']}" in " ".join(container(workload)["args"])
        annotations = workload["template"]["metadata"]["annotations"]
        assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": str(ports["metrics"])}
    for unit in (DEPLOY / "systemd").glob("*.service"):
        assert " --metrics.port=" in unit.read_text()


def test_pods_are_scraped_under_the_names_of_their_roles(tmp_path):
    config = yaml.safe_load((DEPLOY / "prometheus" / "kubernetes.yml").read_text())
    (job,) = config["scrape_configs"]
    label = "app.kubernetes.io/component"
    source = f"__meta_kubernetes_pod_label_{re.sub(r'[^a-z]', '_', label)}"
    assert {"source_labels": [source], "target_label": "job"} in job["relabel_configs"]
    named = {each["template"]["metadata"]["labels"][label] for each in workloads().values()}
    compose = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert named == {each["job_name"] for each in compose["scrape_configs"]}
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed")
    found = job.pop("kubernetes_sd_configs")  # which not every build of promtool knows
    assert found == [{"role": "pod", "namespaces": {"names": ["qtopt"]}}]
    (tmp_path / "kubernetes.yml").write_text(yaml.safe_dump(config))
    subprocess.run([tool, "check", "config", "--syntax-only", "kubernetes.yml"], cwd=tmp_path, check=True)


def test_dashboard_panels_do_not_overlap():
    panels = json.loads((DEPLOY / "grafana" / "dashboards" / "qtopt.json").read_text())["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_prometheus_reads_the_rules_and_its_configuration():
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed")
    for words in (["rules", "alerts.yml"], ["config", "--syntax-only", "prometheus.yml"]):
        subprocess.run([tool, "check", *words], cwd=DEPLOY / "prometheus", check=True, capture_output=True)
    told = subprocess.run(
        [tool, "test", "rules", "alerts_test.yml"],
        cwd=DEPLOY / "prometheus",
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
