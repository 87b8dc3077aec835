"""Measure Packhouse beside its peers and print the table of ratios.

``python -m tests.bench`` takes about twelve minutes, and some more when the corpora are made for the first time.
It needs wrk, nginx and curl; servers listen on 127.0.0.1 alone and are stopped at the end. Whatever else runs
meanwhile is measured with it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import click

from tests.bench.corpus import SCRATCH
from tests.bench.measures import Plan
from tests.bench.measures.downloading import measure_behind_nginx, measure_downloads
from tests.bench.measures.growing import (
    measure_growth,
    measure_memory,
    measure_processes,
    measure_starts,
    measure_tokens,
)
from tests.bench.measures.installing import measure_installing
from tests.bench.measures.reading import measure_conditional, measure_huge, measure_pages
from tests.bench.measures.uploading import measure_big_upload, measure_mixed, measure_uploads
from tests.bench.records import Records
from tests.bench.table import table

MEASURES = {
    "pages": measure_pages,
    "conditional": measure_conditional,
    "uploads": measure_uploads,
    "mixed": measure_mixed,
    "huge": measure_huge,
    "big-upload": measure_big_upload,
    "downloads": measure_downloads,
    "starts": measure_starts,
    "growth": measure_growth,
    "installing": measure_installing,
    "memory": measure_memory,
    "behind-nginx": measure_behind_nginx,
    "processes": measure_processes,
    "tokens": measure_tokens,
}


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True, help="Rounds, whose medians count.")
@click.option("--seconds", default=2, show_default=True, help="Seconds of each load.")
@click.option(
    "--only", type=click.Choice(list(MEASURES)), multiple=True, help="Measure this; can be given several times."
)
@click.option("--out", type=click.Path(path_type=Path), help="Append the figures to this file, as JSON lines.")
@click.option(
    "--quick", is_flag=True, help="Only hot pages of a few files beside the hello world, for one second each."
)
@click.option("--show", type=click.Path(path_type=Path), help="Measure nothing; print the table of these figures.")
def main(
    rounds: int, seconds: int, only: tuple[str, ...], out: Path | None, quick: bool, show: Path | None
) -> None:
    """Run the measures one after the other, and print the table."""
    if show is not None:
        click.echo(table(Records.read(show)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the servers are stopped on the way out
    SCRATCH.mkdir(parents=True, exist_ok=True)
    records = Records(out or SCRATCH / f"run-{time.strftime('%Y%m%dT%H%M%S')}.jsonl")
    plan = Plan(records, rounds=1, seconds=1, quick=True) if quick else Plan(records, rounds, seconds)
    for name in only or (["pages"] if quick else MEASURES):
        begun = time.monotonic()
        try:
            MEASURES[name](plan)
        except Exception as error:  # a peer that fails must not take the other rows with it
            click.echo(f"{name} failed: {str(error)[:500]}", err=True)
        click.echo(f"{name}: {time.monotonic() - begun:.0f} s", err=True)
    click.echo(table(records))
    click.echo(f"{os.cpu_count()} cores; load average while measuring at most {max(records.loads, default=0):.1f}")


main()
