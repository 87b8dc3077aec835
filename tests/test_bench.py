"""The benchmark of docs/performance.md runs; what it measures is no test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.soak import growth


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_the_quick_benchmark_prints_the_table_and_keeps_the_figures(tmp_path):
    out = tmp_path / "figures.jsonl"

    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--out", str(out)],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "BENCH_TMP": str(tmp_path / "bench")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0][1:-1]] == ["#", "what", "to reach", "measured", "reached"]
    measured = {row[2].strip(): row[4].strip() for row in rows[2:]}
    assert measured["page through Flask to the hello world"].endswith(" x")
    assert measured["the same to devpi"] == "not measured"
    targets = {json.loads(line)["target"] for line in out.read_text().splitlines()}
    assert targets == {"packhouse", "packhouse-uncached", "hello"}


def test_a_soak_tells_what_grew_and_forgives_what_levelled_off():
    level = [{"memory_mb": min(50.0, 30.0 + i), "descriptors": 15.0 + i % 2} for i in range(90)]
    leaking = [{"memory_mb": 50.0, "descriptors": 15.0 + i} for i in range(90)]

    assert growth(level) == []
    assert growth(leaking) == ["descriptors grew from 59.5 to 89.5"]
