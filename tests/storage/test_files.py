"""Creating, replacing, linking and sweeping; and which module of the storage may do what."""

from __future__ import annotations

import ast
import errno
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import storage
from storage import files
from storage.errors import StorageFailing, StorageFull
from storage.files import (
    OLD,
    Batch,
    append_line,
    as_storage_error,
    directory_entries,
    discard_directory,
    draft_directory,
    encode_json,
    is_directory,
    is_regular,
    link_unsynced,
    make_directories,
    make_directory,
    move_directory,
    open_regular,
    put_file,
    read_json,
    remove_file,
    remove_tree,
    replace_file,
    set_syncing,
    subdirectories,
    sweep,
    temporary_name,
    write_new,
)
from storage.locks import lock
from tests.conftest import wait_until
from tests.storage.faults import path_of


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- reading ---


def make_unreadable(path: Path, kind: str) -> None:
    """Put something that is not a regular file at *path*."""
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        (path.parent / "target").write_text("{}")
        path.symlink_to("target")
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "link to itself":
        path.symlink_to(path)
    else:
        os.mkfifo(path)


NOT_FILES = ["folder", "link", "dangling link", "link to itself", "named pipe"]


@pytest.mark.parametrize("kind", NOT_FILES)
def test_only_a_regular_file_is_opened(tmp_path, kind):
    make_unreadable(tmp_path / "x.json", kind)

    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "x.json")
    assert not is_regular(tmp_path / "x.json")


def test_a_file_below_a_file_is_not_there(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "file" / "below")
    assert not is_regular(tmp_path / "file" / "below")
    assert not is_directory(tmp_path / "file" / "below")


NOT_OBJECTS = {
    "empty": b"",
    "zeros": b"\0" * 64,
    "cut off": b'{"a": 1',
    "list": b"[]",
    "number": b"7",
    "not UTF-8": b'{"a": "\xff"}',
    "nested deeply": b'{"a": ' + b"[" * 200_000,
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("content", NOT_OBJECTS.values(), ids=NOT_OBJECTS.keys())
def test_what_is_no_json_object_is_a_value_error(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)

    with pytest.raises(ValueError, match=r".+"):
        read_json(tmp_path / "x.json")


def test_documents_are_written_one_key_a_line_and_read_back(tmp_path):
    document = {"name": "größe", "odd": "\udcff\u2028", "list": [1, None, {"a": True}]}

    replace_file(tmp_path / "x.json", encode_json(document))

    assert read_json(tmp_path / "x.json") == document
    assert (tmp_path / "x.json").read_bytes().count(b"\n") == len(document) + 2


def test_a_listing_leaves_out_dotted_names_and_does_not_follow_links(tmp_path):
    for name in ("a", "b", ".hidden"):
        (tmp_path / "folder" / name).mkdir(parents=True)
    (tmp_path / "folder" / "file").write_text("")
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "folder" / "a")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "folder")

    assert sorted(subdirectories(tmp_path / "folder")) == ["a", "b"]
    assert sorted(entry.name for entry in directory_entries(tmp_path / "folder")) == ["a", "b", "file", "link"]
    assert subdirectories(tmp_path / "elsewhere") == []
    assert subdirectories(tmp_path / "missing") == []
    assert subdirectories(tmp_path / "folder" / "file") == []


# --- writing ---


def test_a_replaced_file_is_new_as_a_whole_and_leaves_nothing_beside_it(tmp_path):
    replace_file(tmp_path / "x", b"old")
    with open_regular(tmp_path / "x") as reader:
        replace_file(tmp_path / "x", b"new")

        assert reader.read() == b"old"
    assert (tmp_path / "x").read_bytes() == b"new"
    assert names_in(tmp_path) == ["x"]


def test_a_secret_is_never_readable_by_others(tmp_path):
    replace_file(tmp_path / "x", b"secret", mode=0o600)
    replace_file(tmp_path / "x", b"secret 2", mode=0o600)

    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_replacing_a_link_leaves_its_target_alone(tmp_path):
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "x").symlink_to("target")

    replace_file(tmp_path / "x", b"new")

    assert (tmp_path / "target").read_bytes() == b"precious"
    assert is_regular(tmp_path / "x")


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "x" / "within").mkdir(parents=True)

    with pytest.raises(FileExistsError):
        put_file(tmp_path / "x", b"new")

    assert names_in(tmp_path) == ["x"]
    assert is_directory(tmp_path / "x" / "within")


@pytest.mark.parametrize("kind", ["file", *NOT_FILES])
def test_a_link_refuses_whatever_has_its_name(tmp_path, kind):
    (tmp_path / "source").write_bytes(b"new")
    if kind == "file":
        (tmp_path / "x").write_bytes(b"old")
    else:
        make_unreadable(tmp_path / "x", kind)
    before = (tmp_path / "x").lstat()

    with pytest.raises(FileExistsError):
        link_unsynced(tmp_path / "source", tmp_path / "x")

    assert (tmp_path / "x").lstat() == before


def test_a_new_file_refuses_whatever_has_its_name(tmp_path):
    (tmp_path / "x").symlink_to("elsewhere")

    with pytest.raises(FileExistsError):
        write_new(tmp_path / "x", b"new")

    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("kind", ["file", "full folder", "link to a folder"])
def test_a_moved_directory_replaces_nothing(tmp_path, kind):
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "a").write_text("new")
    if kind == "file":
        (tmp_path / "x").write_text("old")
    else:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "b").write_text("old")
        if kind == "full folder":
            (tmp_path / "full").rename(tmp_path / "x")
        else:
            (tmp_path / "x").symlink_to("full")

    with pytest.raises(FileExistsError):
        move_directory(tmp_path / "draft", tmp_path / "x")

    assert (tmp_path / "draft" / "a").read_text() == "new"


def test_a_directory_is_made_with_those_above_it_and_may_be_there(tmp_path):
    make_directories(tmp_path / "a" / "b")
    make_directories(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")

    assert is_directory(tmp_path / "a" / "b")


def test_no_directory_is_made_below_one_that_is_gone(tmp_path):
    with pytest.raises(FileNotFoundError):
        make_directory(tmp_path / "a" / "b")

    assert names_in(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "link to a folder", *NOT_FILES[1:]])
def test_a_directory_is_not_made_where_something_else_is(tmp_path, kind):
    if kind == "file":
        (tmp_path / "x").write_text("")
    elif kind == "link to a folder":
        (tmp_path / "real").mkdir()
        (tmp_path / "x").symlink_to("real")
    else:
        make_unreadable(tmp_path / "x", kind)

    with pytest.raises(FileExistsError):
        make_directory(tmp_path / "x")
    with pytest.raises(FileExistsError):
        make_directories(tmp_path / "x" / "below")


def test_a_discarded_directory_is_gone_with_all_that_was_in_it(tmp_path):
    (tmp_path / "x" / "within").mkdir(parents=True)
    (tmp_path / ".tmp").mkdir()

    discard_directory(tmp_path / "x", tmp_path / ".tmp")

    assert names_in(tmp_path) == [".tmp"]
    assert names_in(tmp_path / ".tmp") == []


def test_a_draft_that_was_not_moved_away_goes(tmp_path):
    def write_until_the_disk_is_full() -> None:
        with draft_directory(tmp_path) as draft:
            write_new(draft / "a", b"x")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        write_until_the_disk_is_full()

    assert names_in(tmp_path) == []


def test_removing_a_tree_removes_links_and_not_what_they_lead_to(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")

    remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "missing")

    assert not (tmp_path / "tree").exists()
    assert (tmp_path / "precious" / "file").exists()


def test_removing_a_file_that_is_gone_is_fine(tmp_path):
    (tmp_path / "x").write_text("")

    remove_file(tmp_path / "x")
    remove_file(tmp_path / "x")

    assert names_in(tmp_path) == []


def test_a_torn_line_is_closed_before_the_next(tmp_path):
    (tmp_path / "log").write_bytes(b'{"a": 1}\n{"b":')

    append_line(tmp_path / "log", b'{"c": 3}')
    append_line(tmp_path / "log", b'{"d": 4}')

    assert (tmp_path / "log").read_bytes() == b'{"a": 1}\n{"b":\n{"c": 3}\n{"d": 4}\n'


def test_a_line_is_not_appended_through_a_link(tmp_path):
    (tmp_path / "target").write_text("")
    (tmp_path / "log").symlink_to("target")

    with pytest.raises(OSError, match="symbolic"):
        append_line(tmp_path / "log", b"{}")

    assert (tmp_path / "target").read_text() == ""


@pytest.mark.parametrize(
    ("number", "kind"),
    [("ENOSPC", StorageFull), ("EDQUOT", StorageFull)]
    + [(name, StorageFailing) for name in ("EROFS", "EIO", "EACCES", "EMFILE", "ENOLCK")],
)
def test_what_the_system_refuses_has_a_meaning(number, kind):
    error = as_storage_error(OSError(getattr(errno, number), "told by the system"))

    assert type(error) is kind
    assert "try again" in str(error)


# --- leftovers ---


def test_only_old_leftovers_are_swept(tmp_path):
    old_file, old_folder, young = (tmp_path / temporary_name() for _ in range(3))
    old_file.write_text("x")
    (old_folder / "within").mkdir(parents=True)
    young.write_text("x")
    others = [tmp_path / name for name in (".git", "file.tmp", ".0123.tmp", "toolbox-1.0.tar.gz", ".locks")]
    for other in others:
        other.write_text("x")
    long_ago = time.time() - OLD - 60
    for path in (old_file, old_folder, *others):
        os.utime(path, (long_ago, long_ago))

    removed = sweep(tmp_path)

    assert removed == 2
    assert {path.name for path in tmp_path.iterdir()} == {young.name, *(other.name for other in others)}


def test_a_leftover_link_is_swept_and_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    link = tmp_path / temporary_name()
    link.symlink_to("precious")

    assert sweep(tmp_path, older_than=-1) == 1
    assert sweep(tmp_path / "missing") == 0
    assert names_in(tmp_path) == ["precious"]


# --- the layers ---

# Each module may import those before it.
LAYERS = [
    *("errors", "limits", "names", "files", "locks", "lanes", "layout", "failures", "watching"),
    *("archives", "zipframes", "zips", "tars", "metadata", "wheels", "distributions", "members"),
    *("sidecars", "damage", "uploads", "events", "statuses"),
    *("gathering", "simple", "listings", "explaining", "catalog", "downloads", "summaries"),
    *("placing", "trash", "publishing", "repository"),
    *("tokens", "users", "rights", "registry", "starting", "importing", "browsing", "checking"),
]
SOURCES = sorted(Path(storage.__file__).parent.glob("*.py"))
# What changes names or waits for the disk (style.md section 1); reading is for everybody.
ONLY_IN_FILES = {
    "fsync",
    "fdatasync",
    "link",
    "symlink",
    "rename",
    "renames",
    "replace",
    "unlink",
    "remove",
    "rmdir",
}
ONLY_IN_FILES |= {"mkdir", "makedirs", "open", "write", "truncate", "mkfifo"}


def imported_by(tree: ast.AST) -> set[str]:
    """All modules that *tree* imports, also those only for the type checker."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "storage"}
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_module_of_the_storage_imports_only_those_before_it_and_nothing_of_http(source):
    imported = imported_by(ast.parse(source.read_text()))

    before = LAYERS[: LAYERS.index(source.stem)] if source.stem != "__init__" else []
    ours = {name.split(".")[1] for name in imported if name.startswith("storage.")}
    assert ours <= set(before)
    assert not {name.split(".")[0] for name in imported} & {"flask", "werkzeug", "waitress", "app", "cli", "server"}
    assert ("filelock" in imported) == (source.stem == "locks")


@pytest.mark.parametrize("source", [s for s in SOURCES if s.stem != "files"], ids=lambda source: source.stem)
def test_only_one_module_syncs_links_and_renames(source):
    tree = ast.parse(source.read_text())

    of_os = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    assert not of_os & ONLY_IN_FILES
    assert not imported_by(tree) & {"fcntl", "shutil", "tempfile"}


# --- waiting for the disk ---


@pytest.fixture
def synced(monkeypatch):
    """What is synced, in order."""
    calls: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(path_of(descriptor).name))
    set_syncing(True)
    yield calls
    set_syncing(False)


def test_files_of_a_batch_are_all_written_before_the_first_is_waited_for(tmp_path, synced):
    with Batch() as batch:
        batch.write(tmp_path / "a", b"a")
        batch.put(tmp_path / "b", b"b", temporary=tmp_path)
        with pytest.raises(FileExistsError):
            batch.write(tmp_path / "a", b"other")

        assert synced == []
        batch.sync()

    assert synced == ["a", "b"]
    assert [(tmp_path / name).read_bytes() for name in ("a", "b")] == [b"a", b"b"]


def test_a_line_is_synced_later_together_with_those_that_come_after_it(tmp_path, synced):
    append_line(tmp_path / "log", b"1")
    append_line(tmp_path / "log", b"2")
    append_line(tmp_path / "unsynced", b"1", sync=False)
    append_line(tmp_path / "gone", b"1")
    (tmp_path / "gone").unlink()

    files._later.flush()

    assert synced == ["log"]
    append_line(tmp_path / "log", b"3")
    wait_until(lambda: synced == ["log", "log"])


@pytest.fixture
def waits(monkeypatch):
    """How many threads wait for the disk or a lock: at the moment, and have done so in all."""
    counts = {"now": 0, "in all": 0}

    @contextmanager
    def waiting():
        counts["now"] += 1
        counts["in all"] += 1
        try:
            yield
        finally:
            counts["now"] -= 1

    monkeypatch.setattr(files, "_waiting", files._waiting)
    files.set_waiting(waiting)
    return counts


def test_whoever_waits_for_the_disk_says_so(tmp_path, waits, monkeypatch):
    synced = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(f"os.{name}", lambda descriptor: synced.append(waits["now"] > 0))
    set_syncing(True)
    try:
        files.replace_file(tmp_path / "a", b"1")
        files.append_line(tmp_path / "b", b"2")
    finally:
        set_syncing(False)

    assert synced
    assert all(synced)
    assert waits["now"] == 0


def test_whoever_waits_for_a_lock_says_so_and_whoever_gets_it_at_once_does_not(tmp_path, waits):
    def take():
        with lock(tmp_path / "l", "test"):
            pass

    with lock(tmp_path / "l", "test"):
        assert waits["in all"] == 0
        thread = threading.Thread(target=take)
        thread.start()
        deadline = time.monotonic() + 5
        while not waits["now"] and time.monotonic() < deadline:
            time.sleep(0.005)
        assert waits["now"] == 1
    thread.join()

    assert waits["now"] == 0
