"""What pip makes of each file of a project, and what the tags of wheels mean."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from packaging.specifiers import SpecifierSet

from storage.errors import InvalidValue
from storage.explaining import (
    Question,
    Verdict,
    describe_platform,
    describe_python,
    explain,
    join_words,
    manylinux_platforms,
    musllinux_platforms,
    parse_platform,
    parse_python,
    parse_requirement,
    platforms,
    supported_tags,
)
from storage.names import parse_filename
from storage.sidecars import File
from storage.statuses import ProjectStatus, Status

WHEN = datetime(2026, 11, 24, tzinfo=UTC)


def file(filename: str, requires_python: str | None = None, yanked: str | None = None) -> File:
    parsed = parse_filename(filename)
    return File(
        filename,
        parsed.project,
        str(parsed.version),
        parsed.packagetype,
        10,
        "0" * 64,
        WHEN,
        requires_python,
        None,
        yanked,
    )


def ask(requirement: str = "", python: str = "3.12", platform: str = "", **more) -> Question:
    specifier = parse_requirement(requirement, parse_filename("toolbox-1.0.tar.gz").project)
    return Question(parse_python(python), parse_platform(platform), specifier, **more)


WHEEL = "toolbox-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("described", "question", "verdict", "words"),
    [
        (file(WHEEL), ask(), "chosen", "This wheel is what pip installs."),
        (file("toolbox-1.0.tar.gz"), ask(), "chosen", "This sdist is what pip builds and installs."),
        (file(WHEEL), ask(private=True), "chosen", "given a token: the repository is private"),
        (
            file("toolbox-1.0-cp311-cp311-win_amd64.whl"),
            ask(),
            "skipped",
            "It is built for CPython 3.11, and this is CPython 3.12; it is built for Windows, x86-64, and this is "
            "Linux x86-64, glibc 2.36 (Debian 12).",
        ),
        (
            file("toolbox-1.0-cp312-cp312-manylinux_2_39_x86_64.whl"),
            ask(),
            "skipped",
            "It is built for Linux with glibc 2.39 or newer, x86-64, and this is Linux x86-64, glibc 2.36",
        ),
        (file("toolbox-1.0-cp312-cp312-manylinux2014_x86_64.whl"), ask(), "chosen", "This wheel"),
        (file("toolbox-1.0-cp39-abi3-manylinux_2_17_x86_64.whl"), ask(), "chosen", "This wheel"),
        (
            file("toolbox-1.0-cp39-abi3-manylinux_2_17_x86_64.whl"),
            ask(python="3.14t"),
            "skipped",
            "It is built for CPython 3.9 or newer (stable ABI), and this is CPython 3.14t.",
        ),
        (file("toolbox-1.0-cp37-cp37m-manylinux1_x86_64.whl"), ask(python="3.7"), "chosen", "This wheel"),
        (
            file("toolbox-1.0-cp312-cp312-musllinux_1_2_x86_64.whl"),
            ask(),
            "skipped",
            "It is built for Linux with musl 1.2 or newer, x86-64",
        ),
        (
            file("toolbox-1.0-cp312-cp312-macosx_11_0_arm64.whl"),
            ask(platform="macos-14-arm64"),
            "chosen",
            "This wheel",
        ),
        (
            file("toolbox-1.0-cp312-cp312-macosx_15_0_arm64.whl"),
            ask(platform="macos-14-arm64"),
            "skipped",
            "It is built for macOS 15 or newer, Apple silicon, and this is macOS 14, Apple silicon.",
        ),
        (
            file(WHEEL, requires_python=">=3.13"),
            ask(),
            "skipped",
            "It requires Python >=3.13; this is Python 3.12.",
        ),
        (file(WHEEL, requires_python=">=3.12.4"), ask(), "chosen", "This wheel"),
        (file(WHEEL, requires_python=">=3.12.4"), ask(python="3.12.3"), "skipped", "this is Python 3.12.3."),
        (file(WHEEL, requires_python="nonsense"), ask(), "chosen", "This wheel"),
        (
            file(WHEEL, yanked="broken"),
            ask(),
            "skipped",
            "It is yanked (broken); pip takes it only where the requirement is '==1.0'.",
        ),
        (file(WHEEL, yanked=""), ask("==1.*"), "skipped", "It is yanked; pip takes it only"),
        (file(WHEEL, yanked=""), ask("toolbox==1.0"), "chosen", "It is yanked, but the requirement names exactly"),
        (file(WHEEL), ask("toolbox>=2"), "skipped", "Its version is not in the requirement '>=2'."),
        (file("toolbox-1.0rc1.tar.gz"), ask(), "chosen", "This sdist"),
        (
            file(WHEEL),
            ask(status=ProjectStatus(Status.QUARANTINED)),
            "skipped",
            "The project is quarantined: none of its files is offered to anybody.",
        ),
        (file(WHEEL), ask(status=ProjectStatus(Status.ARCHIVED)), "chosen", "This wheel"),
    ],
)
def test_a_file_alone_is_explained(described, question, verdict, words):
    (explanation,) = explain([described], question)

    assert explanation.verdict == verdict
    assert words in explanation.sentence


def test_of_many_files_one_is_chosen_and_every_other_has_its_reason():
    files = [
        file("toolbox-0.9-py3-none-any.whl"),
        file("toolbox-1.0.tar.gz"),
        file("toolbox-1.0-py3-none-any.whl"),
        file("toolbox-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"),
        file("toolbox-1.1-cp313-cp313-win_amd64.whl"),
        file("toolbox-1.1.tar.gz", yanked=""),
        file("toolbox-2.0b1-py3-none-any.whl"),
    ]

    explanations = {e.file.filename: e for e in explain(files, ask())}

    assert list(explanations) == [
        "toolbox-2.0b1-py3-none-any.whl",
        "toolbox-1.1-cp313-cp313-win_amd64.whl",
        "toolbox-1.1.tar.gz",
        "toolbox-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        "toolbox-1.0-py3-none-any.whl",
        "toolbox-1.0.tar.gz",
        "toolbox-0.9-py3-none-any.whl",
    ]
    assert [e.verdict for e in explanations.values()] == [
        Verdict.SKIPPED,
        Verdict.SKIPPED,
        Verdict.SKIPPED,
        Verdict.CHOSEN,
        Verdict.FITS,
        Verdict.FITS,
        Verdict.FITS,
    ]
    sentences = [e.sentence for e in explanations.values()]
    assert "It is a pre-release" in sentences[0]
    assert "--pre" in sentences[0]
    assert sentences[4] == "It fits, but toolbox-1.0-cp312-cp312-manylinux_2_28_x86_64.whl fits better."
    assert sentences[5] == "It fits, but a wheel of the same version saves building it."
    assert sentences[6] == "It fits, but version 1.0 is newer."


def test_a_pre_release_is_taken_where_the_requirement_names_one():
    files = [file("toolbox-1.0.tar.gz"), file("toolbox-2.0b1.tar.gz")]

    explanations = explain(files, ask(">=2.0b1"))

    assert [(e.file.version, e.verdict) for e in explanations] == [
        ("2.0b1", Verdict.CHOSEN),
        ("1.0", Verdict.SKIPPED),
    ]


def test_a_yanked_file_is_passed_over_even_if_pinned_while_another_of_the_version_stands():
    files = [file("toolbox-1.0.tar.gz"), file(WHEEL, yanked="wrong tag")]

    explanations = {e.file.filename: e.verdict for e in explain(files, ask("==1.0"))}

    assert explanations == {"toolbox-1.0.tar.gz": Verdict.CHOSEN, WHEEL: Verdict.SKIPPED}


def test_of_two_builds_of_one_wheel_the_higher_build_number_is_chosen():
    files = [file("toolbox-1.0-2-py3-none-any.whl"), file("toolbox-1.0-10-py3-none-any.whl"), file(WHEEL)]

    chosen = [e.file.filename for e in explain(files, ask()) if e.verdict is Verdict.CHOSEN]

    assert chosen == ["toolbox-1.0-10-py3-none-any.whl"]


def test_no_files_have_no_explanations():
    assert explain([], ask()) == []


# --- what is typed ---


@pytest.mark.parametrize("text", ["2.7", "3", "3.x", "3.12t", "3.123", "python", "3.12.4.5", "٣.12", "3.12\n3"])
def test_a_python_that_is_none_is_refused(text):
    with pytest.raises(InvalidValue, match=r"must be one such as '3\.12'"):
        parse_python(text)


@pytest.mark.parametrize(
    ("text", "said"), [("3.12", "3.12"), (" 3.9.1 ", "3.9.1"), ("3.14t", "3.14t"), ("", "3.12"), ("3.8", "3.8")]
)
def test_a_python_is_read_as_people_write_it(text, said):
    assert str(parse_python(text)) == said


def test_a_platform_that_is_not_on_the_list_is_refused():
    with pytest.raises(InvalidValue, match="one of the list"):
        parse_platform("amiga")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("other>=1", "must be about toolbox, not 'other'"),
        ("toolbox >= one", "must be written like 'toolbox>=1.0,<2'"),
        (">=", "must be written like"),
        ("(" * 150, "must be written like"),
        ("toolbox" + " " * 300 + ">=1", "at most 200 characters"),
        ("toolbox ; python_version <", "must be written like"),
    ],
)
def test_a_requirement_that_cannot_be_answered_is_refused(text, rule):
    with pytest.raises(InvalidValue) as refused:
        parse_requirement(text, parse_filename(WHEEL).project)

    assert rule in str(refused.value)


@pytest.mark.parametrize(
    ("text", "specifier"),
    [("", ""), (">=1,<2", ">=1,<2"), ("Toolbox[cli]~=1.0", "~=1.0"), ("tool.box", None), ("toolbox", "")],
)
def test_a_requirement_may_name_the_project_or_only_versions(text, specifier):
    if specifier is None:
        with pytest.raises(InvalidValue):
            parse_requirement(text, parse_filename(WHEEL).project)
    else:
        assert parse_requirement(text, parse_filename(WHEEL).project) == SpecifierSet(specifier)


# --- tags ---


def test_platform_tags_come_in_the_order_of_pep_600():
    tags = list(manylinux_platforms(18, "x86_64"))

    assert tags[:3] == ["manylinux_2_18_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"]
    assert tags[-3:] == ["manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    assert list(manylinux_platforms(17, "aarch64")) == [
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
        "linux_aarch64",
    ]
    assert list(musllinux_platforms(1, "x86_64")) == [
        "musllinux_1_1_x86_64",
        "musllinux_1_0_x86_64",
        "linux_x86_64",
    ]


def test_every_platform_of_the_list_takes_pure_wheels_and_its_own():
    for platform in platforms().values():
        tags = {str(tag) for tag in supported_tags(parse_python("3.12"), platform)}

        assert "py3-none-any" in tags
        assert f"cp312-cp312-{platform.tags[0]}" in tags


@pytest.mark.parametrize(
    ("tag", "python", "platform"),
    [
        ("py3-none-any", "any Python 3", "any platform"),
        ("py2.7-none-any", "the interpreter py2.7", "any platform"),
        ("py36-none-any", "Python 3.6 or newer", "any platform"),
        ("cp312-cp312-manylinux_2_17_x86_64", "CPython 3.12", "Linux with glibc 2.17 or newer, x86-64"),
        ("cp312-cp312-manylinux2014_aarch64", "CPython 3.12", "Linux with glibc 2.17 or newer, ARM 64"),
        ("cp27-cp27mu-manylinux1_i686", "CPython 2.7", "Linux with glibc 2.5 or newer, 32-bit x86"),
        ("cp313-cp313t-win_arm64", "CPython 3.13, free-threaded", "Windows, ARM 64"),
        ("cp39-abi3-win32", "CPython 3.9 or newer (stable ABI)", "Windows, 32 bit"),
        ("cp312-cp312d-linux_armv7l", "CPython 3.12, debug build", "Linux, armv7l"),
        ("pp310-pypy310_pp73-musllinux_1_1_x86_64", "PyPy 3.10", "Linux with musl 1.1 or newer, x86-64"),
        ("cp310-cp310-macosx_10_9_universal2", "CPython 3.10", "macOS 10.9 or newer, Apple silicon and Intel"),
        ("cp310-cp310-macosx_11_0_arm64", "CPython 3.10", "macOS 11 or newer, Apple silicon"),
        ("xy1-none-amiga", "the interpreter xy1", "the platform amiga"),
    ],
)
def test_tags_are_said_in_words(tag, python, platform):
    interpreter, abi, platform_tag = tag.split("-")

    assert describe_python(interpreter, abi) == python
    assert describe_platform(platform_tag) == platform


def test_of_many_words_only_the_first_are_said():
    assert join_words(["a"]) == "a"
    assert join_words(["a", "b", "c"]) == "a, b or c"
    assert join_words(list("abcdefg")) == "a, b, c or 4 more"


def test_a_wheel_for_many_platforms_is_explained_in_a_sentence_that_ends():
    many = ".".join(f"manylinux_2_{minor}_s390x" for minor in range(17, 25))

    (explanation,) = explain([file(f"toolbox-1.0-cp312-cp312-{many}.whl")], ask())

    assert explanation.sentence.startswith("It is built for Linux with glibc 2.17 or newer, s390x, ")
    assert "or 5 more, and this is" in explanation.sentence
