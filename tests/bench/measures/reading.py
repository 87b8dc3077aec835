"""Index pages under load: hot, through Flask, conditional, and those of a project with 5,000 files."""

from __future__ import annotations

import time

from tests.bench.connection import Connection
from tests.bench.corpus import HUGE, SMALL, TINY
from tests.bench.load import load_pages, send
from tests.bench.measures import Plan
from tests.bench.targets import Target, serving
from tests.bench.targets.devpi import Devpi
from tests.bench.targets.hello import Hello
from tests.bench.targets.nginx import Nginx
from tests.bench.targets.product import Packhouse, PrivatePackhouse
from tests.bench.targets.pypiron import Pypiron
from tests.bench.targets.pypiserver import Pypiserver

NO_CACHE = {"PACKHOUSE_PAGE_CACHE_SIZE": "0"}  # every page goes through Flask
WARMING = 5  # seconds until the page of 5,000 files is there
CROWD = 64  # connections, where the slowest answers count


def measure_pages(plan: Plan) -> None:
    """Rows 1, 2 and 3: pages of a small repository."""
    targets: list[Target] = [Packhouse(), Packhouse("packhouse-uncached", **NO_CACHE), Hello()]
    if not plan.quick:
        peers: list[Target] = [Nginx(), Devpi(), Pypiserver(), Pypiron()]
        targets += [PrivatePackhouse("packhouse-private"), *peers]
    corpus = TINY if plan.quick else SMALL
    with serving(targets, corpus):
        for target in targets if not plan.quick else ():  # so that what can be kept is kept
            load_pages(target, _pages(target), connections=2, seconds=1)
        for _ in range(plan.rounds):
            for target in targets:
                figures = load_pages(target, _pages(target), 8, plan.seconds)
                plan.records.note("pages", target.name, **figures)
            for target in targets if not plan.quick else ():
                figures = load_pages(target, _pages(target), CROWD, plan.seconds)
                plan.records.note("crowd", target.name, **figures)


def _pages(target: Target) -> list[str]:
    return [target.page(project) for project in SMALL.project_names(TINY.projects)]


def measure_conditional(plan: Plan) -> None:
    """Row 5: pages that the client has already."""
    target = Packhouse()
    with serving([target], TINY):
        page = target.page("bench-00000")
        etag = target.connect().get(page).headers["etag"]
        connection = target.connect()
        answers = [connection.get(page, If_None_Match=etag) for _ in range(2)]
        kept = all(answer.status == 304 and answer.headers.get("connection") != "close" for answer in answers)
        time.sleep(0.1)
        for _ in range(plan.rounds):
            for name, headers in (("full", {}), ("not-modified", {"If-None-Match": etag})):
                figures = load_pages(target, [page], 8, plan.seconds, headers)
                plan.records.note("conditional", name, kept=float(kept), **figures)


# Seconds. Copying a corpus by links touches all files of it, and what was touched just now is read again.
SETTLING = 3


def measure_huge(plan: Plan) -> None:
    """Row 6: the page of a project with 5,000 files, gzipped."""
    packhouse, nginx = Packhouse(), Nginx()
    gzipped = {"Accept-Encoding": "gzip"}
    for derived in packhouse.load(HUGE).glob("*/*/.index/*.jsonl"):
        derived.unlink()
    with serving([packhouse], HUGE):
        plan.records.note("huge", "packhouse", underived_ms=_time(packhouse, gzip=True))
    for _ in range(plan.rounds):
        with serving([packhouse], HUGE):
            plan.records.note("huge", "packhouse", first_ms=_time(packhouse, gzip=True))
    with serving([packhouse, nginx], HUGE):
        load_pages(packhouse, [packhouse.page("bench-00000")], 1, WARMING, gzipped)
        for _ in range(plan.rounds):
            for target in (packhouse, nginx):
                figures = load_pages(target, [target.page("bench-00000")], 8, plan.seconds, gzipped)
                plan.records.note("huge", target.name, **figures)
    with serving([packhouse], HUGE, writable=True):
        time.sleep(SETTLING)
        connection = packhouse.connect()
        for i in range(max(3, plan.rounds)):
            _time(packhouse, gzip=True)
            send(connection, packhouse.upload("bench-00000", f"9.0.{i}"))
            for name, gzip in (("after_upload_ms", True), ("after_upload_plain_ms", False)):
                plan.records.note("huge", "packhouse", **{name: _time(packhouse, gzip=gzip)})


def _time(target: Target, *, gzip: bool) -> float:
    connection: Connection = target.connect()
    headers = {"Accept_Encoding": "gzip"} if gzip else {}
    begun = time.perf_counter()
    answer = connection.get(target.page("bench-00000"), **headers)
    taken = (time.perf_counter() - begun) * 1000
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{target.name} answered {answer.status}")
    return taken
