"""The metrics of a service after some requests: the dashboard and the alerts find all their series."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from openai import AuthenticationError, RateLimitError
from openai.types.chat import ChatCompletionUserMessageParam
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import RunningGateway, RunProxy, require
from tests.loopback import until

ROOT: Final = Path(__file__).parents[2]
ALERTS: Final = ROOT / "config/prometheus/alerts.yml"
DASHBOARD: Final = ROOT / "config/grafana/dashboard.json"
NAME: Final = re.compile(r"\b(?:llm_proxy|process)_\w+")
SELECTOR: Final = re.compile(r"(\b(?:llm_proxy|process)_\w+)\{([^}]*)\}")
LABEL: Final = re.compile(r"(\w+)(?:=~|!~|!=|=)")
GROUPING: Final = re.compile(r"by \(([\w, ]+)\)")
ADDED_BY_PROMETHEUS: Final = {"job", "instance"}
LIMITED: Final = "sk-limited-1b7a90"
MORE: Final = f"""
[[access.keys]]
name = "limited"
key = "{LIMITED}"
rate = "1/hour"
max_streams = 3
"""
WHO: Final[list[ChatCompletionUserMessageParam]] = [{"role": "user", "content": "你是谁"}]


@pytest.fixture
async def scrape(run_proxy: RunProxy, gateway: RunningGateway) -> str:
    """Return the text of `/metrics` after streams, embeddings and rejected requests."""
    options = "breaker = { failures = 3 }"
    async with run_proxy(gateway.url, credential=gateway.credential, options=options, more=MORE) as proxy:
        await until(lambda: proxy.services.credentials["corp"].source.remaining is not None)
        tester, limited, stranger = proxy.client(), proxy.client(LIMITED), proxy.client("sk-unknown")
        for client in (tester, limited):
            stream = await client.chat.completions.create(
                model="m", messages=WHO, stream=True, stream_options={"include_usage": True}
            )
            assert [chunk async for chunk in stream]
        await tester.embeddings.create(model="e", input="一")
        with pytest.raises(RateLimitError):
            await limited.models.list()
        with pytest.raises(AuthenticationError):
            await stranger.models.list()
        await until(lambda: len(proxy.exchanges) == 5)
        async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}/metrics") as response:
            return await response.text()


def families_of(text: str) -> dict[str, Metric]:
    """Return the families of a scrape by the names of their samples."""
    families = text_string_to_metric_families(text)
    return {sample.name: family for family in families for sample in family.samples}


def value_of(text: str, name: str, **labels: str) -> float:
    """Return the value of one sample."""
    samples = families_of(text)[name].samples
    (value,) = (s.value for s in samples if s.name == name and s.labels.items() >= labels.items())
    return value


def dashboard_queries() -> list[str]:
    """Return the queries of all panels."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def promtool(*arguments: str, text: str = "") -> str:
    """Run promtool, which must find no fault, and return its output."""
    require("promtool", found=shutil.which("promtool") is not None)
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_each_request_is_counted_with_its_end(scrape: str) -> None:
    def requests(**labels: str) -> float:
        return value_of(scrape, "llm_proxy_requests_total", **labels)

    assert requests(caller="tester", endpoint="chat/completions", status="2xx", outcome="ok") == 1
    assert requests(caller="tester", endpoint="embeddings", status="2xx", outcome="ok") == 1
    assert requests(caller="limited", endpoint="chat/completions", status="2xx", outcome="ok") == 1
    assert requests(caller="limited", endpoint="unknown", outcome="rate_limit_exceeded") == 1
    assert requests(caller="unknown", endpoint="unknown", outcome="invalid_api_key") == 1
    assert value_of(scrape, "llm_proxy_limit_refusals_total", caller="limited", limit="requests") == 1
    assert value_of(scrape, "llm_proxy_streams", caller="tester") == 0
    assert value_of(scrape, "llm_proxy_streams_limit", caller="limited") == 3


def test_a_stream_is_measured(scrape: str) -> None:
    assert value_of(scrape, "llm_proxy_events_total", upstream="chat") > 4
    assert value_of(scrape, "llm_proxy_time_to_first_event_seconds_count", upstream="chat") == 2
    assert value_of(scrape, "llm_proxy_request_duration_seconds_count", endpoint="chat/completions") == 2
    assert value_of(scrape, "llm_proxy_sent_bytes_total", caller="tester") > 500
    assert value_of(scrape, "llm_proxy_received_bytes_total", caller="tester") > 50
    assert value_of(scrape, "llm_proxy_upstream_requests_running", upstream="chat") == 0


def test_a_token_shows_its_whole_lifetime(scrape: str) -> None:
    lifetime = value_of(scrape, "llm_proxy_token_lifetime_seconds", credential="corp")
    remaining = value_of(scrape, "llm_proxy_token_remaining_seconds", credential="corp")
    assert 0 < remaining < lifetime < 300


def test_prometheus_finds_no_fault_in_the_metrics(scrape: str) -> None:
    assert promtool("check", "metrics", text=scrape) == ""


def test_the_alerts_fire_when_they_should() -> None:
    assert f"{len(re.findall('- alert:', ALERTS.read_text()))} rules found" in promtool(
        "check", "config", str(ALERTS.with_name("prometheus.yml"))
    )
    tests = ROOT / "tests/config/alerts_test.yml"
    promtool("test", "rules", str(tests))
    tested = {*re.findall(r'alertname="(\w+)"', tests.read_text())}
    assert tested == {*re.findall(r"- alert: (\w+)", ALERTS.read_text())}


def test_alerts_and_dashboard_use_metrics_that_exist(scrape: str) -> None:
    families = families_of(scrape)
    texts = [ALERTS.read_text(), *dashboard_queries()]
    assert len(texts) > 20
    for text in texts:
        for name in NAME.findall(text):
            assert name in families, name
        for name, selector in SELECTOR.findall(text):
            labels = {label for sample in families[name].samples for label in sample.labels}
            assert {*LABEL.findall(selector)} <= labels | ADDED_BY_PROMETHEUS, f"{name}{{{selector}}}"
        named = {label for name in NAME.findall(text) for s in families[name].samples for label in s.labels}
        for grouping in GROUPING.findall(text):
            assert {*grouping.split(", ")} <= named | ADDED_BY_PROMETHEUS, text


def test_prometheus_understands_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel_{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(dashboard_queries())
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(tmp_path / "rules.yml"))
