"""Looking into single members of archives, whatever they are called and whatever they hold."""

from __future__ import annotations

import io
import random
import tarfile

import pytest

from storage import members as members_module
from storage.limits import Limits
from storage.members import MAX_LINE, MAX_MEMBER, MemberNotFound, read_member
from tests.storage.makers import make_sdist, make_tar_gz, make_wheel

LIMITS = Limits()


def read(filename: str, content: bytes, path: str, size: int, limits: Limits = LIMITS):
    return read_member(io.BytesIO(content), filename, path, size, limits)


def read_from_wheel(data: bytes, path: str = "toolbox/member"):
    filename, content = make_wheel(files={path: data})
    return read(filename, content, path, len(data))


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_a_member_of_an_sdist_is_read_line_by_line(suffix):
    filename, content = make_sdist(files={"a.py": b"import b\n\nb.c()\n", "b.py": b"pass\n"}, suffix=suffix)

    member = read(filename, content, "toolbox-1.0/a.py", 16)

    assert member.lines == ("import b", "", "b.c()")
    assert member.obstacle == ""


def test_a_member_of_a_wheel_is_read_line_by_line():
    assert read_from_wheel(b"one\r\ntwo\rthree").lines == ("one", "two", "three")


@pytest.mark.parametrize(
    "path",
    [
        "toolbox-1.0/nothing",
        "nothing",
        "",
        "/etc/passwd",
        "../../../../etc/passwd",
        "toolbox-1.0/../../etc/passwd",
        "toolbox-1.0",
        "toolbox-1.0/",
        "toolbox-1.0/PKG-INFO\x00",
        "toolbox-1.0//PKG-INFO",
        "TOOLBOX-1.0/PKG-INFO",
    ],
)
@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_what_is_not_in_the_archive_is_not_found(path, suffix):
    filename, content = make_sdist(suffix=suffix)

    with pytest.raises(MemberNotFound):
        read(filename, content, path, 10)


def test_a_folder_of_a_wheel_is_no_member():
    filename, content = make_wheel(files={"toolbox/": b"", "toolbox/a.py": b""})

    with pytest.raises(MemberNotFound):
        read(filename, content, "toolbox/", 0)


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)),
        b"\x7fELF\x02\x01\x01\x00" + b"x" * 100,
        b"\x89PNG\r\n\x1a\n\x00",
        random.Random(1).randbytes(5000).replace(b"\x00", b"\x01"),
        b"\xff\xfe\x00",
    ],
    ids=["all bytes", "ELF", "PNG", "noise without zeros", "half a character of UTF-16"],
)
def test_a_binary_member_says_so(data):
    member = read_from_wheel(data)

    assert member.lines == ()
    assert member.obstacle == "It is a binary file."


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("grüße".encode(), "grüße"),
        ("\ufeffgrüße".encode(), "grüße"),
        ("grüße".encode("latin-1"), "grüße"),
        ("grüße".encode("utf-16"), "grüße"),
    ],
    ids=["UTF-8", "UTF-8 with mark", "Latin-1", "UTF-16"],
)
def test_text_is_read_in_the_usual_encodings(data, line):
    assert read_from_wheel(data).lines == (line,)


def test_an_empty_member_says_so():
    assert read_from_wheel(b"").obstacle == "It is empty."


def test_what_cannot_be_seen_or_turns_text_around_is_made_visible():
    member = read_from_wheel("a = 1  # \u202e evil\u2066\n\ttab\x1b[31m\u200b\U000e0041é\u00a0".encode())

    assert member.lines == ("a = 1  # \\u202e evil\\u2066", "\ttab\\x1b[31m\\u200b\\U000e0041é\u00a0")


def test_a_line_without_end_is_cut():
    (line,) = read_from_wheel(b"y" * 100_000).lines

    assert line.startswith("y" * MAX_LINE + " ... (98,000 more")
    assert len(line) < MAX_LINE + 50


def test_a_large_member_is_not_read_at_all():
    member = read_member(io.BytesIO(b"not even an archive"), "toolbox-1.0.tar.gz", "x", MAX_MEMBER + 1, LIMITS)

    assert member.obstacle == "It is larger than 512 kB; download the package to read it."


def test_a_member_of_just_the_limit_is_read():
    assert len(read_from_wheel(b"x\n" * (MAX_MEMBER // 2)).lines) == MAX_MEMBER // 2


def test_a_member_that_is_larger_than_was_said_is_not_held_in_memory():
    filename, content = make_wheel(files={"toolbox/a": b"x" * (MAX_MEMBER + 1)})

    member = read(filename, content, "toolbox/a", 5)

    assert member.lines == ()
    assert "larger than the limit of 512,000 bytes" in member.obstacle


def test_only_so_much_of_a_tar_is_unpacked_in_search_of_a_member(monkeypatch):
    monkeypatch.setattr(members_module, "MAX_WALK", 100_000)
    filename, content = make_sdist(files={"a.bin": b"x" * 200_000, "b.txt": b"hello"})

    member = read(filename, content, "toolbox-1.0/b.txt", 5)

    assert member.lines == ()
    assert "unpacks to more than" in member.obstacle
    assert "download it to look inside" in member.obstacle


def test_of_two_members_with_one_path_the_one_that_installers_unpack_is_shown():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for data in (b"harmless", b"the real"):
            info = tarfile.TarInfo("toolbox-1.0/setup.py")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    assert read("toolbox-1.0.tar.gz", buffer.getvalue(), "toolbox-1.0/setup.py", 8).lines == ("the real",)


def test_a_link_is_not_followed():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("toolbox-1.0/a")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
        hard, soft = tarfile.TarInfo("toolbox-1.0/hard"), tarfile.TarInfo("toolbox-1.0/soft")
        hard.type, hard.linkname = tarfile.LNKTYPE, "toolbox-1.0/a"
        soft.type, soft.linkname = tarfile.SYMTYPE, "a"
        archive.addfile(hard)
        archive.addfile(soft)

    hard = read("toolbox-1.0.tar.gz", buffer.getvalue(), "toolbox-1.0/hard", 5)
    soft = read("toolbox-1.0.tar.gz", buffer.getvalue(), "toolbox-1.0/soft", 0)

    assert hard.obstacle == "It is a link to another file of the archive."
    assert (soft.lines, soft.obstacle) == ((), "It is empty.")


def test_a_path_with_control_characters_is_found_as_it_is_listed():
    content = make_tar_gz({"toolbox-1.0/a\x07b": b"ring"})

    assert read("toolbox-1.0.tar.gz", content, "toolbox-1.0/a\\x07b", 4).lines == ("ring",)


def test_a_damaged_archive_is_an_obstacle_and_no_crash():
    filename, content = make_sdist(files={"a.py": b"x" * 1000})

    member = read(filename, content[:-40], "toolbox-1.0/a.py", 1000)

    assert member.obstacle.startswith("It cannot be shown here.")
