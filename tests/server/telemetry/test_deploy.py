"""The dashboard and the alerts read only metrics that the server exports."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # it ships no types
from credit_server.access.audit import AuditLog
from credit_server.access.tls import Validity
from credit_server.api.contract import CONTRACT
from credit_server.api.operations import KINDS
from credit_server.api.service import CreditService
from credit_server.commit import Committer
from credit_server.grpc.standard import with_standard_services
from credit_server.settings import ServerSettings
from credit_server.store.memory import MemoryStore
from credit_server.telemetry import Telemetry
from grpclib.health.check import ServiceStatus

DEPLOY = Path(__file__).parents[3] / "deploy"

# What Prometheus adds to every series.
ADDED = {"job", "instance"}
METRIC = re.compile(r"\b((?:credit|grpc|process|python|up)_?[a-z_]*)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without) \(([^)]*)\)")

Labels = Mapping[str, set[str]]


@pytest.fixture(scope="module")
def shown() -> Mapping[str, Labels]:
    """Each sample that the server exports, with its labels and their values."""
    telemetry = Telemetry()
    store = MemoryStore()
    service = CreditService(Committer(store), store, AuditLog(None, translate=CONTRACT.translate))
    telemetry.calls(
        with_standard_services([service], ServiceStatus(), CONTRACT.files),
        server_address="127.0.0.1",
        server_port=0,
        operation_kinds=KINDS,
    )
    telemetry.connections.watch_closed(lambda: {"idle": 1})  # its reasons are the transport's
    now = datetime.now(UTC)
    telemetry.certificates.look([Validity(path=Path("server.pem"), begins=now, ends=now)], now)
    samples: dict[str, dict[str, set[str]]] = {}
    for family in telemetry.registry.collect():
        for sample in family.samples:
            labels = samples.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return samples


def _dashboard() -> dict[str, Any]:  # Any: what JSON holds
    dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana" / "credit.json").read_text())
    return dashboard


def _rules() -> list[dict[str, Any]]:  # Any: what YAML holds
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def _panels() -> Iterator[dict[str, Any]]:  # Any: what JSON holds
    return (panel for panel in _dashboard()["panels"] if panel["type"] != "row")


def _queries() -> list[tuple[str, str]]:
    panels = [
        (panel["title"], target["expr"]) for panel in _panels() for target in panel["targets"]
    ]
    variables = [
        (variable["name"], re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"]["query"]))
        for variable in _dashboard()["templating"]["list"]
        if variable["type"] == "query"
    ]
    return panels + variables + [(rule["alert"], rule["expr"]) for rule in _rules()]


QUERIES = _queries()


@pytest.mark.parametrize(("name", "query"), QUERIES, ids=[name for name, _ in QUERIES])
def test_a_query_reads_metrics_that_the_server_exports(
    name: str, query: str, shown: Mapping[str, Labels]
) -> None:
    bare = GROUPING.sub("", query)
    asked = METRIC.findall(re.sub(r'"[^"]*"(?![^{]*\})', "", bare))
    assert asked, query
    known: set[str] = set(ADDED)
    for metric, matchers in asked:
        assert metric in shown, f"{name}: there is no {metric}"
        known |= shown[metric].keys()
        for label, operator, value in MATCHER.findall(matchers):
            _assert_known(shown[metric], label, operator, value)
    for group in GROUPING.findall(query):
        assert {label.strip() for label in group.split(",")} <= known, f"{name}: by {group}"
    assert query.count("(") == query.count(")")


def _assert_known(labels: Labels, label: str, operator: str, value: str) -> None:
    assert label in labels.keys() | ADDED, f"there is no label {label}"
    if label in ADDED:
        return
    values = value.split("|") if operator.endswith("~") else [value]
    assert set(values) <= labels[label], f"{label} is never {value}"


def test_grafana_can_display_a_panel() -> None:
    ids = [panel["id"] for panel in _dashboard()["panels"]]
    assert len(ids) == len(set(ids))
    for panel in _panels():
        assert panel["title"]
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${datasource}"


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in _dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("rule", _rules(), ids=lambda rule: rule["alert"])
def test_an_alert_describes_what_it_means_and_what_to_do(rule: Mapping[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Credit[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))
    assert rule["labels"] == {"severity": "page"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert len(rule["annotations"]["description"]) > 100


def test_every_alert_is_explained_to_the_operator() -> None:
    page = (DEPLOY.parent / "docs" / "operations.md").read_text()
    assert all(f"`{rule['alert']}`" in page for rule in _rules())


def test_every_alert_has_a_section_of_the_runbook() -> None:
    page = (DEPLOY.parent / "docs" / "runbook.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    for rule in _rules():
        section = sections.pop(rule["alert"])
        assert "**At risk:**" in section
        assert "\n1. " in section, "the first check"
    assert not sections, "sections of alerts that do not exist"


def test_every_metric_is_explained_to_the_operator(shown: Mapping[str, Labels]) -> None:
    page = (DEPLOY.parent / "docs" / "operations.md").read_text()
    ours = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for name in shown
        if name.startswith(("credit_", "grpc_")) and not name.endswith("_created")
    }
    missing = sorted(name for name in ours if f"`{name}`" not in page)
    assert not missing


def test_the_scrape_finds_the_default_port() -> None:
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "scrape.yml").read_text())
    (target,) = scrape["scrape_configs"][0]["static_configs"][0]["targets"]
    settings = ServerSettings()
    assert target == f"{settings.metrics_host}:{settings.metrics_port}"
