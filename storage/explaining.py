"""Why pip takes a file, or passes it over; and what the tags of a wheel mean, in words. Pure.

The rules are pip's own (``pip._internal.index.package_finder`` and the resolver's ``factory``), computed with
``packaging`` for an interpreter and a platform that need not be this machine's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, lru_cache

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import BuildTag, NormalizedName, canonicalize_name
from packaging.version import Version

from storage.errors import InvalidValue, shorten
from storage.names import parse_filename
from storage.sidecars import File
from storage.statuses import ProjectStatus

# --- platforms ---


@dataclass(frozen=True, slots=True)
class Platform:
    """Where somebody wants to install."""

    key: str  # in addresses
    group: str  # heading in a list of choices
    title: str
    tags: tuple[str, ...]  # platform tags, the best first


# PEP 600: what the older names stand for, by the minor version of glibc 2.
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_OLD_ARCHITECTURES = ("x86_64", "i686")  # these alone have wheels for anything before glibc 2.17


def manylinux_platforms(minor: int, architecture: str) -> Iterator[str]:
    """Yield the platform tags of a Linux with glibc 2.*minor*, the best first (PEP 600)."""
    oldest = 5 if architecture in _OLD_ARCHITECTURES else 17
    for older in range(minor, oldest - 1, -1):
        yield f"manylinux_2_{older}_{architecture}"
        if older in _LEGACY:
            yield f"{_LEGACY[older]}_{architecture}"
    yield f"linux_{architecture}"


def musllinux_platforms(minor: int, architecture: str) -> Iterator[str]:
    """Yield the platform tags of a Linux with musl 1.*minor*, the best first (PEP 656)."""
    for older in range(minor, -1, -1):
        yield f"musllinux_1_{older}_{architecture}"
    yield f"linux_{architecture}"


_GLIBC = {
    41: "Debian 13",
    39: "Ubuntu 24.04",
    36: "Debian 12",
    35: "Ubuntu 22.04",
    34: "RHEL 9, Amazon Linux 2023",
    31: "Debian 11, Ubuntu 20.04",
    28: "RHEL 8",
    17: "CentOS 7",
}
_MACS = {"arm64": (26, 15, 14, 13, 12, 11), "x86_64": (26, 15, 14, 13, 12, 11)}
_ARCHITECTURES = {"x86_64": "x86-64", "aarch64": "ARM 64"}


def _platforms() -> Iterator[Platform]:
    for architecture, word in _ARCHITECTURES.items():
        for minor, systems in _GLIBC.items():
            title = f"Linux {word}, glibc 2.{minor} ({systems})"
            tags = tuple(manylinux_platforms(minor, architecture))
            yield Platform(f"linux-{architecture}-glibc2.{minor}", f"Linux {word}", title, tags)
        title, tags = f"Alpine Linux {word}, musl 1.2", tuple(musllinux_platforms(2, architecture))
        yield Platform(f"linux-{architecture}-musl1.2", f"Linux {word}", title, tags)
    for architecture, versions in _MACS.items():
        word = "Apple silicon" if architecture == "arm64" else "Intel"
        for version in versions:
            tags = tuple(mac_platforms((version, 0), architecture))
            yield Platform(f"macos-{version}-{architecture}", "macOS", f"macOS {version}, {word}", tags)
    for tag, word in (("win_amd64", "x86-64"), ("win_arm64", "ARM 64"), ("win32", "32 bit")):
        yield Platform(f"windows-{tag}", "Windows", f"Windows, {word}", (tag,))


@cache
def platforms() -> dict[str, Platform]:
    """The platforms that can be chosen, by key, the most usual first."""
    return {platform.key: platform for platform in _platforms()}


DEFAULT_PLATFORM = "linux-x86_64-glibc2.36"


def parse_platform(key: str) -> Platform:
    """Return the platform with that key.

    :raises InvalidValue: if there is none.
    """
    try:
        return platforms()[key or DEFAULT_PLATFORM]
    except KeyError as error:
        raise InvalidValue("platform", "must be one of the list") from error


# --- Pythons ---


@dataclass(frozen=True, slots=True)
class Python:
    """A CPython to install for."""

    minor: int  # of Python 3
    patch: int | None = None  # None: the newest there is
    free_threaded: bool = False

    def __str__(self) -> str:
        patch = "" if self.patch is None else f".{self.patch}"
        return f"3.{self.minor}{patch}{'t' if self.free_threaded else ''}"

    @property
    def version(self) -> Version:
        """What Requires-Python is compared with."""
        return Version(f"3.{self.minor}.{_NEWEST_PATCH if self.patch is None else self.patch}")


PYTHONS = ("3.14", "3.14t", "3.13", "3.13t", "3.12", "3.11", "3.10", "3.9", "3.8")  # what a list offers
DEFAULT_PYTHON = "3.12"
_NEWEST_PATCH = 999  # stands for "the newest there is"
_PYTHON = re.compile(r"3\.([0-9]{1,2})(?:\.([0-9]{1,3}))?(t?)", re.ASCII)


def parse_python(text: str) -> Python:
    """Read "3.12", "3.12.4" or, for a free-threaded one, "3.13t".

    :raises InvalidValue: if it is none of these.
    """
    match = _PYTHON.fullmatch(text.strip() or DEFAULT_PYTHON)
    if match is None or (match[3] and int(match[1]) < 13):
        raise InvalidValue("Python version", "must be one such as '3.12', '3.12.4' or '3.14t'")
    return Python(int(match[1]), int(match[2]) if match[2] else None, bool(match[3]))


MAX_REQUIREMENT = 200  # characters


def parse_requirement(text: str, project: NormalizedName) -> SpecifierSet:
    """Read which versions of *project* are wanted: "name>=2" or ">=2"; all of them if *text* is empty.

    :raises InvalidValue: if it cannot be read, or is about another project.
    """
    text = text.strip()
    try:
        if len(text) > MAX_REQUIREMENT:
            raise InvalidValue("requirement", f"must be of at most {MAX_REQUIREMENT} characters")
        if not text or text[0] in "<>=!~":
            return SpecifierSet(text)
        requirement = Requirement(text)
    except (InvalidRequirement, InvalidSpecifier) as error:
        raise InvalidValue("requirement", f"must be written like '{project}>=1.0,<2'") from error
    if canonicalize_name(requirement.name) != project:
        raise InvalidValue("requirement", f"must be about {project}, not {shorten(requirement.name, 60)}")
    return requirement.specifier


@lru_cache(maxsize=64)
def supported_tags(python: Python, platform: Platform) -> dict[Tag, int]:
    """Return the tags that pip accepts, each with its rank; 0 is the best."""
    version = (3, python.minor)
    interpreter = f"cp3{python.minor}"
    flags = "t" if python.free_threaded else "m" if python.minor < 8 else ""
    tags = dict.fromkeys(cpython_tags(version, [f"{interpreter}{flags}"], platform.tags))
    tags.update(dict.fromkeys(compatible_tags(version, interpreter, platform.tags)))
    return {tag: rank for rank, tag in enumerate(tags)}


# --- explanations ---


class Verdict(StrEnum):
    """What becomes of a file."""

    CHOSEN = "chosen"  # pip installs this one
    FITS = "fits"  # it could, but there is a better one
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What pip makes of one file, and why, in a sentence."""

    file: File
    verdict: Verdict
    sentence: str


@dataclass(frozen=True, slots=True)
class Question:
    """For which interpreter, where, which versions, and of what kind of project."""

    python: Python
    platform: Platform
    specifier: SpecifierSet
    status: ProjectStatus = field(default_factory=ProjectStatus)
    private: bool = False  # the repository


def explain(files: Iterable[File], question: Question) -> list[Explanation]:
    """Say of every one of a project's *files* what pip does with it; the newest version first."""
    ordered = sorted(files, key=lambda file: file.filename)
    ordered.sort(key=lambda file: file.sort_key[0], reverse=True)
    if not question.status.offers_files:
        sentence = "The project is quarantined: none of its files is offered to anybody."
        return [Explanation(file, Verdict.SKIPPED, sentence) for file in ordered]
    tags = supported_tags(question.python, question.platform)
    reasons = {file: _link_fault(file, question, tags) for file in ordered}
    candidates = [file for file in ordered if not reasons[file]]
    reasons |= _version_faults(candidates, question.specifier)
    candidates = [file for file in candidates if not reasons[file]]
    reasons |= _yank_faults(candidates, question.specifier)
    candidates = [file for file in candidates if not reasons[file]]
    best = max(candidates, key=lambda file: _preference(file, tags), default=None)
    return [_judge(file, reasons[file], best, question) for file in ordered]


def _judge(file: File, reason: str, best: File | None, question: Question) -> Explanation:
    if reason or best is None:
        return Explanation(file, Verdict.SKIPPED, reason)
    if file is not best:
        return Explanation(file, Verdict.FITS, f"It fits, but {_why_better(best, file)}.")
    token = ", given a token: the repository is private, and without one pip is refused" if question.private else ""
    yanked = " It is yanked, but the requirement names exactly this version." if file.yanked else ""
    how = "This sdist is what pip builds and" if file.packagetype == "sdist" else "This wheel is what pip"
    return Explanation(file, Verdict.CHOSEN, f"{how} installs{token}.{yanked}")


def _why_better(best: File, file: File) -> str:
    if best.version != file.version:
        return f"version {best.version} is newer"
    if file.packagetype == "sdist":
        return "a wheel of the same version saves building it"
    return f"{best.filename} fits better"


def _preference(file: File, tags: dict[Tag, int]) -> tuple[Version, int, BuildTag]:
    """What pip sorts by: version, how well the tags fit, build number."""
    parsed = parse_filename(file.filename)
    if file.packagetype == "sdist":
        return parsed.version, -len(tags), ()
    return parsed.version, -min(tags[tag] for tag in parsed.tags if tag in tags), parsed.build


def _link_fault(file: File, question: Question, tags: dict[Tag, int]) -> str:
    """Return why pip does not even look at the version, or ""."""
    if file.packagetype == "bdist_wheel" and (fault := _tag_fault(file, question, tags)):
        return fault
    if file.requires_python and not _allows(file.requires_python, question.python.version):
        return f"It requires Python {file.requires_python}; this is Python {question.python}."
    return ""


def _allows(requires_python: str, version: Version) -> bool:
    try:
        return SpecifierSet(requires_python).contains(version)
    except InvalidSpecifier:  # pip ignores such a one
        return True


def _tag_fault(file: File, question: Question, tags: dict[Tag, int]) -> str:
    own = parse_filename(file.filename).tags
    if not own.isdisjoint(tags):
        return ""
    where = {tag.platform for tag in tags}
    which = {(tag.interpreter, tag.abi) for tag in tags}
    faults = []
    if all((tag.interpreter, tag.abi) not in which for tag in own):
        built_for = join_words(unique(describe_python(tag.interpreter, tag.abi) for tag in ordered_tags(own)))
        faults.append(f"is built for {built_for}, and this is CPython {question.python}")
    if all(tag.platform not in where for tag in own):
        built_for = join_words(unique(describe_platform(tag.platform) for tag in ordered_tags(own)))
        faults.append(f"is built for {built_for}, and this is {question.platform.title}")
    if not faults:
        faults.append("has no tag for this Python on this platform")
    return f"It {'; it '.join(faults)}."


def _version_faults(files: Sequence[File], specifier: SpecifierSet) -> dict[File, str]:
    allowed = set(specifier.filter(dict.fromkeys(file.version for file in files)))
    return {file: "" if file.version in allowed else _version_fault(file, specifier) for file in files}


def _version_fault(file: File, specifier: SpecifierSet) -> str:
    if not specifier.contains(file.version, prereleases=True):
        return f"Its version is not in the requirement {str(specifier)!r}."
    return (
        "It is a pre-release; pip leaves these out where there is a final release, "
        f"unless it runs with --pre or the requirement names one, as in '=={file.version}'."
    )


def _yank_faults(files: Sequence[File], specifier: SpecifierSet) -> dict[File, str]:
    """PEP 592, as pip has it: all yanked, and one version pinned, then take it; or else never."""
    pinned = any(s.operator == "===" or (s.operator == "==" and not s.version.endswith(".*")) for s in specifier)
    if pinned and all(file.yanked for file in files):
        return dict.fromkeys(files, "")
    return {file: _yank_sentence(file) if file.yanked else "" for file in files}


def _yank_sentence(file: File) -> str:
    reason = f" ({file.yanked_reason})" if file.yanked_reason else ""
    return f"It is yanked{reason}; pip takes it only where the requirement is '=={file.version}'."


# --- tags in words ---

_INTERPRETERS = {"cp": "CPython", "pp": "PyPy", "py": "Python", "gp": "GraalPy", "graalpy": "GraalPy"}
_INTERPRETER = re.compile(r"([a-z]+)([0-9]?)([0-9]*)", re.ASCII)
_WORDS = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "ARM 64", "arm64": "ARM 64", "i686": "32-bit x86"}
_LINUX = re.compile(r"(many|musl)linux_([0-9]{1,3})_([0-9]{1,3})_(\w+)", re.ASCII)
_MACOS = re.compile(r"macosx_([0-9]{1,3})_([0-9]{1,3})_(\w+)", re.ASCII)
_MAC_WORDS = {
    "arm64": "Apple silicon",
    "x86_64": "Intel",
    "universal2": "Apple silicon and Intel",
    "intel": "Intel",
    "fat": "PowerPC and Intel",
}


def ordered_tags(tags: Iterable[Tag]) -> list[Tag]:
    """Return *tags* in an order that people expect: 3.9 before 3.10, py2 before py3."""
    return sorted(tags, key=lambda tag: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", str(tag))])


def describe_python(interpreter: str, abi: str) -> str:
    """Say which Pythons the first two parts of a tag stand for: "cp39", "abi3" -> "CPython 3.9 or newer"."""
    match = _INTERPRETER.fullmatch(interpreter)
    if match is None or match[1] not in _INTERPRETERS:
        return f"the interpreter {interpreter}"
    name = f"{_INTERPRETERS[match[1]]} {match[2]}{'.' if match[3] else ''}{match[3]}".rstrip()
    if abi in ("abi3", "abi3t"):
        return f"{name} or newer{', free-threaded' if abi == 'abi3t' else ''} (stable ABI)"
    if match[1] == "cp" and abi.startswith(interpreter):
        flags = abi.removeprefix(interpreter)
        return name + (", free-threaded" if "t" in flags else ", debug build" if "d" in flags else "")
    if match[1] == "py":
        return f"{name} or newer" if match[3] else f"any {name}"
    return name


def describe_platform(platform: str) -> str:
    """Say where a platform tag fits: "manylinux_2_28_x86_64" -> "Linux with glibc 2.28 or newer, x86-64"."""
    if platform == "any":
        return "any platform"
    for minor, legacy in _LEGACY.items():
        if platform.startswith(f"{legacy}_"):
            platform = f"manylinux_2_{minor}_{platform.removeprefix(f'{legacy}_')}"
    if match := _LINUX.fullmatch(platform):
        library = "glibc" if match[1] == "many" else "musl"
        return f"Linux with {library} {match[2]}.{match[3]} or newer, {_word(match[4])}"
    if match := _MACOS.fullmatch(platform):
        version = match[1] if int(match[1]) > 10 else f"{match[1]}.{match[2]}"
        return f"macOS {version} or newer, {_MAC_WORDS.get(match[3], match[3])}"
    if platform.startswith("linux_"):
        return f"Linux, {_word(platform.removeprefix('linux_'))}"
    if platform.startswith("win"):
        return f"Windows, {'32 bit' if platform == 'win32' else _word(platform.removeprefix('win_'))}"
    return f"the platform {platform}"


def _word(architecture: str) -> str:
    return _WORDS.get(architecture, architecture)


def unique(words: Iterable[str]) -> list[str]:
    """Return *words* without repetitions, in their order."""
    return list(dict.fromkeys(words))


MAX_WORDS = 4


def join_words(words: Sequence[str]) -> str:
    """Return "a", "a or b", "a, b or c"; of many only the first."""
    if len(words) > MAX_WORDS:
        words = [*words[: MAX_WORDS - 1], f"{len(words) - MAX_WORDS + 1} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
