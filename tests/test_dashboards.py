"""The dashboard and the alerts, asked of a Prometheus that scrapes a server under load."""

from __future__ import annotations

import json
import math
import re
import signal
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
import pytest
import yaml
from mock_process import MockServer, mock_teacher

from arbitrage.v1 import arbitrage_pb2 as pb
from arbitrage.v1.arbitrage_pb2_grpc import ArbitrageServiceStub
from tests.processes import Served, served
from tests.prometheus import Prometheus, installed, prometheus, promtool
from tests.reward_models import make_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER = Path(__file__).parents[1] / "dashboards"
DASHBOARD = json.loads((FOLDER / "arbitrage.json").read_text("utf-8"))
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    f"{panel['id']} {panel['title']} {target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}
ANNOTATIONS = {one["name"]: one["target"]["expr"] for one in DASHBOARD["annotations"]["list"]}
VARIABLES = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
NAME = re.compile(r"arbitrage_[a-z_]+")

CONFIG = """
[service]
listen = "127.0.0.1:0"
metrics = "127.0.0.1:0"
jobs = "{folder}/jobs"

[reward]
kind = "transformers"
model = "{model}"
device = "cpu"

[policy]
kind = "thompson"
fan_out = 2
budget_usd = 50.0

[sink]
path = "{folder}/out"
"""
TEACHER = """
[[teachers]]
name = "{name}"
kind = "openai"
model = "{name}"
base_url = "{url}"
languages = [{languages}]
max_attempts = 1
price_per_million = {{ prompt = 3.0, completion = 15.0 }}
"""
WELL = {"latency": 0.01, "answer_characters": 80}
LONGER = {"latency": 0.01, "answer_characters": 800}
AWAY = {"latency": 0.0, "faults": [{"kind": "error", "share": 1.0}]}
# a client each; the mock teachers answer in English where nothing tells them the language, and a
# gate stops that
ASKED = (
    ("de", "[de] "),
    ("de", "[de] "),
    ("de", "[de] "),
    ("fr", "[fr] "),
    ("tlh", ""),
    ("es", ""),
)

requires_prometheus = pytest.mark.skipif(
    not installed(), reason="no Prometheus here; on Debian: apt-get install prometheus"
)


def script(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Two teachers of a kind, the second of which fails now and then, and one that always does."""
    at_times = {"kind": "error", "share": 0.05}
    bob = {"faults": [at_times], **model}
    return {"models": {"ada": model, "bob": bob, "dud": AWAY}}


def in_seconds(text: str) -> str:
    """Rules in which a second stands for a minute, so that a test need not wait."""
    text = re.sub(r"\b(\d+)h\b", lambda hours: f"{60 * int(hours[1])}m", text)
    return re.sub(r"\b(\d+)m\b", r"\1s", text)


def filled_in(expression: str) -> str:
    """An expression as Grafana sends it, with everything chosen."""
    everything = {"rate_interval": "5s", "range": "30s"}
    for name, value in everything.items():
        expression = expression.replace(f"$__{name}", value)
    for name, variable in VARIABLES.items():
        expression = expression.replace(f"${name}", variable.get("allValue", ""))
    assert "$" not in expression
    return expression


@dataclass(frozen=True, slots=True)
class Scene:
    """A server under load, its teachers, and who watches it."""

    server: Served
    teachers: MockServer
    prometheus: Prometheus

    @property
    def instance(self) -> str:
        return urlsplit(self.server.metrics).netloc


@contextmanager
def load(address: str) -> Iterator[None]:
    """Asks again and again, whatever the answers are."""
    stopped, number = threading.Event(), count()

    def ask(language: str, prefix: str) -> None:
        with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
            stub = ArbitrageServiceStub(channel)
            while not stopped.is_set():
                turn = next(number)
                text = f"{prefix}Why is that so, and since when? {turn}" if turn % 50 else ""
                request = pb.CompleteRequest(prompt=pb.Prompt(text=text, language=language))
                try:
                    stub.Complete(request, timeout=3)
                except grpc.RpcError:
                    stopped.wait(0.02)

    threads = [threading.Thread(target=ask, args=client) for client in ASKED]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    text = CONFIG.format(folder=folder, model=make_classifier(folder / "model"))
    config = folder / "config.toml"
    with ExitStack() as stack:
        teachers = stack.enter_context(mock_teacher(script(WELL)))
        for name, languages in (("ada", ""), ("bob", ""), ("dud", '"fr"')):
            text += TEACHER.format(name=name, languages=languages, url=teachers.base_url)
        config.write_text(text, "utf-8")
        server = stack.enter_context(served(config))
        watching = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
        watching["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        (job,) = watching["scrape_configs"]
        job["static_configs"] = [{"targets": [urlsplit(server.metrics).netloc]}]
        watching["rule_files"].append("templates.yml")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(watching), "utf-8")
        rules = (FOLDER / "alerts.yml").read_text("utf-8")
        (folder / "alerts.yml").write_text(in_seconds(rules), "utf-8")
        # every text filled in, whether or not there is a reason to
        always = [
            {**rule, "alert": f"Always{rule['alert']}", "expr": "arbitrage_in_flight_prompts >= 0"}
            for rule in yaml.safe_load(in_seconds(rules))["groups"][0]["rules"]
        ]
        groups = {"groups": [{"name": "always", "rules": [r | {"for": "0s"} for r in always]}]}
        (folder / "templates.yml").write_text(yaml.safe_dump(groups), "utf-8")
        watcher = stack.enter_context(prometheus(folder / "prometheus.yml", folder / "storage"))
        stack.enter_context(load(server.address))
        scene = Scene(server, teachers, watcher)
        german = 'sum(arbitrage_fan_out_count{language="de"})'
        watcher.until(
            lambda: any(v > 220 for _, v in watcher.values(german)), "220 prompts in German"
        )
        teachers.script(script(LONGER))
        shifted = 'arbitrage_reward_shift{language="de"}'
        watcher.until(lambda: watcher.values(shifted), "answers of another length shift the scores")
        yield scene


def names(expressions: Mapping[str, str]) -> set[str]:
    return {name for text in expressions.values() for name in NAME.findall(text)}


@pytest.mark.parametrize("check", [("config", "prometheus.yml"), ("rules", "alerts.yml")])
@requires_prometheus
def test_the_files_of_prometheus_are_right(check: tuple[str, str]) -> None:
    kind, file = check
    assert "SUCCESS" in promtool("check", kind, FOLDER / file)


@requires_prometheus
def test_each_alert_fires_when_it_should_and_no_other_does() -> None:
    file = FOLDER / "alerts_test.yml"
    promtool("test", "rules", file)
    fired = set(re.findall(r'alertname="(\w+)"', file.read_text("utf-8")))
    assert fired == {rule["alert"] for rule in ALERTS}


def test_each_alert_tells_what_to_do() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["annotations"]["description"].endswith(".")


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Overview", "Languages", "Teachers", "Reward", "Cost", "Sink"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert x < 24
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        if panel["type"] == "timeseries":
            assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("query", QUERIES)
@requires_prometheus
def test_a_panel_shows_something(scene: Scene, query: str) -> None:
    expression = filled_in(QUERIES[query])

    def shown() -> bool:
        return any(math.isfinite(value) for _, value in scene.prometheus.values(expression))

    scene.prometheus.until(shown, expression)


@pytest.mark.parametrize("name", ANNOTATIONS)
@requires_prometheus
def test_an_annotation_marks_something(scene: Scene, name: str) -> None:
    expression = filled_in(ANNOTATIONS[name])
    scene.prometheus.until(lambda: scene.prometheus.values(expression), expression)


@pytest.mark.parametrize("name", ["instance", "language", "teacher"])
@requires_prometheus
def test_a_variable_has_values_to_choose_from(scene: Scene, name: str) -> None:
    asked = re.fullmatch(r"label_values\((.+), (\w+)\)", VARIABLES[name]["query"]["query"])
    assert asked
    series, label = filled_in(asked[1]), asked[2]
    values = scene.prometheus.ask(f"label/{label}/values", **{"match[]": series})
    wanted = {
        "instance": {scene.instance},
        "language": {"de", "fr", "es", "other"},
        "teacher": {"ada", "bob", "dud"},
    }
    assert set(values) == wanted[name]


@requires_prometheus
def test_panels_and_alerts_know_only_what_a_server_exposes(scene: Scene) -> None:
    exposed = set(scene.prometheus.ask("label/__name__/values"))
    alerts = {rule["alert"]: rule["expr"] for rule in ALERTS}
    assert names(QUERIES) | names(ANNOTATIONS) | names(alerts) <= exposed


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
@requires_prometheus
def test_an_alert_can_be_asked_for_and_its_text_be_filled_in(
    scene: Scene, rule: Mapping[str, Any]
) -> None:
    scene.prometheus.values(rule["expr"])
    name = f"Always{rule['alert']}"
    scene.prometheus.until(lambda: (name, scene.instance) in scene.prometheus.firing(), name)
    told = scene.prometheus.firing()[name, scene.instance]
    assert "error" not in "".join(told.values()).replace("errors", "")
    assert "{{" not in "".join(told.values())


@requires_prometheus
def test_an_outage_fires_the_right_alert(scene: Scene) -> None:
    watcher, instance = scene.prometheus, scene.instance
    watcher.until(lambda: ("ArbitrageTeacherDown", "dud") in watcher.firing(), "one is away")
    fired = watcher.firing()
    assert ("ArbitrageTeacherDown", "ada") not in fired
    assert ("ArbitrageAllTeachersDown", instance) not in fired
    assert ("ArbitrageErrors", instance) not in fired

    scene.teachers.script(script(AWAY))
    gone = (
        ("ArbitrageAllTeachersDown", instance),
        ("ArbitrageTeacherDown", "ada"),
        ("ArbitrageTeacherDown", "bob"),
        ("ArbitrageErrors", instance),
    )
    watcher.until(lambda: all(one in watcher.firing() for one in gone), gone)
    fired = watcher.firing()
    assert "no teacher" in fired["ArbitrageAllTeachersDown", instance]["summary"]
    assert ("ArbitrageDown", instance) not in fired

    scene.server.stop(signal.SIGKILL)
    watcher.until(lambda: ("ArbitrageDown", instance) in watcher.firing(), "the server is gone")
