"""The table of ratios: what was to be reached, and what the medians of a run say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.bench.records import Records

Figure = Callable[[Records], float | None]


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing to reach."""

    row: int
    what: str
    figure: Figure
    limit: float | None = None  # None: said for comparison
    at_least: bool = False  # the limit is the least; otherwise it is the most
    unit: str = "x"

    @property
    def target(self) -> str:
        """The limit in words."""
        if self.limit is None:
            return "-"
        return f"{'at least' if self.at_least else 'at most'} {_shown(self.limit, self.unit)}"

    def verdict(self, figure: float | None) -> str:
        """Whether *figure* reaches it."""
        if figure is None or self.limit is None:
            return "-"
        reached = figure >= self.limit if self.at_least else figure <= self.limit
        return "yes" if reached else "**no**"


def one(measure: str, target: str, figure: str) -> Figure:
    """Return a figure as it was measured."""
    return lambda records: records.median(measure, target, figure)


def ratio(measure: str, figure: str, of: str, to: str) -> Figure:
    """Return the figure of one target over that of another."""

    def figure_of(records: Records) -> float | None:
        above, below = records.median(measure, of, figure), records.median(measure, to, figure)
        return above / below if above is not None and below else None

    return figure_of


def least(claim: Claim) -> Claim:
    """Return the claim with its limit as the least."""
    return Claim(claim.row, claim.what, claim.figure, claim.limit, True, claim.unit)


def pages_beside(of: str, to: str) -> Figure:
    """Return pages per second of one target over those of another, at 8 connections."""
    return ratio("pages", "pages_per_second", of, to)


CLAIMS = (
    least(Claim(1, "hot page, 8 connections, to nginx", pages_beside("packhouse", "nginx"), 0.8)),
    least(Claim(1, "the same to devpi", pages_beside("packhouse", "devpi"), 80)),
    least(Claim(1, "private, with a token, to nginx", pages_beside("packhouse-private", "nginx"), 0.6)),
    Claim(1, "pypiron to nginx", pages_beside("pypiron", "nginx")),
    Claim(1, "Packhouse to pypiserver", pages_beside("packhouse", "pypiserver")),
    Claim(2, "CPU per hot page", one("pages", "packhouse", "cpu_us"), 18, unit="us"),
    Claim(2, "CPU per hot page, private", one("pages", "packhouse-private", "cpu_us"), unit="us"),
    Claim(2, "CPU per page, nginx", one("pages", "nginx", "cpu_us"), unit="us"),
    Claim(2, "CPU per page, pypiron", one("pages", "pypiron", "cpu_us"), unit="us"),
    Claim(2, "p99 at 64 connections to nginx's", ratio("crowd", "p99_ms", "packhouse", "nginx"), 2),
    Claim(2, "p99 at 64 connections to pypiron's", ratio("crowd", "p99_ms", "packhouse", "pypiron"), 1),
    least(Claim(3, "page through Flask to the hello world", pages_beside("packhouse-uncached", "hello"), 0.7)),
    Claim(4, "hot page, 100,000 files to 100", ratio("grown-hot", "cpu_us", "many", "few"), 1.25),
    Claim(4, "page through Flask, the same", ratio("grown-flask", "cpu_us", "many", "few"), 1.25),
    Claim(4, "first touch of a page, the same", ratio("start", "touch_ms", "many", "few"), 1.25),
    Claim(4, "upload, the same", ratio("grown-uploads", "upload_ms", "many", "few"), 1.25),
    Claim(4, "start, the same", ratio("start", "start_ms", "many", "few"), 1.25),
    Claim(5, "CPU of a 304 to a 200", ratio("conditional", "cpu_us", "not-modified", "full"), 1),
    least(Claim(5, "the connection is kept (1: yes)", one("conditional", "not-modified", "kept"), 1, unit="")),
    least(Claim(6, "5,000 files, gzip, to nginx", ratio("huge", "pages_per_second", "packhouse", "nginx"), 0.8)),
    Claim(6, "first touch", one("huge", "packhouse", "first_ms"), 150, unit="ms"),
    Claim(6, "the very first, nothing derived yet", one("huge", "packhouse", "underived_ms"), unit="ms"),
    Claim(6, "after one more upload, gzip", one("huge", "packhouse", "after_upload_ms"), 20, unit="ms"),
    Claim(6, "the same without gzip", one("huge", "packhouse", "after_upload_plain_ms"), unit="ms"),
    least(Claim(7, "small uploads to devpi", ratio("uploads-1", "per_second", "packhouse", "devpi"), 3)),
    least(Claim(7, "small uploads to pypiron", ratio("uploads-1", "per_second", "packhouse", "pypiron"), 1.3)),
    Claim(7, "CPU per upload", one("uploads-1", "packhouse", "cpu_ms"), unit="ms"),
    least(Claim(7, "eight clients to one", lambda records: _eight_to_one(records), 1)),
    least(Claim(8, "upload of 1 GB to plain Flask", ratio("big-upload", "mb_per_second", "packhouse", "hello"), 5)),
    least(Claim(8, "upload of 1 GB to pypiron", ratio("big-upload", "mb_per_second", "packhouse", "pypiron"), 2)),
    Claim(8, "memory rises by", one("big-upload", "packhouse", "rise_mb"), 16.8, unit="MB"),
    least(Claim(9, "download of 1 GB to nginx", ratio("downloads-1", "mb_per_second", "packhouse", "nginx"), 0.9)),
    least(Claim(9, "four at once to nginx", ratio("downloads-4", "mb_per_second", "packhouse", "nginx"), 0.9)),
    Claim(9, "memory with four", one("downloads-4", "packhouse", "peak_mb"), 90, unit="MB"),
    Claim(10, "pages that lacked a new file", one("appearance", "packhouse", "misses"), 0, unit=""),
    Claim(10, "the same, two processes", one("appearance", "packhouse-processes", "misses"), 0, unit=""),
    least(
        Claim(
            10, "9 pages : 1 upload, pages to devpi", ratio("mixed", "pages_per_second", "packhouse", "devpi"), 12
        )
    ),
    least(Claim(10, "the same to pypiron", ratio("mixed", "pages_per_second", "packhouse", "pypiron"), 1)),
    Claim(10, "p99 of a page meanwhile", one("mixed", "packhouse", "p99_ms"), 5, unit="ms"),
    Claim(10, "p99 of pypiron", one("mixed", "pypiron", "p99_ms"), unit="ms"),
    Claim(11, "first page after process start", one("start", "many", "start_ms"), 250, unit="ms"),
    Claim(11, "idle memory", one("start", "many", "idle_mb"), 50, unit="MB"),
    Claim(11, "after every page was read", one("memory", "every-page", "mb"), 150, unit="MB"),
    Claim(11, "after 6,000 uploads", one("memory", "uploads", "mb"), 100, unit="MB"),
    Claim(12, "pip, 100 packages, to nginx", lambda records: _install(records, "pip"), 1.25),
    Claim(12, "uv, 100 packages, to nginx", lambda records: _install(records, "uv"), 1.4),
    Claim(13, "repository page, warm", one("people", "repository", "warm_ms"), 100, unit="ms"),
    Claim(13, "repository page, first", one("people", "repository", "first_ms"), 400, unit="ms"),
    Claim(13, "the very first, nothing derived yet", one("people", "repository", "built_ms"), unit="ms"),
    Claim(13, "and until all projects are on it", one("people", "repository", "all_read_s"), unit="s"),
    Claim(13, "search, warm", one("people", "search", "warm_ms"), 100, unit="ms"),
    Claim(13, "search, first", one("people", "search", "first_ms"), 400, unit="ms"),
)


def _eight_to_one(records: Records) -> float | None:
    eight = records.median("uploads-8", "packhouse", "per_second")
    one_client = records.median("uploads-1", "packhouse", "per_second")
    return eight / one_client if eight is not None and one_client else None


def _install(records: Records, client: str) -> float | None:
    ours = records.median("installing", f"{client}-packhouse", "seconds")
    nginx = records.median("installing", f"{client}-nginx", "seconds")
    return ours / nginx if ours is not None and nginx else None


def table(records: Records) -> str:
    """Return the table in Markdown."""
    rows = [("#", "what", "to reach", "measured", "reached")]
    for claim in CLAIMS:
        figure = claim.figure(records)
        measured = "not measured" if figure is None else _shown(figure, claim.unit)
        rows.append((str(claim.row), claim.what, claim.target, measured, claim.verdict(figure)))
    return _aligned(rows)


def _shown(figure: float, unit: str) -> str:
    if figure == int(figure) or abs(figure) >= 100:
        digits = f"{figure:,.0f}"
    else:
        digits = f"{figure:.2f}" if abs(figure) < 10 else f"{figure:.1f}"
    return f"{digits} {unit}".rstrip()


def _aligned(rows: Iterable[tuple[str, ...]]) -> str:
    lines = list(rows)
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    shown = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in lines
    ]
    shown.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(shown) + "\n"
