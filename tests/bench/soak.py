"""Let one server work for a long time and look whether anything of it grows.

``python -m tests.bench.soak`` takes thirty minutes. Clients read pages in all kinds, download, upload, delete,
break off in the middle, come with wrong tokens, and look at pages for people; the repository keeps its size, all
the rest is new again and again. Memory, descriptors, threads and temporary files are noted meanwhile, and have to
be as low in the last third of the time as in the second.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import click

from tests.bench import process
from tests.bench.connection import Connection, basic, request_head
from tests.bench.corpus import SMALL, small_wheel
from tests.bench.load import send, together
from tests.bench.targets import serving
from tests.bench.targets.product import ORG, Packhouse

CLIENTS = 4
PAUSE = 0.004  # seconds between two requests of a client: the machine is to be busy, not full
PROJECTS = 20  # that files come to and go from
KEPT = 100  # files that came, until the oldest of them goes
MEMORY_SLACK = 3.0  # MB that the last third may take more than the second: arenas that are not full yet
KINDS = ("text/html", "application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html")
CODINGS = ("identity", "gzip", "zstd")

Sample = dict[str, float]


class Soak:
    """The clients of one server, and what they have done."""

    def __init__(self, target: Packhouse) -> None:
        """Come to *target*, which serves SMALL."""
        self.target = target
        self.done: dict[str, int] = {}  # requests by kind
        self._lock = threading.Lock()
        self._serial = 0
        self._came: deque[str] = deque()  # names of the files that were uploaded and not deleted yet
        self._token = basic("__token__", target.make_token("read_packages,delete_packages"))
        self._actions: list[tuple[Callable[[Connection, random.Random], None], int]] = [
            (self.read_page, 50),
            (self.read_page_again, 20),
            (self.read_list, 2),
            (self.download, 8),
            (self.upload_and_delete, 8),
            (self.look_at_pages_for_people, 2),
            (self.come_with_a_wrong_token, 3),
            (self.ask_for_nonsense, 3),
            (self.break_off_an_upload, 2),
            (self.break_off_a_download, 2),
        ]

    def run(self, seconds: float) -> None:
        """Let all clients work for so many seconds.

        :raises Exception: what one of them met.
        """
        deadline = time.monotonic() + seconds
        actions, weights = zip(*self._actions, strict=True)

        def work(number: int) -> None:
            chance, connection = random.Random(number), self.target.connect()
            while time.monotonic() < deadline:
                (action,) = chance.choices(actions, weights)
                action(connection, chance)
                with self._lock:
                    self.done[action.__name__] = self.done.get(action.__name__, 0) + 1
                if chance.random() < 0.01:
                    connection.close()
                time.sleep(PAUSE)

        together(CLIENTS, work)

    # what clients do

    def read_page(self, connection: Connection, chance: random.Random) -> None:
        """A project's page in some type and coding; one of ten clients calls itself as nobody did before."""
        agent = f"soak/{chance.random()}" if chance.random() < 0.1 else "pip/26.0"
        page = self.target.page(chance.choice(SMALL.project_names()))
        head = {"Accept": chance.choice(KINDS), "Accept-Encoding": chance.choice(CODINGS), "User-Agent": agent}
        _expect(connection.request(request_head("GET", page, head)).status, 200)

    def read_page_again(self, connection: Connection, chance: random.Random) -> None:
        """A page, and whether it has changed since."""
        page = self.target.page(chance.choice(SMALL.project_names()))
        etag = connection.get(page).headers["etag"]
        _expect(connection.get(page, If_None_Match=etag).status, 304)

    def read_list(self, connection: Connection, chance: random.Random) -> None:
        """The list of projects."""
        _expect(connection.get(self.target.index()).status, 200)

    def download(self, connection: Connection, chance: random.Random) -> None:
        """A file of the corpus, and its core metadata."""
        address = self._file_address(chance)
        _expect(connection.get(address).status, 200)
        _expect(connection.get(f"{address}.metadata").status, 200)

    def upload_and_delete(self, connection: Connection, chance: random.Random) -> None:
        """A new file comes, and the oldest of those that came goes."""
        with self._lock:
            self._serial += 1
            version = f"1.0.{self._serial}"
            project = f"soak-{self._serial % PROJECTS}"
        send(connection, self.target.upload(project, version))
        with self._lock:
            self._came.append(small_wheel(project, version)[0])
            oldest = self._came.popleft() if len(self._came) > KEPT else None
        if oldest is not None:
            address = f"/api/v1/repos/{ORG}/{self.target.repo}/pypi/1/{oldest}"
            head = request_head("DELETE", address, {"Authorization": self._token})
            _expect(connection.request(head).status, 200)

    def look_at_pages_for_people(self, connection: Connection, chance: random.Random) -> None:
        """The repository, a search for what nobody asked for before, and a project."""
        repository = f"/{ORG}/{self.target.repo}"
        for address in (f"{repository}/", f"{repository}/?q={chance.random()}"):
            _expect(connection.get(address).status, 200)

    def come_with_a_wrong_token(self, connection: Connection, chance: random.Random) -> None:
        """A token that never was."""
        token = f"pkh_{chance.randbytes(6).hex()}_{chance.randbytes(16).hex()}"
        page = self.target.page(SMALL.project_names()[0])
        _expect(connection.get(page, Authorization=basic("__token__", token)).status, 401)

    def ask_for_nonsense(self, connection: Connection, chance: random.Random) -> None:
        """A project that is not there."""
        _expect(connection.get(self.target.page(f"nonsense-{chance.randbytes(6).hex()}")).status, 404)

    def break_off_an_upload(self, connection: Connection, chance: random.Random) -> None:
        """Half of an upload, and the connection is closed."""
        self._break_off(self.target.upload("soak-broken", "1.0")[:-100])

    def break_off_a_download(self, connection: Connection, chance: random.Random) -> None:
        """A download whose answer nobody waits for."""
        self._break_off(request_head("GET", self._file_address(chance), {}))

    def _break_off(self, request: bytes) -> None:
        connection = self.target.connect()
        connection.open().sendall(request)
        connection.close()

    def _file_address(self, chance: random.Random) -> str:
        project = chance.choice(SMALL.project_names())
        filename, _ = small_wheel(project, f"1.0.{chance.randrange(SMALL.files)}")
        return f"{self.target.index().removesuffix('simple/')}files/{project}/{filename}"


def _expect(status: int, expected: int) -> None:
    if status != expected:
        raise RuntimeError(f"answered {status} where {expected} was expected")


def sample(target: Packhouse) -> Sample:
    """Return what *target* holds now."""
    members = process.family(target.pid)
    return {
        "memory_mb": process.memory(target.pid),
        "descriptors": sum(len(list(Path(f"/proc/{member}/fd").iterdir())) for member in members),
        "threads": sum(len(list(Path(f"/proc/{member}/task").iterdir())) for member in members),
        "temporary": sum(1 for _ in target.data.glob("*/*/.tmp/*")),
        "locks": sum(1 for _ in target.data.glob("*/*/.locks/*")),
    }


def growth(samples: list[Sample]) -> list[str]:
    """Return a sentence for everything that is higher in the last third of *samples* than in the second."""
    third = len(samples) // 3
    before, after = samples[third : 2 * third], samples[2 * third :]
    grown = []
    for kind in before[0]:
        was, became = (statistics.median(s[kind] for s in part) for part in (before, after))
        if became > was + (MEMORY_SLACK if kind == "memory_mb" else 1):
            grown.append(f"{kind} grew from {was:.1f} to {became:.1f}")
    return grown


@click.command(help=__doc__)
@click.option("--minutes", default=30.0, show_default=True, help="How long the clients work.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the samples to this file, as JSON lines.")
def main(minutes: float, out: Path | None) -> None:
    """Run, print what was seen, and fail if something grew."""
    target = Packhouse("packhouse-soak")
    with serving([target], SMALL, writable=True):
        soak, failures, samples = Soak(target), list[Exception](), list[Sample]()

        def work() -> None:
            try:
                soak.run(minutes * 60)
            except Exception as error:
                failures.append(error)

        clients = threading.Thread(target=work)
        clients.start()
        interval = max(1.0, minutes * 60 / 180)
        while clients.is_alive():
            clients.join(interval)
            samples.append(sample(target))
            click.echo(" ".join(f"{kind} {value:.1f}" for kind, value in samples[-1].items()), err=True)
        time.sleep(2)  # what was broken off is given up
        last = sample(target)
    if out is not None:
        out.write_text("".join(json.dumps(line) + "\n" for line in samples))
    click.echo(f"requests: {soak.done}")
    for failure in failures:
        click.echo(f"failed: {failure!r}")
    grown = growth(samples)
    if last["temporary"]:
        grown.append(f"{last['temporary']:.0f} temporary files were left")
    click.echo("\n".join(grown) or f"nothing grew; in the end {last}")
    sys.exit(1 if grown or failures else 0)


if __name__ == "__main__":
    main()
