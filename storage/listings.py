"""All files of a project at once, as its page lists them, kept from one look to the next.

While nothing in a project's folder is added, renamed or removed, its signature stays as it was, and the listing is
true. Else the folder is read again, and everything in it is looked at; where it is large, only what is new, for
whoever is about to replace a file or to remove one says so first (:func:`note_replacing`). What somebody does to
files behind our back is seen by a thorough look every second of use.

A derived file spares a new process the reading of many sidecars; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import struct
import threading
import time
from binascii import a2b_base64, b2a_base64
from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from packaging.utils import NormalizedName

from storage.errors import ProjectNotFound
from storage.files import (
    COARSE_CLOCK,
    Signature,
    change_file,
    is_directory,
    make_directory,
    open_regular,
    put_file,
    status_of,
)
from storage.gathering import many_new_objects
from storage.layout import COMPANION_SUFFIXES, RepositoryTree
from storage.sidecars import File, file_from_row, file_to_row
from storage.simple import ProjectDetail, Stats, judge, look_at
from storage.statuses import read_status

log = logging.getLogger("packhouse.storage")

KEPT_FILES = 10_000  # in all listings together, the last one in any case; about 2 KB each, with the lines of pages
THOROUGH_LOOK_INTERVAL = 1.0  # seconds
# A look at so many files takes long enough to be had less often: it may take a fiftieth of the time.
THOROUGH_LOOK_SHARE = 50
MANY = 300  # names in a folder; where there are fewer, a look at everything costs little
LARGE = 16_384  # bytes that a folder of so many names takes, by the system's account: a guess for the first look
FEW = 32  # changed files; more are sorted with all others, which is quicker then

_STAMP = struct.Struct("<QqqqI")  # inode, size, mtime, ctime, mode
_THREE_STAMPS = struct.Struct(f"<{'QqqqI' * 3}")
_NO_STAMP = bytes(_STAMP.size)  # of what is not there


def _stamp_of(stats: Stats) -> bytes:
    """Return what changes whenever one of the three does: as :class:`Signature`, with the mode, in less memory."""
    a, s, m = stats
    if a is None or s is None or m is None:
        return _stamp(a) + _stamp(s) + _stamp(m)
    # As _stamp() thrice, in half of the time: where there are many files, it is spent here.
    return _THREE_STAMPS.pack(
        *(a.st_ino, a.st_size, a.st_mtime_ns, a.st_ctime_ns, a.st_mode),
        *(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_mode),
        *(m.st_ino, m.st_size, m.st_mtime_ns, m.st_ctime_ns, m.st_mode),
    )


def _stamp(status: os.stat_result | None) -> bytes:
    if status is None:
        return _NO_STAMP
    return _STAMP.pack(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)


def _are_settled(statuses: Iterable[os.stat_result | None], now: float) -> bool:
    """Whether a change after *now*, when nobody had looked yet, is bound to give other stamps."""
    newest = max(max(status.st_mtime_ns, status.st_ctime_ns) for status in statuses if status is not None)
    return now - newest / 1e9 > COARSE_CLOCK


# --- saying that a file is replaced ---


def note_replacing(tree: RepositoryTree) -> None:
    """Say to every process that a file of a project is about to be replaced or removed; called just before."""
    if not is_directory(tree.index):
        make_directory(tree.index)
    change_file(tree.replacing_file)


def _replacing(tree: RepositoryTree) -> Signature | None:
    """Return what changes whenever :func:`note_replacing` is called; None if nobody could see that.

    In a repository that was deleted and made anew, this is another file than it was.
    """
    try:
        if status_of(tree.replacing_file) is None:
            note_replacing(tree)
        return Signature.of(tree.replacing_file.lstat())
    except OSError:
        return None


# --- one listing ---


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a project at one look; never changed once made."""

    detail: ProjectDetail
    files: dict[str, File]  # by name: all that can be listed, by version and then name, even if quarantined
    folder: Signature  # from before it was read
    is_settled: bool  # whether a later change is bound to give the folder, or a file, another stamp
    replacing: Signature | None  # of what note_replacing() writes, from before the folder was read
    names: set[str]  # what is in the folder
    stamps: dict[str, bytes]  # of every artifact, even if it is hidden
    doubtful: frozenset[str]  # artifacts that are judged in every look: damaged ones, and young ones
    look_again: float  # time.monotonic() of the next thorough look
    is_postponed: bool  # whether that has been put off once
    unwritten: int  # files that the derived file does not know
    watch: FilesWatch

    @property
    def is_worth_writing(self) -> bool:
        """Whether the derived file is to be written anew."""
        return len(self.files) >= MIN_DERIVED and self.unwritten >= max(MIN_DERIVED, len(self.files) // 10)

    def is_current(self, folder: Signature) -> bool:
        """Whether it is as good as a new one, while *folder* is the signature of the project's folder."""
        return self.is_settled and self.folder == folder and time.monotonic() < self.look_again


class FilesWatch:
    """Whether the files behind a listing are as they were; whether others have come, the folder tells."""

    __slots__ = ("_folder", "_look_again", "_stamps", "_status_file", "_status_stamp")

    def __init__(
        self, folder: str, stamps: dict[str, bytes], status_file: str, status_stamp: bytes, look_again: float
    ) -> None:
        """Remember what was seen of the artifacts in *folder* and of the project's status."""
        self._folder, self._status_file = folder, status_file
        self._stamps, self._status_stamp = stamps, status_stamp
        self._look_again = look_again

    def holds(self) -> bool:
        """Whether all of it is as it was, as far as a look every second can tell.

        :raises OSError: if they cannot be looked at.
        """
        begun = time.monotonic()
        if begun < self._look_again:
            return True
        if _stamp(status_of(self._status_file)) != self._status_stamp:
            return False
        if any(_stamp_of(look_at(self._folder, filename)) != stamp for filename, stamp in self._stamps.items()):
            return False
        now = time.monotonic()
        self._look_again = now + max(THOROUGH_LOOK_INTERVAL, THOROUGH_LOOK_SHARE * (now - begun))
        return True


def watch_file(tree: RepositoryTree, project: NormalizedName, filename: str) -> FilesWatch:
    """Return what sees that one file, as it is now, is changed in place."""
    folder, status_file = str(tree.project(project)), str(tree.status_file(project))
    stamps = {filename: _stamp_of(look_at(folder, filename))}
    return FilesWatch(
        folder, stamps, status_file, _stamp(status_of(status_file)), time.monotonic() + THOROUGH_LOOK_INTERVAL
    )


class Listings:
    """The listings that this process keeps; safe for use by many threads."""

    def __init__(self, most: int = KEPT_FILES) -> None:
        """Keep those used last, as long as they hold no more than *most* files together."""
        self._most = most
        self._held = 0
        self._kept: OrderedDict[str, Listing] = OrderedDict()  # by folder
        self._lock = threading.Lock()
        # One of these is held while a folder is read, so that many who want it at once read it once.
        self._reading = [threading.Lock() for _ in range(64)]

    def listing(self, tree: RepositoryTree, project: NormalizedName) -> Listing:
        """Return the files of *project* as they are now, also after a change by another process.

        :raises ProjectNotFound: if the repository holds no file of *project*.
        """
        key = str(tree.project(project))
        try:
            if (kept := self._current(tree, project, key)) is not None:
                return kept
            with self._reading[hash(key) % len(self._reading)]:
                if (kept := self._current(tree, project, key)) is not None:  # read by another thread meanwhile
                    return kept
                listing = _Reading(tree, project, _folder_status(tree, project), self._kept.get(key)).listing()
                if listing.is_worth_writing:
                    _write(tree, project, listing)
                    listing = replace(listing, unwritten=0)
                self._keep(key, listing)
                return listing
        except ProjectNotFound:
            self._drop(key)
            raise

    def _current(self, tree: RepositoryTree, project: NormalizedName, key: str) -> Listing | None:
        kept = self._kept.get(key)
        if kept is None or not kept.is_current(Signature.of(_folder_status(tree, project))):
            return None
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
        return kept

    def _keep(self, key: str, listing: Listing) -> None:
        with self._lock:
            self._discard(key)
            self._kept[key] = listing
            self._held += _weight(listing)
            while self._held > self._most and len(self._kept) > 1:
                self._discard(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        with self._lock:
            self._discard(key)

    def _discard(self, key: str) -> None:
        dropped = self._kept.pop(key, None)
        if dropped is not None:
            self._held -= _weight(dropped)


LISTINGS = Listings()  # of this process


def _weight(listing: Listing) -> int:
    return len(listing.stamps) + len(listing.names) // 4 + 1


def _folder_status(tree: RepositoryTree, project: NormalizedName) -> os.stat_result:
    """Return what ``lstat`` says of the project's folder.

    :raises ProjectNotFound: if there is none. A link in its place, or in place of the folder above, is none.
    """
    status = status_of(tree.project(project))
    if status is None or not stat.S_ISDIR(status.st_mode) or not is_directory(tree.packages):
        raise ProjectNotFound(project)
    return status


# --- reading a folder ---


class _Reading:
    """One look at a project's folder: at what may have changed since *kept*, or at everything."""

    def __init__(
        self, tree: RepositoryTree, project: NormalizedName, folder: os.stat_result, kept: Listing | None
    ) -> None:
        self._tree, self._project, self._folder_status, self._kept = tree, project, folder, kept
        self._folder, self._status_file = str(tree.project(project)), str(tree.status_file(project))
        self._begun, self._now = time.monotonic(), time.time()
        # What is said of the folder is looked at before it and after it: see _suspects().
        is_large = len(kept.names) >= MANY if kept is not None else folder.st_size >= LARGE
        self._replacing = _replacing(tree) if is_large else None
        self._names = _names_in(self._folder)
        self._is_postponed = False
        self._has_young = False
        self._judged = self._unwritten = 0
        self._doubtful: set[str] = set()
        self._found: dict[str, File | None] = {}  # what was judged; None: hidden, or gone

    def listing(self) -> Listing:
        """Look, and return what was found."""
        status_stat = status_of(self._status_file)  # before it is read, so that a later change is seen
        status = read_status(self._tree, self._project)
        suspects = self._suspects()
        kept = self._kept
        if kept is not None:
            known_files, self._stamps, was_doubtful = kept.files, dict(kept.stamps), kept.doubtful
        else:
            known_files, self._stamps = _load(self._tree, self._project, self._names)
            was_doubtful = frozenset()
        is_thorough = suspects is None
        for filename in self._everything() if suspects is None else suspects | was_doubtful:
            self._look(filename, filename in was_doubtful)
        files = _merged(known_files, self._found)
        if kept is not None and files is kept.files and status == kept.detail.status:
            detail = kept.detail
        else:
            detail = ProjectDetail(self._project, tuple(files.values()) if status.offers_files else (), status)
        look_again = self._next_look() if is_thorough or kept is None else kept.look_again
        return Listing(
            detail=detail,
            files=files,
            folder=Signature.of(self._folder_status),
            is_settled=not self._has_young and _are_settled((self._folder_status, status_stat), self._now),
            replacing=self._replacing,
            names=self._names,
            stamps=self._stamps,
            doubtful=frozenset(self._doubtful),
            look_again=look_again,
            is_postponed=self._is_postponed,
            unwritten=self._unwritten + (kept.unwritten if kept is not None else 0),
            watch=FilesWatch(self._folder, self._stamps, self._status_file, _stamp(status_stat), look_again),
        )

    def _suspects(self) -> set[str] | None:
        """Return the artifacts that may be others than in *kept*; None if every one may be."""
        kept = self._kept
        if kept is None or self._replacing is None or self._replacing != kept.replacing:
            return None
        changed = {_artifact_of(name) for name in kept.names ^ self._names}
        if self._begun >= kept.look_again:
            if not changed or kept.is_postponed:
                return None
            self._is_postponed = True  # the page right after an upload is quick; the next one looks at everything
        # Said while the folder was read: what was read may be from before, or from after.
        return changed if _replacing(self._tree) == self._replacing else None

    def _everything(self) -> set[str]:
        self._is_postponed = False
        artifacts = {name for name in self._names if not name.endswith(COMPANION_SUFFIXES) and name[0] != "."}
        return artifacts | self._stamps.keys()

    def _look(self, filename: str, was_doubtful: bool) -> None:
        is_there = filename in self._names and filename[0] != "."
        stats = look_at(self._folder, filename) if is_there else None
        if stats is None or stats.artifact is None:
            self._stamps.pop(filename, None)
            self._found[filename] = None
            return
        stamp = _stamp_of(stats)
        if self._stamps.get(filename) == stamp and not was_doubtful:
            return
        self._stamps[filename] = stamp
        file, is_whole = judge(self._folder, filename, stats)
        if file is not None and file.project != self._project:
            file, is_whole = None, False
        self._found[filename] = file
        self._judged += 1
        is_settled = _are_settled(stats, self._now)
        self._has_young = self._has_young or not is_settled
        if not (is_settled and is_whole):
            self._doubtful.add(filename)
        else:
            self._unwritten += 1

    def _next_look(self) -> float:
        """Return when everything is to be looked at again."""
        now = time.monotonic()
        # Judging is done once: with it, the time says nothing of how long a look takes.
        taken = 0.0 if self._judged else now - self._begun
        return now + max(THOROUGH_LOOK_INTERVAL, THOROUGH_LOOK_SHARE * taken)


def _names_in(folder: str) -> set[str]:
    """Return what is in a folder; nothing if it is gone."""
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - names are all that is wanted
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _artifact_of(name: str) -> str:
    """Return the artifact that *name* goes with, or *name* itself."""
    for suffix in COMPANION_SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def _merged(known: dict[str, File], found: Mapping[str, File | None]) -> dict[str, File]:
    """Return the files of *known*, those in *found* instead of what was known of them, in order."""
    changes = {filename: file for filename, file in found.items() if file != known.get(filename)}
    if not changes:
        return known
    files = [file for filename, file in known.items() if filename not in changes]
    added = [file for file in changes.values() if file is not None]
    by_version = attrgetter("sort_key")
    if len(added) <= FEW:
        for file in added:
            insort(files, file, key=by_version)
    else:
        files = sorted(files + added, key=by_version)
    return {file.filename: file for file in files}


# --- the derived file ---

FORMAT = 1
MIN_DERIVED = 100  # files; fewer are read quickly. So many, and a tenth of all, were read before it is written anew


def _load(
    tree: RepositoryTree, project: NormalizedName, names: set[str]
) -> tuple[dict[str, File], dict[str, bytes]]:
    """Return the files that the derived file knows and are still there, and their stamps, to be compared."""
    path = tree.listing_file(project)
    if len(names) < MIN_DERIVED or not is_directory(tree.index):
        return {}, {}
    try:
        with many_new_objects():
            known = _read_derived(path, project)
    except OSError:
        return {}, {}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        log.warning("%s is damaged (%s) and will be written anew", path, error)
        return {}, {}
    there = [(file, stamp) for file, stamp in known if file.filename in names]
    return {file.filename: file for file, _ in there}, {file.filename: stamp for file, stamp in there}


def _read_derived(path: Path, project: NormalizedName) -> list[tuple[File, bytes]]:
    with open_regular(path) as source:
        head, _, body = source.read().partition(b"\n")
    document = json.loads(head)
    if document["format"] != FORMAT:
        return []
    if document["blake2b"] != hashlib.blake2b(body).hexdigest():
        raise ValueError("has another digest than it says")
    return [(file_from_row(row, project), a2b_base64(stamp)) for *row, stamp in json.loads(body)]


def _write(tree: RepositoryTree, project: NormalizedName, listing: Listing) -> None:
    rows = [
        [*file_to_row(file), b2a_base64(listing.stamps[filename], newline=False).decode()]
        for filename, file in listing.files.items()
        if filename not in listing.doubtful
    ]
    body = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    head = json.dumps({"format": FORMAT, "blake2b": hashlib.blake2b(body).hexdigest()}).encode()
    try:
        make_directory(tree.index)
        put_file(tree.listing_file(project), head + b"\n" + body, temporary=tree.temporary)
    except OSError as error:
        log.warning("%s could not be written: %s", tree.listing_file(project), error)
