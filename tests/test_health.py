"""What watches over the server: /healthz and /metrics."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.storage.makers import make_wheel
from web.metrics import Answers


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def samples(text: str) -> Counter[tuple[str, str]]:
    """Return what was counted, by name and status, of all methods together."""
    counted: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            counted[sample.name, sample.labels.get("status", "")] += sample.value
    return counted


def test_healthz_says_ok_to_anybody(client):
    answer = client.get("/healthz", buffered=True)

    assert answer.status_code == 200
    assert answer.text == "ok\n"


def test_metrics_count_what_was_answered(live_server):
    before = samples(get(f"{live_server.url}/metrics"))

    for _ in range(3):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{live_server.url}/static/nothing")

    deadline = time.monotonic() + 20  # an answer is counted a moment after it was sent
    grown = 0.0
    while grown < 3 and time.monotonic() < deadline:
        after = samples(get(f"{live_server.url}/metrics"))
        grown = after["packhouse_requests_total", "404"] - before["packhouse_requests_total", "404"]
    assert grown == 3
    assert after["packhouse_sent_bytes_total", ""] > before["packhouse_sent_bytes_total", ""]


def test_metrics_name_nobody(client, publish):
    publish(*make_wheel("secret-project"))

    assert "secret" not in client.get("/metrics", buffered=True).text


def test_invented_methods_do_not_make_the_counts_grow_for_ever():
    answers = Answers()
    for number in range(100):
        answers({"REQUEST_METHOD": f"X{number}"}, "405 METHOD NOT ALLOWED", 0, 0.0)

    assert samples(answers.text().decode())["packhouse_requests_total", "405"] == 100
    assert answers.text().count(b"packhouse_requests_total{") == 1
