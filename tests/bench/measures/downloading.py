"""Downloads of 1 GB, and what nginx in front of Packhouse makes of them with and without X-Accel-Redirect."""

from __future__ import annotations

import html
import re
import subprocess
import time
from urllib.parse import urljoin, urlsplit

from tests.bench import process
from tests.bench.corpus import BIG, TINY
from tests.bench.load import load_pages
from tests.bench.measures import Plan
from tests.bench.targets import Target, serving
from tests.bench.targets.front import NginxInFront
from tests.bench.targets.nginx import Nginx
from tests.bench.targets.product import Packhouse


def measure_downloads(plan: Plan) -> None:
    """Row 9: a file of 1 GB, for one client and for four."""
    targets: list[Target] = [Packhouse(), Nginx()]
    with serving(targets, BIG):
        _note_big_downloads(plan, targets)


def measure_behind_nginx(plan: Plan) -> None:
    """The same through nginx that passes everything on, or takes files from the disk itself."""
    targets: list[Target] = [NginxInFront("proxied"), NginxInFront("x-accel", x_accel=True)]
    with serving(targets, BIG):
        _note_big_downloads(plan, targets)
    with serving(targets, TINY):
        for _ in range(plan.rounds):
            for target in targets:
                files = [file_address(target, project) for project in TINY.project_names()]
                plan.records.note("small-downloads", target.name, **load_pages(target, files, 8, plan.seconds))


def _note_big_downloads(plan: Plan, targets: list[Target]) -> None:
    for _ in range(plan.rounds):
        for clients in (1, 4):
            for target in targets:
                address = f"http://127.0.0.1:{target.port}{file_address(target, 'bench-00000')}"
                process.forget_peak(target.pid)
                cpu, begun = process.processor_seconds(target.pid), time.perf_counter()
                command = ["curl", "-sf", "-o", "/dev/null", "-w", "%{size_download}", address]
                curls = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(clients)]
                size = sum(int(curl.communicate(timeout=300)[0]) for curl in curls)
                seconds = time.perf_counter() - begun
                if any(curl.returncode for curl in curls):
                    raise RuntimeError(f"{target.name} does not serve {address}")
                plan.records.note(
                    f"downloads-{clients}",
                    target.name,
                    mb_per_second=size / 1e6 / seconds,
                    cpu_seconds=(process.processor_seconds(target.pid) - cpu) / clients,
                    peak_mb=process.memory(target.pid, peak=True),
                )


def file_address(target: Target, project: str) -> str:
    """Return the address of a project's first file, as its page links to it."""
    page = target.page(project)
    link = re.search(r'href="([^"]+\.whl)[^"]*"', target.connect().get(page).body.decode())
    if link is None:
        raise RuntimeError(f"{target.name} links to no wheel on {page}")
    return urlsplit(urljoin(f"http://127.0.0.1{page}", html.unescape(link[1]))).path
