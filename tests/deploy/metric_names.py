"""The names that dashboards and alerts in deploy/ ask Prometheus for."""

import json
from pathlib import Path

import promql_parser
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UP = "up"
"""What Prometheus says of each target itself."""
PARTS = ("expr", "lhs", "rhs", "param", "vector_selector", "args")


def expressions():
    """Returns every expression of the dashboards and the alerts by where it stands."""
    found = {}
    for file in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                found[f"{file.name}: {panel['title']}: {target['refId']}"] = target["expr"]
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            found[f"alerts.yml: {rule['alert']}"] = rule["expr"]
    return found


def selectors(expression):
    """Yields the selectors within a parsed expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
        return
    for part in PARTS:
        inner = getattr(expression, part, None)
        for each in inner if isinstance(inner, list) else [inner]:
            if each is not None and not isinstance(each, str | float):
                yield from selectors(each)


def used_names():
    """Returns the names of all metrics that roles are asked for; raises ValueError for what is no PromQL."""
    names = {each.name for text in expressions().values() for each in selectors(promql_parser.parse(text))}
    return names - {UP}
