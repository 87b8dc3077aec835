"""What 100,000 files cost beside 100: starting, pages, uploads, memory, and the pages for people."""

from __future__ import annotations

import time

from storage.files import set_syncing
from storage.registry import Registry
from storage.tokens import Scope
from tests.bench import process
from tests.bench.connection import request_head
from tests.bench.corpus import LARGE, SMALL, TINY
from tests.bench.load import load_pages, load_uploads, new_uploads, send
from tests.bench.measures import Plan
from tests.bench.measures.reading import NO_CACHE
from tests.bench.targets import Target, serving
from tests.bench.targets.product import ORG, Packhouse, PrivatePackhouse
from tests.conftest import TESTER

SIZES = {"few": TINY, "many": LARGE}  # 100 files and 100,000, five in each project
TOUCHED = TINY.projects  # pages that are asked for after a start
UPLOADS = 6000  # after which memory is looked at
MANY_TOKENS = 10_000


def measure_starts(plan: Plan) -> None:
    """Rows 4, 11 and 13: a new process, its first pages, and its memory."""
    target = Packhouse()
    with serving([target], LARGE):
        _wait_until_all_is_read(target)  # where the corpus has just been made, nothing is derived yet
    for _ in range(plan.rounds):
        for name, corpus in SIZES.items():
            target = Packhouse()
            with serving([target], corpus):
                first = _get_ms(target, target.page(corpus.project_names()[-1]))
                start = (time.perf_counter() - target.started) * 1000
                time.sleep(0.3)
                plan.records.note("start", name, start_ms=start, first_ms=first, idle_mb=process.memory(target.pid))
                touches = [_get_ms(target, target.page(project)) for project in corpus.project_names(TOUCHED)]
                plan.records.note("start", name, touch_ms=sorted(touches)[len(touches) // 2])
                if corpus is LARGE:
                    _note_pages_for_people(plan, target)


PEOPLE = f"/{ORG}/{Packhouse.repo}/"  # the repository's page


def _note_pages_for_people(plan: Plan, target: Target) -> None:
    for name, address in (("repository", PEOPLE), ("search", f"{PEOPLE}?q=bench-012")):
        first = _get_ms(target, address)
        warm = sorted(_get_ms(target, address) for _ in range(10))[5]
        plan.records.note("people", name, first_ms=first, warm_ms=warm)


def _wait_until_all_is_read(target: Target) -> None:
    while b"not been read yet" in target.connect().get(PEOPLE).body:
        time.sleep(1)


def measure_memory(plan: Plan) -> None:
    """Row 11: memory after every page of 100,000 files, and after many uploads; each once, in a new process."""
    target = Packhouse()
    with serving([target], LARGE):
        connection = target.connect()
        for project in LARGE.project_names():
            send(connection, request_head("GET", target.page(project), {"Accept": "text/html"}))
        plan.records.note("memory", "every-page", mb=process.memory(target.pid))
    with serving([target], LARGE, writable=True):
        load_uploads(target, new_uploads(target, UPLOADS), 8, 120)
        plan.records.note("memory", "uploads", mb=process.memory(target.pid))
    (target.load(LARGE) / ORG / target.repo / ".summaries.json").unlink(missing_ok=True)  # as after an import
    with serving([target], LARGE):
        begun = time.monotonic()
        plan.records.note("people", "repository", built_ms=_get_ms(target, PEOPLE))
        _wait_until_all_is_read(target)  # whoever measures next has the file again
        plan.records.note("people", "repository", all_read_s=time.monotonic() - begun)


def measure_growth(plan: Plan) -> None:
    """Row 4: hot pages, pages through Flask and uploads, with few files and with many."""
    targets = {name: Packhouse(f"packhouse-{name}") for name in SIZES}
    slow = {name: Packhouse(f"packhouse-uncached-{name}", **NO_CACHE) for name in SIZES}
    started: list[Target] = []
    try:
        for name, corpus in SIZES.items():
            for target, writable in ((targets[name], True), (slow[name], False)):
                target.start(corpus, writable=writable)
                started.append(target)
        for _ in range(plan.rounds):
            for name in SIZES:
                _note_costs(plan, name, targets[name], slow[name])
    finally:
        for target in started:
            target.stop()


def _note_costs(plan: Plan, name: str, target: Target, slow: Target) -> None:
    pages = [target.page(project) for project in TINY.project_names()]
    for measure, asked in (("hot", target), ("flask", slow)):
        load_pages(asked, pages, 2, 1)
        plan.records.note(f"grown-{measure}", name, **load_pages(asked, pages, 8, plan.seconds))
    done = load_uploads(target, new_uploads(target, 1000), 1, plan.seconds)
    plan.records.note("grown-uploads", name, upload_ms=1000 / done.rate)


def measure_processes(plan: Plan) -> None:
    """How pages through Flask and uploads grow with processes."""
    targets = [Packhouse(f"packhouse-{n}", "--processes", str(n), **NO_CACHE) for n in (1, 2)]
    with serving(targets, SMALL, writable=True):
        for _ in range(plan.rounds):
            for n, target in enumerate(targets, 1):
                pages = [target.page(project) for project in SMALL.project_names()]
                load_pages(target, pages, 8, 1)
                plan.records.note("processes", str(n), **load_pages(target, pages, 8, plan.seconds))
                done = load_uploads(target, new_uploads(target, 2000), 8, plan.seconds)
                plan.records.note("processes", str(n), uploads_per_second=done.rate)


def measure_tokens(plan: Plan) -> None:
    """What the number of tokens costs a page that is asked for with one of them."""
    few, many = PrivatePackhouse("few-tokens", **NO_CACHE), PrivatePackhouse("many-tokens", **NO_CACHE)
    with serving([few, many], SMALL, writable=True):
        _add_tokens(many)
        pages = [few.page(project) for project in SMALL.project_names()]
        for _ in range(plan.rounds):
            for target in (few, many):
                plan.records.note("tokens", target.name, **load_pages(target, pages, 8, plan.seconds))


def _add_tokens(target: Packhouse) -> None:
    set_syncing(False)
    tokens = Registry(target.data).tokens
    for _ in range(MANY_TOKENS):
        tokens.create(ORG, target.repo, frozenset({Scope.READ_PACKAGES}), TESTER, description="bench")
    set_syncing(True)


def _get_ms(target: Target, address: str) -> float:
    return send(target.connect(), request_head("GET", address, {"Accept": "text/html"}))
