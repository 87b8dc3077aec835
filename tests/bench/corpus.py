"""Corpora of valid wheels, the same bytes every time: a folder for each project, made once and kept."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.storage.makers import make_metadata, make_record, make_wheel, make_wheel_file

SCRATCH = Path(os.environ.get("BENCH_TMP", "/tmp/bench-data"))  # everything that is kept between runs
MIB = 1024 * 1024
BIG_SIZE = 1000 * MIB  # bytes of the big wheel's one module
BIG_VERSION = "9.0.0"  # no other corpus has it


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a repository is filled with."""

    name: str
    projects: int
    files: int  # in each project

    @property
    def total(self) -> int:
        """How many files there are."""
        return self.projects * self.files

    def project_names(self, most: int | None = None) -> list[str]:
        """The normalized names of the projects, or of the first *most* of them."""
        return [project_name(i) for i in range(min(self.projects, most or self.projects))]


TINY = Corpus("tiny", projects=20, files=5)
SMALL = Corpus("small", projects=100, files=10)
LARGE = Corpus("large", projects=20_000, files=5)
HUGE = Corpus("huge", projects=1, files=5_000)
BIG = Corpus("big", projects=1, files=1)  # its one file is of BIG_SIZE


def project_name(i: int) -> str:
    """Return the name of the *i*-th project."""
    return f"bench-{i:05d}"


def small_wheel(project: str, version: str) -> tuple[str, bytes]:
    """Return the file name and the bytes of a wheel of about 1 kB."""
    return make_wheel(project, version, requires_python=">=3.8", compression=zipfile.ZIP_STORED)


def folder_of(corpus: Corpus) -> Path:
    """Return the folder of *corpus*; it is filled if it is not there yet."""
    folder = SCRATCH / "corpora" / corpus.name
    done = folder.with_name(f".{corpus.name}.done")
    if done.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if corpus is BIG:
        _write_big_wheel(folder)
    else:
        with ProcessPoolExecutor(2) as pool:
            write = partial(_write_project, folder, corpus.files)
            list(pool.map(write, range(corpus.projects), chunksize=100))
    done.touch()
    return folder


def _write_project(folder: Path, files: int, i: int) -> None:
    (folder / project_name(i)).mkdir(exist_ok=True)
    for n in range(files):
        filename, content = small_wheel(project_name(i), f"1.{n // 10}.{n % 10}")
        (folder / project_name(i) / filename).write_bytes(content)


def _write_big_wheel(folder: Path) -> None:
    """Write the wheel piece by piece: it need not fit into memory."""
    project = project_name(0)
    stem = f"{project.replace('-', '_')}-{BIG_VERSION}"
    module, dist_info = f"{project.replace('-', '_')}/data.bin", f"{stem}.dist-info"
    (folder / project).mkdir(exist_ok=True)
    members = {
        f"{dist_info}/METADATA": make_metadata(project, BIG_VERSION),
        f"{dist_info}/WHEEL": make_wheel_file(),
    }
    record = make_record(members, f"{dist_info}/RECORD").decode()
    block, digest = random.Random(7).randbytes(MIB), hashlib.sha256()
    with zipfile.ZipFile(folder / project / f"{stem}-py3-none-any.whl", "w") as archive:
        with archive.open(zipfile.ZipInfo(module), "w", force_zip64=True) as member:
            for i in range(BIG_SIZE // MIB):
                piece = i.to_bytes(8, "big") + block[8:]
                digest.update(piece)
                member.write(piece)
        for path, content in members.items():
            archive.writestr(zipfile.ZipInfo(path), content)
        encoded = base64_digest(digest.digest())
        archive.writestr(zipfile.ZipInfo(f"{dist_info}/RECORD"), f"{module},sha256={encoded},{BIG_SIZE}\n{record}")


def base64_digest(digest: bytes) -> str:
    """Return a digest as RECORD writes it."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
