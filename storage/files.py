"""Create, replace, link and sync: the only module that names fsync, link and rename.

The rules (style.md section 6): what appears, appears whole; what is created refuses to replace; a change is on
disk when the function returns; readers need no lock; a symbolic link is never followed.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self, TypeVar

from storage.errors import StorageFailing, StorageFull, Unavailable

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper


# Seconds. A change younger than this may share its time stamp with another one, since file systems stamp with the
# kernel's tick (up to 10 ms) or coarser (1 s on ext3 and HFS+, 2 s on FAT).
COARSE_CLOCK = 2.0

log = logging.getLogger("packhouse.storage")

_syncing = True


def set_syncing(syncing: bool) -> None:
    """Turn syncing off (or on again) for the whole process: the setting ``unsafe_no_fsync``."""
    global _syncing
    _syncing = syncing
    if not syncing:
        _later.forget()


_waiting: Callable[[], AbstractContextManager[None]] = nullcontext


def set_waiting(waiting: Callable[[], AbstractContextManager[None]]) -> None:
    """Enter what *waiting* returns wherever a thread waits for the disk or a lock: others may run meanwhile."""
    global _waiting
    _waiting = waiting


def while_waiting() -> AbstractContextManager[None]:
    """Return a context in which this thread waits for something that is not its turn to compute."""
    return _waiting()


# --- reading ---


class Signature(NamedTuple):
    """What changes whenever a file or directory is changed; equal signatures mean equal content.

    That holds only when the last change is older than :data:`COARSE_CLOCK`: see :func:`is_settled`.
    """

    device: int
    inode: int
    size: int  # bytes
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        """Return the signature in *status*."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_settled(self) -> bool:
        """Whether a later change is bound to give another signature (also false after the clock jumped back)."""
        return time.time() - max(self.mtime_ns, self.ctime_ns) / 1e9 > COARSE_CLOCK


T = TypeVar("T")


def read_once(read: _lru_cache_wrapper[T], path: Path) -> T:
    """Return what *read* makes of the file at *path*; it is read anew when its signature has changed.

    *read* gets the path, as text, and the signature, which makes a changed file another entry of its cache.

    :raises OSError: if there is nothing of that name; and whatever *read* raises.
    """
    signature = Signature.of(os.lstat(path))
    return kept_if_settled(read, signature)(str(path), signature)


def kept_if_settled(read: _lru_cache_wrapper[T], signature: Signature) -> Callable[..., T]:
    """Return *read*; if a later change could have the same *signature*, without its cache."""
    return read if signature.is_settled() else read.__wrapped__


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    :raises FileNotFoundError: also if *path* is a link, a folder or anything else that is not a regular file.
    """
    # O_NONBLOCK: opening a named pipe that somebody put there would wait for a writer.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, hex.

    :raises FileNotFoundError: as :func:`open_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in *path*.

    :raises FileNotFoundError: as :func:`open_regular`.
    :raises ValueError: if it is not UTF-8 JSON with an object at the top.
    """
    with open_regular(path) as file:
        content = file.read()
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def status_of(path: Path | str) -> os.stat_result | None:
    """Return what ``lstat`` says of *path*; None if there is nothing of that name."""
    try:
        return os.lstat(str(path))  # a path that is asked for its text by lstat() takes twice as long
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            return None
        raise


def is_directory(path: Path) -> bool:
    """Whether *path* is a directory itself, and not a link to one."""
    status = status_of(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def is_regular(path: Path) -> bool:
    """Whether *path* is a regular file itself, and not a link to one."""
    status = status_of(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def subdirectories(path: Path) -> list[str]:
    """Return the names of the directories in *path*, unsorted, without dotted ones and links; [] if it is none."""
    return [entry.name for entry in directory_entries(path) if entry.is_dir(follow_symlinks=False)]


def directory_entries(path: Path) -> list[os.DirEntry[str]]:
    """Return what is in the directory *path*, unsorted, without dotted names; [] if it is none, or a link."""
    if not is_directory(path):
        return []
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):  # gone since
        return []


# --- writing ---


def encode_json(document: dict[str, Any]) -> bytes:
    """Return *document* as UTF-8 JSON, one line for each of its keys, so that ``cat`` and ``diff`` can show it."""
    lines = [f"{_encode_key(key)}: {_encode_value(value)}" for key, value in document.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf-8", "surrogatepass")


_encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps() would make a new encoder each time
_encode_key = lru_cache(maxsize=256)(_encode)  # of the few that there are


def _encode_value(value: object) -> str:
    """Return *value* as JSON; half of those in a sidecar are so simple that Python's encoder is the larger part."""
    if value is None:
        return "null"
    return str(value) if type(value) is int else _encode(value)


def temporary_name() -> str:
    """Return a new name for a temporary file or folder: dotted, so never listed, and swept when old."""
    return f".{secrets.token_hex(12)}.tmp"


def sync_directory(path: Path) -> None:
    """Wait until the names in the directory *path* are on disk."""
    if not _syncing:
        return
    descriptor = _open_directory(path)
    try:
        with _waiting():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sync_file(file: BinaryIO) -> None:
    """Wait until what was written to *file* is on disk."""
    file.flush()
    if _syncing:
        with _waiting():
            os.fsync(file.fileno())


def sync_data(file: BinaryIO) -> None:
    """Wait until the bytes of *file* are on disk; in the end it is to be synced all the same."""
    if _syncing:
        with _waiting():
            os.fdatasync(file.fileno())


def start_writing_back(file: BinaryIO) -> None:
    """Let the system begin to bring what was written to *file* to disk, without waiting: a later sync is short."""
    if _syncing:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # which Linux does to dirty pages by writing


class Batch:
    """Files that are written one after the other and then waited for together: the journal commits them at once."""

    def __init__(self) -> None:
        """Begin with no file; leaving the ``with`` block closes those that were written here."""
        self._files: list[BinaryIO] = []
        self._opened: list[BinaryIO] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self._opened:
            file.close()

    def add(self, file: BinaryIO) -> None:
        """Wait for what was written to *file*, too."""
        start_writing_back(file)
        self._files.append(file)

    def write(self, path: Path, content: bytes, *, mode: int = 0o666) -> None:
        """Write a new file *path*.

        :raises FileExistsError: if there is anything of that name.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        file = os.fdopen(descriptor, "wb", buffering=0)
        self._opened.append(file)
        write_all(file, content)
        self.add(file)

    def put(self, path: Path, content: bytes, *, temporary: Path) -> None:
        """Write a file *path*, in the place of what is there; *temporary* is the folder for its draft.

        :raises FileExistsError: if *path* is a directory.
        """
        try:
            self.write(path, content)
        except FileExistsError:
            put_file(path, content, temporary=temporary)

    def sync(self, folder: Path | None = None) -> None:
        """Wait until the bytes of all are on disk, and then the names in *folder*; other folders are not synced."""
        if not _syncing:
            return
        descriptors = [file.fileno() for file in self._files]  # unbuffered, each of them
        directory = None if folder is None else _open_directory(folder)
        if directory is not None:
            descriptors.append(directory)
        try:
            # Once for all: others run meanwhile, and to go on means to wait for them. Nothing else is done here,
            # for every other call would take Python's lock from them.
            with _waiting():
                for descriptor in descriptors:
                    os.fsync(descriptor)
        finally:
            if directory is not None:
                os.close(directory)


def write_all(file: BinaryIO, content: bytes | bytearray | memoryview) -> None:
    """Write *content* to the unbuffered *file*, which may take less than it is given."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def make_directory(path: Path) -> None:
    """Create the directory *path*, durably; one that is there already is fine.

    :raises FileNotFoundError: if the directory above it is missing.
    :raises FileExistsError: if something else has that name.
    """
    with suppress(FileExistsError):
        path.mkdir()
    if not is_directory(path):
        raise FileExistsError(errno.EEXIST, "not a directory", str(path))
    # Also where it was there: who made it may have been killed, or may be about to do this.
    sync_directory(path.parent)


def make_directories(path: Path) -> None:
    """Create the directory *path* and the missing ones above it, durably.

    :raises FileExistsError: if something else has one of the names.
    """
    if not is_directory(path):
        make_directories(path.parent)
        make_directory(path)


@contextmanager
def draft_directory(folder: Path) -> Iterator[Path]:
    """Yield a new temporary directory in *folder*; what has not been moved away when the block ends is removed."""
    draft = folder / temporary_name()
    draft.mkdir()
    try:
        yield draft
    finally:
        with suppress(OSError):  # what stays is swept later
            remove_tree(draft)


def write_new(path: Path, content: bytes, *, mode: int = 0o666, sync: bool = True) -> None:
    """Write a new file *path*; its bytes are on disk when this returns, its name in the directory not yet.

    Without *sync*, the bytes are not, either.

    :raises FileExistsError: if there is anything of that name.
    """
    with Batch() as batch:
        batch.write(path, content, mode=mode)
        if sync:
            batch.sync()


def replace_file(path: Path, content: bytes, *, temporary: Path | None = None, mode: int = 0o666) -> None:
    """Make *content* the whole content of *path*, atomically and durably; a reader sees the old or the new.

    *temporary* is the folder for the temporary file (in the same file system); default: beside *path*.
    """
    put_file(path, content, temporary=temporary, mode=mode)  # commit
    sync_directory(path.parent)


def put_file(
    path: Path, content: bytes, *, temporary: Path | None = None, mode: int = 0o666, late: bool = False
) -> None:
    """As :func:`replace_file`, except that the directory is not synced yet: a power cut may undo it.

    With *late*, nobody waits for the disk: a power cut within :data:`LATE` may leave a file that does not parse.

    :raises FileExistsError: if *path* is a directory.
    """
    draft = (temporary or path.parent) / temporary_name()
    try:
        write_new(draft, content, mode=mode, sync=not late)
        draft.replace(path)
        if late and _syncing:
            _later.sync(path)
    except IsADirectoryError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise FileExistsError(errno.EEXIST, "a directory has the name", str(path)) from error
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def overwrite_file(source: Path, target: Path) -> None:
    """Rename the synced file *source* to *target*, durably, replacing what is there."""
    source.replace(target)  # commit
    sync_directory(target.parent)


def link_unsynced(source: Path, target: Path) -> None:
    """Give the file *source* the second name *target*; the directory is not synced yet.

    :raises FileExistsError: if there is anything of that name; it is left untouched.
    """
    os.link(source, target, follow_symlinks=False)  # unlike rename, refuses to replace


def move_directory(source: Path, target: Path) -> None:
    """Rename the directory *source*, with all that is in it, to *target*, atomically and durably.

    :raises FileExistsError: if there is anything called *target*, except an empty directory.
    """
    try:
        source.rename(target)  # commit; rename(2) replaces an empty directory, and nothing else
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, "there already", str(target)) from error
        raise
    sync_directory(target.parent)
    if source.parent != target.parent:
        sync_directory(source.parent)


def remove_file(path: Path) -> None:
    """Remove the name *path* durably; it is fine if it is gone already."""
    remove_unsynced(path)
    sync_directory(path.parent)


def remove_unsynced(path: Path) -> None:
    """As :func:`remove_file`, except that the directory is not synced yet."""
    path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Remove the directory *path* and all below it; links are removed, not followed."""
    if is_directory(path):
        shutil.rmtree(path)


def discard_directory(path: Path, temporary: Path) -> None:
    """Make the directory *path* disappear in one step, durably, and then remove what was in it.

    It goes into the folder *temporary* first, where it is swept later if we stop here.
    """
    draft = temporary / temporary_name()
    move_directory(path, draft)  # commit
    with suppress(OSError):  # it is gone for everybody: no reason to fail
        remove_tree(draft)


def append_line(path: Path, line: bytes, *, sync: bool = True) -> None:
    """Append *line* to *path* in one write, whole lines only: a torn last line of a crash is closed first.

    With *sync*, it is on disk within :data:`LATE`; nobody waits for it.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
        torn = _is_torn(file.fileno())
        file.write((b"\n" if torn else b"") + line + b"\n")
    if sync and _syncing:
        _later.sync(path)


MAX_CHANGED_SIZE = 4096  # bytes


def change_file(path: Path) -> None:
    """Give *path*, which holds nothing of use, another signature than ever before, even within a tick of the clock.

    It is not synced: only those who look at it while they run want to know.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0) as file:
        if os.fstat(file.fileno()).st_size >= MAX_CHANGED_SIZE:
            file.truncate(0)
        file.write(b".")


def _is_torn(descriptor: int) -> bool:
    """Whether the last line of a file has no end, and is not just being written by somebody else."""
    for _ in range(10):
        end = os.fstat(descriptor).st_size
        if end == 0 or os.pread(descriptor, 1, end - 1) == b"\n":
            return False
        time.sleep(0.001)
    return True


LATE = 0.2  # seconds


class _Later:
    """Syncs files that nobody waits for, from a thread of its own; many changes of one file together."""

    def __init__(self) -> None:
        self._paths: set[Path] = set()
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._is_running = False  # the thread

    def sync(self, path: Path) -> None:
        """See to it that what was written to the file *path* is soon on disk."""
        with self._guard:
            self._paths.add(path)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="late syncs", daemon=True).start()
                atexit.register(self.flush)
        self._wake.set()

    def forget(self) -> None:
        """Leave it to the system when the files are on disk."""
        with self._guard:
            self._paths.clear()

    def flush(self) -> None:
        """Wait until all are on disk."""
        with self._guard:
            paths, self._paths = self._paths, set()
        for path in paths:
            try:
                with open_regular(path) as file:
                    os.fsync(file.fileno())
            except FileNotFoundError:  # its repository is gone or has another name
                continue
            except OSError as error:
                log.error("%s could not be synced: %s", path, error)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(LATE)
            self._wake.clear()
            self.flush()


_later = _Later()


def _begin_anew() -> None:
    """Forget the thread of the process that this one was forked from: it is not here."""
    global _later
    _later = _Later()


os.register_at_fork(after_in_child=_begin_anew)


# --- leftovers ---

OLD = 24 * 3600.0  # seconds; no upload goes on for so long
_TEMPORARY = re.compile(r"\.[0-9a-f]{24}\.tmp", re.ASCII)


def sweep(folder: Path, older_than: float = OLD) -> int:
    """Remove what crashes left in *folder*, a folder of temporary files, and return how many there were.

    Only names of :func:`temporary_name` go, and only those not changed for *older_than* seconds; what cannot be
    removed stays.
    """
    removed = 0
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return 0
    for entry in entries:
        with suppress(OSError):
            age = time.time() - entry.stat(follow_symlinks=False).st_mtime
            if not _TEMPORARY.fullmatch(entry.name) or age < older_than:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()
            removed += 1
    return removed


def as_storage_error(error: OSError) -> Unavailable:
    """Return what *error*, which the operating system gave us, means for the caller (contract.md section 4)."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull()
    return StorageFailing(error.strerror or type(error).__name__)
