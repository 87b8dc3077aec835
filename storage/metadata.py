"""Core metadata: the METADATA of a wheel, the PKG-INFO of an sdist.

What the fields mean is said in packaging.python.org, "Core metadata specifications"; ``packaging`` judges their
values. The lines are split here and not by ``email``: its parser, on which everybody else relies, needs time that
grows with the square of the headers, and keeps silent about lines that it does not understand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, cast

from storage.archives import MAX_FINDINGS, Findings
from storage.errors import InvalidName, shorten
from storage.limits import Limits
from storage.names import normalize_project, parse_version

if TYPE_CHECKING:
    from packaging.metadata import RawMetadata
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet


@dataclass(frozen=True, slots=True)
class CoreMetadata:
    """The fields of core metadata, named as in ``packaging.metadata.RawMetadata``.

    ``UNKNOWN``, which old tools wrote for nothing, counts as nothing. Values are as written otherwise.
    """

    metadata_version: str
    name: str  # as spelled
    version: str  # as spelled
    summary: str | None = None  # one line
    description: str | None = None
    description_content_type: str | None = None
    keywords: tuple[str, ...] = ()
    author: str | None = None
    author_email: str | None = None
    maintainer: str | None = None
    maintainer_email: str | None = None
    home_page: str | None = None
    download_url: str | None = None
    license: str | None = None
    license_expression: str | None = None
    license_files: tuple[str, ...] = ()
    classifiers: tuple[str, ...] = ()
    requires_python: str | None = None
    requires_dist: tuple[str, ...] = ()
    requires_external: tuple[str, ...] = ()
    provides_extra: tuple[str, ...] = ()
    provides_dist: tuple[str, ...] = ()
    obsoletes_dist: tuple[str, ...] = ()
    project_urls: tuple[tuple[str, str], ...] = ()  # label and address, in their order
    dynamic: tuple[str, ...] = ()  # lower case
    platforms: tuple[str, ...] = ()
    supported_platforms: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()  # this and the next two: metadata 1.1
    provides: tuple[str, ...] = ()
    obsoletes: tuple[str, ...] = ()
    import_names: tuple[str, ...] | None = None  # None: not said; (): nothing can be imported
    import_namespaces: tuple[str, ...] = ()

    @property
    def metadata_level(self) -> tuple[int, int]:
        """Major and minor Metadata-Version, to compare; (0, 0) if it is malformed."""
        if not _VERSION.fullmatch(self.metadata_version):
            return (0, 0)
        major, minor = self.metadata_version.split(".")
        return (int(major), int(minor))

    def to_json(self) -> dict[str, object]:
        """Return the fields that are present, as JSON can carry them."""
        document: dict[str, object] = {}
        for key in _KEYS:
            value = getattr(self, key)
            if isinstance(value, str) or (key == "import_names" and value is not None):
                document[key] = value if isinstance(value, str) else list(value)
            elif value:
                document[key] = [list(item) if isinstance(item, tuple) else item for item in value]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> CoreMetadata:
        """Return what :meth:`to_json` was called on; keys that are missing or of the wrong type count as absent."""
        values: dict[str, object] = {"metadata_version": "", "name": "", "version": ""}
        for key in _KEYS:
            value = document.get(key)
            if key == "project_urls" and isinstance(value, list):
                values[key] = tuple((str(pair[0]), str(pair[1])) for pair in value if _is_pair(pair))
            elif key in _LISTS and isinstance(value, list):
                values[key] = tuple(item for item in value if isinstance(item, str))
            elif key not in _LISTS and isinstance(value, str):
                values[key] = value
        return cls(**values)  # type: ignore[arg-type]  # each key has been given the type of its field


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


_KEYS = tuple(field.name for field in fields(CoreMetadata))
_LISTS = frozenset(field.name for field in fields(CoreMetadata) if "tuple" in str(field.type))
# The header of each field: the key with "-", but for the plurals.
_PLURALS = {
    "classifier": "classifiers",
    "import-name": "import_names",
    "import-namespace": "import_namespaces",
    "license-file": "license_files",
    "platform": "platforms",
    "project-url": "project_urls",
    "supported-platform": "supported_platforms",
}
_HEADERS = {key.replace("_", "-"): key for key in _KEYS if key not in _PLURALS.values()} | _PLURALS
_REPEATED = _LISTS - {"keywords"}  # may stand in several headers


def read_metadata(data: bytes, where: str, limits: Limits, findings: Findings) -> CoreMetadata | None:
    """Read core metadata from the bytes of the file called *where* in messages.

    Name, Version, Metadata-Version, what installers obey (Requires-Python, Requires-Dist) and
    Description-Content-Type must be valid, every field that may stand once must stand once; other oddities become
    warnings in *findings*. None if it cannot be read at all.
    """
    if len(data) > limits.max_metadata_size:
        findings.refuse(f"{where} is larger than the limit of {limits.max_metadata_size:,} bytes.")
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        findings.refuse(f"{where} is not UTF-8: byte {error.start} cannot be decoded.")
        return None
    headers = read_headers(text, where, limits.max_metadata_headers, findings)
    if headers is None:
        return None
    values = _collect(headers, where, findings)
    metadata = _build(values, headers.body, where, findings)
    _check(metadata, values, where, findings)
    return metadata


# --- lines ---

_LINE = re.compile(r"([^\r\n]*)(\r\n|\n|\r|\Z)")
_NAME = re.compile(r"[!-9;-~]+(?=:)")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MAY_HAVE_FORM_FEEDS = frozenset({"description", "license"})  # README and GPL texts in headers of old files
_MAX_CONTINUATIONS = 10  # times the limit of headers: lines of folded headers all together
_DECISIVE = re.compile(r"(?:metadata-version|name|version|requires-\w+|provides-extra|dynamic)\s*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Headers:
    """The headers of a METADATA, PKG-INFO or WHEEL, and what comes after them."""

    pairs: list[tuple[str, str]]  # name in lower case, value with its folded lines
    body: str


def read_headers(text: str, where: str, max_headers: int, findings: Findings) -> Headers | None:
    """Split *text* into headers and body, as ``email.parser`` with its ``compat32`` policy would.

    None if they are malformed in a way that readers take differently; *findings* then has the reason.
    """
    lines: list[tuple[str, list[str]]] = []
    at, count = 0, 0
    for match in _LINE.finditer(text):
        line, at, count = match[1], match.end(), count + 1
        if not line:
            break
        if match[2] == "\r":
            findings.refuse(f"Line {count} of {where} ends with a lone carriage return; use line feeds.")
            return None
        if line[0] in " \t" and lines:
            lines[-1][1].append(line)
        elif name := _NAME.match(line):
            lines.append((name[0].lower(), [line[name.end() + 1 :].lstrip(" \t")]))
        else:
            at = match.start()
            _judge_stray_line(text, at, f"Line {count} of {where}", findings)
            break
        if len(lines) > max_headers or count > max_headers * _MAX_CONTINUATIONS:
            findings.refuse(f"{where} has more than the limit of {max_headers:,} headers.")
            return None
    pairs = [(name, "\n".join(parts)) for name, parts in lines]
    return None if _has_control_characters(pairs, where, findings) else Headers(pairs, text[at:])


def _judge_stray_line(text: str, at: int, which: str, findings: Findings) -> None:
    """Decide about a line that is no header: for most readers the body begins with it.

    Old tools wrote licences and the like unfolded; that is harmless unless it hides what installers obey.
    """
    for match in _LINE.finditer(text, at):
        if not match[1]:
            break
        if _DECISIVE.match(match[1]):
            findings.refuse(f"{which} is not a header, and hides {shorten(match[1], 60)} below it from installers.")
            return
    findings.warn(f"{which} is not a header; it and what follows are read as the description.")


def _has_control_characters(pairs: list[tuple[str, str]], where: str, findings: Findings) -> bool:
    for name, value in pairs:
        if found := _CONTROL.search(value):
            if found[0] == "\x0c" and name in _MAY_HAVE_FORM_FEEDS:
                value = value.replace("\x0c", "")
                found = _CONTROL.search(value)
            if found:
                findings.refuse(f"The header {shorten(name, 40)} of {where} contains a control character.")
                return True
    return False


# --- values ---

Values = dict[str, list[str]]  # every value of a field, by its key
# For email's parser, and so for pip, these turn the description into other messages, in each other without end.
_MIME = {
    "content-type": re.compile("text/plain", re.IGNORECASE),
    "content-transfer-encoding": re.compile("[78]bit|binary", re.IGNORECASE),
}


def _collect(headers: Headers, where: str, findings: Findings) -> Values:
    values: Values = {}
    unknown = []
    for name, value in headers.pairs:
        key = _HEADERS.get(name)
        if key is None:
            unknown.append(name)
            if name in _MIME and not _MIME[name].match(value):
                findings.refuse(f"{where} has a header {name.title()}, which changes how the rest of it is read.")
        elif value.strip() != "UNKNOWN":
            values.setdefault(key, []).append(value.strip())
    for key, given in values.items():
        if len(given) > 1 and key not in _REPEATED:
            findings.refuse(f"{where} has {_title(key)} {len(given)} times; it may stand once.")
    if unknown:
        findings.warn(f"{where} has unknown headers, the first is {shorten(unknown[0], 40)}.")
    return values


def _title(key: str) -> str:
    """Return the header of a field as people write it: "requires_dist" -> "Requires-Dist"."""
    name = next(header for header, other in _HEADERS.items() if other == key)
    return "-".join({"url": "URL"}.get(part, part.capitalize()) for part in name.split("-"))


def _build(values: Values, body: str, where: str, findings: Findings) -> CoreMetadata:
    built: dict[str, object] = {"metadata_version": "", "name": "", "version": ""}
    for key, given in values.items():
        lines = [_unfold(value) for value in given]
        if key in _REPEATED:
            built[key] = tuple(line for line in lines if line)
        elif lines[0]:
            built[key] = lines[0]
    if "license" in built:
        built["license"] = _dedent(values["license"][0])
    built["description"] = _description(values, body, where, findings)
    built["keywords"] = _split_keywords(values)
    built["project_urls"] = tuple(_split_urls(values.get("project_urls", [])))
    built["dynamic"] = tuple(value.lower() for value in values.get("dynamic", []))
    return CoreMetadata(**built)  # type: ignore[arg-type]  # each key has been given the type of its field


def _unfold(value: str) -> str:
    return " ".join(line.strip(" \t") for line in value.split("\n")) if "\n" in value else value


def _dedent(value: str) -> str:
    """Take away what folding put in front of the lines: eight spaces, or seven and a bar (PEP 345)."""
    return re.sub(r"\n(?: {7}[| ]|[ \t]+(?=\n|\Z))", "\n", value)


def _description(values: Values, body: str, where: str, findings: Findings) -> str | None:
    in_header = _dedent(values["description"][0]) if "description" in values else ""
    in_body = body if body.strip() not in ("", "UNKNOWN") else ""
    if in_header and in_body:
        findings.warn(f"{where} has a description twice; the one after the headers counts.")
    return in_body or in_header or None


def _split_keywords(values: Values) -> tuple[str, ...]:
    text = _unfold(values.get("keywords", [""])[0])
    old = values.get("metadata_version", [""])[0] < "2.1"  # then they were separated by spaces
    words = text.split() if old and "," not in text else text.split(",")
    return tuple(word.strip() for word in words if word.strip())


def _split_urls(values: list[str]) -> Iterator[tuple[str, str]]:
    for value in values:
        label, _, url = _unfold(value).partition(",")
        yield label.strip(), url.strip()


# --- checks ---

_VERSIONS = frozenset({"1.0", "1.1", "1.2", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6"})
_VERSION = re.compile(r"[12]\.[0-9]{1,3}", re.ASCII)
MAX_REQUIREMENT = 16_384  # characters of one Requires-Dist, Requires-Python or License-Expression
MAX_REQUIREMENTS = 2_000_000  # characters of all Requires-Dist; reading that many takes some three seconds
MAX_NESTING = 50  # parentheses in each other; the parsers call themselves for each
_LONG_NUMBER = re.compile(r"[0-9]{300}")  # packaging compares numbers only later, int() refuses 4,300 digits
MAX_CONTENT_TYPE = 200  # characters
MAX_SUMMARY = 512  # characters; PyPI's limit


def _check(metadata: CoreMetadata, values: Values, where: str, findings: Findings) -> None:
    _check_identity(metadata, where, findings)
    _check_requirements(values, where, findings)
    content_type = metadata.description_content_type
    if content_type is not None and not _is_content_type(content_type):
        findings.refuse(
            f"{where} has the Description-Content-Type {shorten(content_type)}; "
            "use text/plain, text/x-rst or text/markdown, in UTF-8."
        )
    if "\n" in values.get("summary", [""])[0] or len(metadata.summary or "") > MAX_SUMMARY:
        findings.warn(f"{where} has a Summary of more than one line or {MAX_SUMMARY} characters.")
    if metadata.license is not None and metadata.license_expression is not None:
        findings.warn(f"{where} has both License and License-Expression; the latter counts.")
    for key in (
        "dynamic",
        "provides_extra",
        "license_expression",
        "license_files",
        "import_names",
        "import_namespaces",
    ):
        given = getattr(metadata, key)
        if given and not _is_valid(key, list(given) if isinstance(given, tuple) else given):
            findings.warn(f"{where} has an invalid {_title(key)}.")
    if any(not label or not url for label, url in metadata.project_urls):
        findings.warn(f"{where} has a Project-URL without label or address.")


def _check_identity(metadata: CoreMetadata, where: str, findings: Findings) -> None:
    version = metadata.metadata_version
    if not _VERSION.fullmatch(version):
        findings.refuse(
            f"{where} has the Metadata-Version {shorten(version)}; 1.0 to 2.6 are known."
            if version
            else f"{where} has no Metadata-Version."
        )
    elif version not in _VERSIONS:
        findings.warn(f"{where} has the Metadata-Version {version}, which is not known; 1.0 to 2.6 are.")
    for title, value, parse in (
        ("Name", metadata.name, normalize_project),
        ("Version", metadata.version, parse_version),
    ):
        if not value:
            findings.refuse(f"{where} has no {title}.")
            continue
        try:
            parse(value)
        except InvalidName as error:
            findings.refuse(f"{where} has an invalid {title}: {error}.")


def _check_requirements(values: Values, where: str, findings: Findings) -> None:
    # Here and below, since reading a sidecar, or starting a server, needs none of what judges a new file.
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    python = values.get("requires_python", [""])[0]
    if not (_is_parsable(python) and _parses(SpecifierSet, python)):
        findings.refuse(
            f"{where} has the Requires-Python {shorten(python)}; write it as PEP 440 says, like '>=3.9'."
        )
    requirements = values.get("requires_dist", [])
    if sum(map(len, requirements)) > MAX_REQUIREMENTS:
        findings.refuse(f"{where} has Requires-Dist of more than {MAX_REQUIREMENTS:,} characters together.")
        return
    faulty = (text for text in requirements if not (_is_parsable(text) and _parses(Requirement, text)))
    for text in islice(faulty, MAX_FINDINGS):
        findings.refuse(
            f"{where} has the Requires-Dist {shorten(text)}; "
            "write it as PEP 508 says, like 'name>=1.0; python_version<\"3.12\"'."
        )


def _is_parsable(text: str) -> bool:
    """Whether *text* is short and flat enough for parsers that call themselves, with numbers that int() takes."""
    if len(text) > MAX_REQUIREMENT or _LONG_NUMBER.search(text):
        return False
    depth = deepest = 0
    for bracket in re.findall(r"[()\[\]]", text):
        depth += 1 if bracket in "([" else -1
        deepest = max(deepest, depth)
    return deepest <= MAX_NESTING


def _parses(parser: type[Requirement | SpecifierSet], text: str) -> bool:
    try:
        parser(text)
    except ValueError:  # theirs are kinds of it; so is Python's for numbers of more than 4,300 digits
        return False
    return True


# What email's own parser makes of anything else is a matter of luck.
_CONTENT_TYPE = re.compile(
    r"[a-z]+/[a-z-]+(?:\s*;\s*[\w-]+\s*=\s*(?:\"[^\"\\\\]*\"|[\w.-]+))*\s*;?\s*", re.I | re.A
)


def _is_content_type(text: str) -> bool:
    well_formed = len(text) <= MAX_CONTENT_TYPE and _CONTENT_TYPE.fullmatch(text)
    return bool(well_formed) and _is_valid("description_content_type", text.rstrip("; "))


def _is_valid(key: str, value: str | list[str]) -> bool:
    if isinstance(value, str) and not _is_parsable(value):
        return False
    from packaging.metadata import InvalidMetadata, Metadata

    try:
        getattr(Metadata.from_raw(cast("RawMetadata", {key: value}), validate=False), key)
    except (InvalidMetadata, ValueError):
        return False
    return True
