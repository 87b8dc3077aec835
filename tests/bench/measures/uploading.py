"""Uploads: small ones, one of 1 GB, and small ones among pages."""

from __future__ import annotations

import hashlib
import subprocess
import time
from pathlib import Path

from tests.bench import process
from tests.bench.connection import basic, twine_fields
from tests.bench.corpus import BIG, BIG_VERSION, MIB, SMALL, TINY, folder_of
from tests.bench.load import load_mixed, load_uploads, new_uploads, send
from tests.bench.measures import Plan
from tests.bench.targets import Target, serving
from tests.bench.targets.devpi import Devpi
from tests.bench.targets.hello import Hello
from tests.bench.targets.product import Packhouse
from tests.bench.targets.pypiron import Pypiron

MOST = 2000  # requests that are made ready for one load
MOST_MIXED = 8000  # uploads among pages; where they come to their end, only pages would be left
PATIENCE = 10  # seconds until a page has to show a new file


def measure_uploads(plan: Plan) -> None:
    """Row 7: new small wheels, fsync on, from one client and from eight."""
    targets: list[Target] = [Packhouse(), Devpi(), Pypiron()]
    with serving(targets, SMALL, writable=True):
        for _ in range(plan.rounds):
            for target in targets:
                for clients in (1, 8):
                    requests = new_uploads(target, MOST)
                    before = process.processor_seconds(target.pid)
                    done = load_uploads(target, requests, clients, plan.seconds)
                    cpu = (process.processor_seconds(target.pid) - before) / len(done.taken)
                    figures = {"per_second": done.rate, "cpu_ms": cpu * 1000, "p99_ms": done.percentile(99)}
                    plan.records.note(f"uploads-{clients}", target.name, **figures)


def measure_big_upload(plan: Plan) -> None:
    """Row 8: a wheel of 1 GB, by curl."""
    file = next(folder_of(BIG).glob("*/*"))
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    for _ in range(plan.rounds):
        for target in (Packhouse(), Hello(), Pypiron()):
            with serving([target], TINY, writable=True):
                load_uploads(target, new_uploads(target, 5) if target.name != "hello" else [], 1, 5)
                form = twine_fields("bench-00000", BIG_VERSION, sha256).items()
                fields = [part for name, value in form for part in ("-F", f"{name}={value}")]
                command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect:", *fields]
                authorization = f"Authorization: {basic(target.user, target.password)}"
                command += ["-H", authorization, "-F", f"{target.file_field}=@{file}"]
                process.forget_peak(target.pid)
                memory, begun = process.memory(target.pid), time.perf_counter()
                address = f"http://127.0.0.1:{target.port}{target.upload_address()}"
                done = subprocess.run([*command, address], capture_output=True, text=True, check=True, timeout=300)
                taken = time.perf_counter() - begun
                if done.stdout != "200":
                    raise RuntimeError(f"{target.name} answered {done.stdout} to an upload of 1 GB")
                rise = process.memory(target.pid, peak=True) - memory
                mb_per_second = file.stat().st_size / 1e6 / taken
                plan.records.note("big-upload", target.name, mb_per_second=mb_per_second, rise_mb=rise)
                _remove_large_files(target.data)


def _remove_large_files(folder: Path) -> None:
    """Do not keep gigabytes until the benchmark ends."""
    for file in folder.rglob("*"):
        if file.is_file() and file.stat().st_size > MIB:
            file.unlink()


def measure_mixed(plan: Plan) -> None:
    """Row 10: how soon a new file is on its page, and nine pages for each upload from eight clients."""
    targets: list[Target] = [Packhouse(), Devpi(), Pypiron()]
    with serving(targets, SMALL, writable=True):
        for target in targets:
            _note_appearance(plan, target)
        for _ in range(plan.rounds):
            for target in targets:
                pages = [target.page(project) for project in SMALL.project_names()]
                uploads = new_uploads(target, MOST_MIXED)
                read, uploaded = load_mixed(target, pages, uploads, 8, 2 * plan.seconds)
                figures = {"pages_per_second": read.rate, "p99_ms": read.percentile(99)}
                plan.records.note("mixed", target.name, uploads_per_second=uploaded.rate, **figures)
    several = Packhouse("packhouse-processes", "--processes", "2")
    with serving([several], SMALL, writable=True):
        _note_appearance(plan, several)


def _note_appearance(plan: Plan, target: Target) -> None:
    """Upload, then ask for the page from several connections, and so from several processes where there are."""
    uploader, readers = target.connect(), [target.connect() for _ in range(8)]
    for i, project in enumerate(SMALL.project_names(10)):
        version = f"9.0.{i}"
        send(uploader, target.upload(project, version))
        begun, misses = time.perf_counter(), 0
        for reader in readers:
            while version.encode() not in reader.get(target.page(project)).body:
                misses += 1
                if time.perf_counter() - begun > PATIENCE:
                    raise RuntimeError(f"{target.name} does not show what was uploaded")
        plan.records.note("appearance", target.name, misses=misses)
