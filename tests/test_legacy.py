"""Uploads by twine, uv, poetry, pdm, hatch and flit: the legacy protocol (specs.md 3, contract.md section 4)."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import random
import re
from dataclasses import replace

import pytest

from app import create_app
from settings import Settings
from storage.repository import Repository, project_of
from storage.statuses import ProjectStatus, Status
from tests.conftest import ORG, REPO, TESTER, basic
from tests.storage.makers import make_sdist, make_wheel

URL = f"/{ORG}/{REPO}/pypi/legacy/"
UV = "application/json;q=0.9, text/plain;q=0.8, text/html;q=0.7"
BOUNDARY = "0123456789abcdef"


def fields_of(filename: str, content: bytes, **changes: str | None) -> list[tuple[str, str]]:
    """Return the fields that twine would send for a file; a change to None leaves one out."""
    stem = filename.removesuffix(".tar.gz")
    name, version = stem.split("-")[:2]
    fields = {
        ":action": "file_upload",
        "protocol_version": "1",
        "metadata_version": "2.1",
        "name": name,
        "version": version,
        "filetype": "bdist_wheel" if filename.endswith(".whl") else "sdist",
        "pyversion": "py3" if filename.endswith(".whl") else "source",
        "sha256_digest": hashlib.sha256(content).hexdigest(),
        "blake2_256_digest": hashlib.blake2b(content, digest_size=32).hexdigest(),
        **changes,
    }
    return [(key, text) for key, text in fields.items() if text is not None]


def encode(parts: list[tuple[str, str | bytes]], filename: str | None = None, content: bytes = b"") -> bytes:
    """Return a form with *parts*, in their order, the file among them as the part called "content"."""
    body = bytearray()
    for name, text in parts:
        disposition = f'form-data; name="{name}"'
        if name == "content":
            disposition += f'; filename="{filename}"'
        value = content if name == "content" else text.encode() if isinstance(text, str) else text
        body += f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + value + b"\r\n"
    return bytes(body + f"--{BOUNDARY}--\r\n".encode())


@pytest.fixture
def send(client, tokens):
    """POST a body of :func:`encode` as the holder of the write token."""

    def send(body: bytes, *, url: str = URL, credential: str | None = None, **headers: str):
        return client.post(
            url,
            data=body,
            content_type=f"multipart/form-data; boundary={BOUNDARY}",
            headers={**basic("__token__", credential or tokens.write), **headers},
            buffered=True,
        )

    return send


@pytest.fixture
def upload(send):
    """Upload a made file as twine does: ``upload(*make_wheel())``; further fields replace twine's."""

    def upload(filename: str, content: bytes, *more: tuple[str, str | bytes], headers=None, **changes: str | None):
        parts = [*fields_of(filename, content, **changes), *more, ("content", "")]
        return send(encode(parts, filename, content), **(headers or {}))

    return upload


def reason_phrase(answer) -> str:
    """Return what stands behind the number in the status line, which is fit to stand there."""
    number, _, phrase = answer.status.partition(" ")
    assert int(number) == answer.status_code
    assert 0 < len(phrase) <= 200
    assert not re.search(r"[^\x20-\x7e\xa0-\xff]", phrase)
    return phrase


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def content_of(repository: Repository, filename: str) -> bytes:
    with repository.open_file(project_of(filename), filename)[1] as artifact:
        return artifact.read()


# --- what is accepted ---


@pytest.mark.parametrize(
    "url", [URL, URL.rstrip("/"), f"/{ORG}/{REPO}/pypi/", f"/{ORG}/{REPO}/pypi"], ids=lambda u: u[len(ORG) + 2 :]
)
def test_every_upload_address_takes_a_file_itself_with_and_without_a_slash(send, repository, url):
    filename, content = make_wheel()

    answer = send(encode([*fields_of(filename, content), ("content", "")], filename, content), url=url)

    assert answer.status_code == 200, answer.text
    assert "Location" not in answer.headers
    assert answer.content_type == "text/plain; charset=utf-8"
    assert content_of(repository, filename) == content


@pytest.mark.parametrize("made", [make_wheel(), make_sdist()], ids=["wheel", "sdist"])
def test_fields_may_come_in_any_order(send, repository, made):
    filename, content = made
    parts = [*fields_of(filename, content), ("content", ""), ("classifiers", "A"), ("classifiers", "B")]

    for seed in range(5):
        random.Random(seed).shuffle(parts)
        assert send(encode(parts, filename, content)).status_code == 200

    assert [file.filename for file in repository.project("toolbox").files] == [filename]


SYNONYMS = [
    "import_names",
    "import_namespaces",
    "provides_extras",
    "license_files",
    "platforms",
    "comment",
    "unknown",
]


def test_synonyms_empty_strings_and_unknown_fields_are_tolerated(upload, repository):
    more = [(name, text) for name in SYNONYMS for text in ("", "x", "y")]
    empty = dict.fromkeys(
        ["requires_python", "home_page", "keywords", "md5_digest", "pyversion", "attestations"], ""
    )

    assert upload(*make_wheel(requires_python=">=3.8"), *more, **empty).status_code == 200
    assert repository.project("toolbox").files[0].requires_python == ">=3.8"


def test_everything_is_taken_from_the_archive_and_not_from_the_form(upload, repository):
    filename, content = make_wheel("Tool.Box", summary="from the archive", requires_python=">=3.8")

    upload(filename, content, name="tool-BOX", summary="from the form", requires_python=">=2", metadata_version="9")

    sidecar = repository.sidecar("tool-box", filename)
    assert sidecar.metadata.summary == "from the archive"
    assert sidecar.file.requires_python == ">=3.8"
    assert sidecar.name == "Tool.Box"


def test_a_description_of_2_mb_and_1200_requirements_are_fine(upload, repository):
    description = "# Title\n" + "A line of the README.\n" * 95_000
    requires = [f"package-{number}>=1" for number in range(1200)]
    filename, content = make_sdist(requires=requires, description=description)
    assert len(description) > 2_000_000

    answer = upload(filename, content, *(("requires_dist", text) for text in requires), description=description)

    assert answer.status_code == 200, answer.text
    metadata = repository.sidecar("toolbox", filename).metadata
    assert metadata.requires_dist == tuple(requires) or list(metadata.requires_dist) == requires


def test_a_signature_is_accepted(upload, repository):
    body_of_signature = ("gpg_signature", b"-----BEGIN PGP SIGNATURE-----\n\xff\xfe")

    assert upload(*make_wheel(), body_of_signature).status_code == 200


def test_the_form_of_flit_without_pyversion_and_of_old_clients_without_protocol_version(upload):
    assert upload(*make_sdist(), pyversion=None, protocol_version=None, filetype=None).status_code == 200


@pytest.mark.parametrize("field", ["name", "version"])
def test_a_field_without_which_the_archive_speaks_for_itself_may_be_absent(upload, field):
    assert upload(*make_wheel(), **{field: None}).status_code == 200


@pytest.mark.parametrize("version", ["1.0", "1.0.0", "v1.0", "1.0-0"])
def test_the_forms_version_need_only_mean_the_same(upload, version):
    answer = upload(*make_wheel(version="1.0" if version != "1.0-0" else "1.0.post0"), version=version)

    assert answer.status_code == 200, answer.text


# --- digests ---


@pytest.mark.parametrize("change", [str.lower, str.upper], ids=["lower case", "upper case"])
@pytest.mark.parametrize("fields", [("sha256_digest",), ("md5_digest",), ("blake2_256_digest",)])
def test_one_digest_is_enough_in_either_case(upload, change, fields):
    filename, content = make_wheel()
    digests = {
        "md5_digest": hashlib.md5(content).hexdigest(),
        "sha256_digest": sha256(content),
        "blake2_256_digest": hashlib.blake2b(content, digest_size=32).hexdigest(),
    }

    answer = upload(filename, content, **{key: change(d) if key in fields else None for key, d in digests.items()})

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("field", ["md5_digest", "sha256_digest", "blake2_256_digest"])
def test_every_digest_that_is_sent_must_match(upload, repository, field):
    wrong = "0" * (32 if field == "md5_digest" else 64)

    answer = upload(*make_wheel(), **{field: wrong})

    assert answer.status_code == 400
    assert reason_phrase(answer).startswith("Invalid distribution file. ")
    assert field.partition("_")[0] in answer.text
    assert repository.projects() == []
    assert list(repository.tree.temporary.iterdir()) == []


@pytest.mark.parametrize(
    "digest", ["0" * 63, "g" * 64, "0" * 65, "\N{FULLWIDTH DIGIT ONE}" * 64, "sha256=" + "0" * 64]
)
def test_what_is_no_digest_is_told_so(upload, digest):
    answer = upload(*make_wheel(), sha256_digest=digest)

    assert answer.status_code == 400
    assert "sha256_digest is not a digest of 64 hexadecimal digits" in reason_phrase(answer)


def test_no_digest_at_all_is_refused(upload):
    answer = upload(*make_wheel(), sha256_digest=None, blake2_256_digest="")

    assert answer.status_code == 400
    assert "digest" in reason_phrase(answer)


# --- what does not agree ---


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"name": "other"}, "other"),
        ({"version": "2.0"}, "2.0"),
        ({"version": "no version"}, "version"),
        ({"filetype": "sdist"}, "filetype"),
        ({"filetype": "bdist_egg"}, "bdist_egg"),
        ({"filetype": "\N{SNOWMAN}"}, "filetype"),
        ({"name": "\N{SNOWMAN}\r\nX: 1"}, "name"),
    ],
)
def test_a_claim_that_does_not_agree_with_the_archive_is_refused(upload, repository, changes, word):
    answer = upload(*make_wheel(), **changes)

    assert answer.status_code == 400
    assert word in reason_phrase(answer)
    assert repository.projects() == []


@pytest.mark.parametrize("field", ["name", "version", "sha256_digest", ":action", "filetype"])
def test_a_field_that_says_two_things_is_refused(upload, repository, field):
    answer = upload(*make_wheel(), (field, "another"))

    assert answer.status_code == 400
    assert field in reason_phrase(answer)
    assert repository.projects() == []


def test_a_field_that_says_the_same_twice_is_fine(upload):
    assert upload(*make_wheel(), ("version", "1.0"), ("version", "")).status_code == 200


@pytest.mark.parametrize("action", ["submit", "submit_pkg_info", "doc_upload", "verify", "\N{SNOWMAN}", "x" * 500])
def test_another_action_is_gone(upload, repository, action):
    answer = upload(*make_wheel(), **{":action": action})

    assert answer.status_code == 410
    assert "file_upload" in reason_phrase(answer) or len(action) == 500
    assert "was ever registered" not in answer.text
    assert repository.projects() == []


@pytest.mark.parametrize("action", [None, ""])
def test_no_action_is_told_so(upload, action):
    answer = upload(*make_wheel(), **{":action": action})

    assert answer.status_code == 400
    assert ":action" in reason_phrase(answer)


def test_another_protocol_version_is_told_so(upload):
    answer = upload(*make_wheel(), protocol_version="2")

    assert answer.status_code == 400
    assert "protocol_version" in reason_phrase(answer)


def test_a_form_without_a_file_is_told_so(send):
    filename, content = make_wheel()

    for parts in (fields_of(filename, content), [*fields_of(filename, content), ("content ", "x")]):
        answer = send(encode(parts))
        assert answer.status_code == 400
        assert "holds no file" in reason_phrase(answer)


@pytest.mark.parametrize(
    "filename",
    [
        "toolbox-1.0.egg",
        "toolbox-1.0.tar.bz2",
        "..",
        "../toolbox-1.0.tar.gz",
        "a/toolbox-1.0.tar.gz",
        "toolbox.tar.gz",
        "t\N{LATIN SMALL LETTER O WITH DIAERESIS}olbox-1.0.tar.gz",
        "\N{SNOWMAN}-1.0.tar.gz",
        "toolbox-1.0.tar.gz\x01\x7f\t",
        f"toolbox-{'1' * 300}.tar.gz",
        "<script>-1.0.tar.gz",
    ],
)
def test_a_hostile_file_name_is_refused_in_a_line_that_any_client_can_read(send, repository, filename):
    _, content = make_sdist()
    parts = [*fields_of("toolbox-1.0.tar.gz", content), ("content", "")]

    for accept in ("*/*", UV):
        answer = send(encode(parts, filename, content), Accept=accept)
        assert answer.status_code == 400
        assert reason_phrase(answer).startswith("Invalid distribution file. ")
    assert repository.projects() == []
    assert list(repository.tree.temporary.iterdir()) == []


# --- attestations ---

ATTESTATIONS = '[ {"version":1, "verification_material": {"x": "\\u2603"},\n "envelope": {}} ,{"version" :1}]'


def attestations_file(repository: Repository, filename: str):
    return repository.tree.companion("toolbox", filename, ".attestations")


def test_attestations_are_kept_verbatim_beside_the_file(upload, repository):
    filename, content = make_wheel()

    assert upload(filename, content, attestations=ATTESTATIONS).status_code == 200

    assert attestations_file(repository, filename).read_text() == ATTESTATIONS
    assert repository.attestations("toolbox", filename) == ATTESTATIONS.encode()


def test_attestations_that_come_with_the_second_upload_are_kept_too(upload, repository):
    filename, content = make_wheel()
    upload(filename, content)

    assert upload(filename, content, attestations=ATTESTATIONS).status_code == 200
    assert upload(filename, content, attestations="[]").status_code == 200

    assert repository.attestations("toolbox", filename) == ATTESTATIONS.encode()


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "{}",
        "null",
        "1",
        '"x"',
        "[1]",
        "[[]]",
        "[{}",
        "[" * 100_000,
        '[{"a":' * 50_000,
        "\N{ZERO WIDTH NO-BREAK SPACE}[]",
        "[" + "9" * 5000 + "]",
        b'[{"a": "\xff\xfe"}]',
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_are_no_attestations_is_refused_and_nothing_is_stored(upload, repository, text):
    answer = upload(*make_wheel(), ("attestations", text))

    assert answer.status_code == 400
    assert "attestations" in reason_phrase(answer)
    assert repository.projects() == []


# --- twice, and conflicts ---


def test_the_same_job_run_twice_ends_well(upload, repository):
    made = [make_wheel(), make_sdist()]

    answers = [upload(*file) for file in made + made]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert "the very same bytes" in answers[3].text
    assert len(repository.project("toolbox").files) == 2


LONG = make_wheel(
    "a-rather-long-project-name-for-science", "2026.11.24", tags="cp311-cp311-manylinux_2_17_x86_64", summary="one"
)


@pytest.mark.parametrize("headers", [{}, {"Accept": UV}], ids=["twine", "uv"])
@pytest.mark.parametrize("made", [make_wheel(summary="one"), LONG], ids=["short name", "long name"])
def test_a_conflict_says_both_digests_when_and_by_whom(upload, repository, tokens, made, headers):
    filename, content = made
    _, other = make_wheel(
        *filename.split("-")[:2], tags="-".join(filename.removesuffix(".whl").split("-")[2:]), summary="two"
    )
    upload(filename, content)
    stored = repository.sidecar(repository.projects()[0], filename)

    answer = upload(filename, other, headers=headers)

    assert answer.status_code == 400
    texts = [reason_phrase(answer), answer.json["code"] if headers else answer.text]
    for text in texts:
        assert "File already exists" in text  # for poetry and pdm: "already exist"
        assert sha256(content)[:8] in text
        assert sha256(other)[:8] in text
        assert stored.file.upload_time.strftime("%Y-%m-%d %H:%M") in text
        assert stored.uploader.id in text
    assert filename in texts[1]
    assert "Use a different version." in texts[1]
    assert content_of(repository, filename) == content


def test_the_longest_file_name_still_leaves_room_for_what_matters(upload, repository):
    version = "1." + "0." * 60 + "1"
    filename, content = make_wheel(version=version, summary="one")
    _, other = make_wheel(version=version, summary="two")
    upload(filename, content)

    phrase = reason_phrase(upload(filename, other))

    assert "File already exists" in phrase
    assert sha256(content)[:8] in phrase
    assert sha256(other)[:8] in phrase
    assert "token" in phrase


def test_the_name_of_a_deleted_file_stays_taken_by_other_bytes(upload, repository):
    filename, content = make_wheel(summary="one")
    upload(filename, content)
    repository.delete_file("toolbox", filename, TESTER)

    answer = upload(*make_wheel(summary="two"))

    assert answer.status_code == 400
    assert "File already exists" in reason_phrase(answer)
    assert "deleted since" in reason_phrase(answer)
    assert upload(filename, content).status_code == 200


def test_an_error_for_uv_is_exactly_json_with_code_message_and_title(upload):
    answer = upload(*make_wheel(), name="other", headers={"Accept": UV})

    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert set(answer.json) == {"code", "message", "title"}
    assert answer.json["code"] == f"400 {answer.json['message']}"
    assert answer.json["title"] == "Bad Request"


def test_an_error_for_others_is_the_sentence_in_plain_text(upload):
    answer = upload(*make_wheel(), name="other")

    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.text.startswith("Invalid distribution file. ")


# --- rights, limits and failures ---


def test_without_a_credential_an_upload_is_401_in_the_reason_phrase(client, repository):
    for url in (URL, f"/{ORG}/none/pypi/legacy/"):
        answer = client.post(url, data=b"", buffered=True)
        assert answer.status_code == 401
        assert "credential" in reason_phrase(answer)
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_who_may_only_read_is_403_in_the_reason_phrase(send, tokens):
    answer = send(b"", credential=tokens.read)

    assert answer.status_code == 403
    assert "write_packages" in reason_phrase(answer)


def test_a_repository_that_is_not_there_is_404(send):
    answer = send(b"", url=f"/{ORG}/none/pypi/legacy/")

    assert answer.status_code == 404
    assert reason_phrase(answer) == "not found"


@pytest.mark.parametrize("status", [Status.ARCHIVED, Status.QUARANTINED])
@pytest.mark.parametrize("headers", [{}, {"Accept": UV}], ids=["twine", "uv"])
def test_a_closed_project_refuses_uploads_with_the_reason(upload, repository, add, status, headers):
    add(*make_sdist())
    repository.change_status("toolbox", ProjectStatus(status, "moved to \N{SNOWMAN} hammer"), TESTER)

    answer = upload(*make_wheel(), headers=headers)

    assert answer.status_code == 403
    assert f"is {status}" in reason_phrase(answer)
    assert "moved to ? hammer" in reason_phrase(answer)
    assert "moved to \N{SNOWMAN} hammer" in (answer.json["message"] if headers else answer.text)


def test_a_deprecated_project_takes_uploads(upload, repository, add):
    add(*make_sdist())
    repository.change_status("toolbox", ProjectStatus(Status.DEPRECATED, "old"), TESTER)

    assert upload(*make_wheel()).status_code == 200


def test_a_file_over_the_limit_is_413_in_the_reason_phrase(registry, repository, tokens, tmp_path):
    small = Settings(storage=tmp_path / "data", max_file_size=1000, max_form_size=5000)
    registry.limits = replace(registry.limits, max_file_size=1000)
    filename, content = make_wheel(files={"toolbox/data.bin": bytes(range(256)) * 8})
    parts = [*fields_of(filename, content), ("content", "")]

    for body in (encode(parts, filename, content), encode(parts, filename, content + bytes(10_000))):
        answer = (
            create_app(small, registry)
            .test_client()
            .post(
                URL,
                data=body,
                content_type=f"multipart/form-data; boundary={BOUNDARY}",
                headers=basic(tokens.write),
            )
        )
        assert answer.status_code == 413
        assert "1,000 bytes" in reason_phrase(answer)


def test_text_over_the_limit_is_413(registry, repository, tokens, tmp_path):
    small = Settings(storage=tmp_path / "data", max_form_size=1000)
    filename, content = make_wheel()
    parts = [*fields_of(filename, content), ("description", "x" * 2000), ("content", "")]

    answer = (
        create_app(small, registry)
        .test_client()
        .post(
            URL,
            data=encode(parts, filename, content),
            content_type=f"multipart/form-data; boundary={BOUNDARY}",
            headers=basic(tokens.write),
        )
    )

    assert answer.status_code == 413
    assert "text of the form" in reason_phrase(answer)


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507), (errno.EIO, 503), (errno.EROFS, 503)]
)
@pytest.mark.parametrize("headers", [{}, {"Accept": UV}], ids=["twine", "uv"])
def test_a_storage_that_is_full_or_fails_says_so_and_when_to_come_again(
    upload, monkeypatch, number, status, headers
):
    def fail(*arguments, **more):
        raise OSError(number, "no")

    monkeypatch.setattr(Repository, "add_file", fail)

    answer = upload(*make_wheel(), headers=headers)

    assert answer.status_code == status
    assert "storage" in reason_phrase(answer)
    assert int(answer.headers["Retry-After"]) > 0
    if headers:
        assert answer.json["code"].startswith(f"{status} ")


# --- other methods ---


@pytest.mark.parametrize("url", [URL, URL.rstrip("/"), f"/{ORG}/{REPO}/pypi/"])
def test_looking_at_the_upload_address_is_405_with_what_is_allowed(client, tokens, url):
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = client.open(url, method=method, headers=basic(tokens.write), buffered=True)
        assert answer.status_code == 405
        assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(
    "url",
    [
        URL.replace("/pypi", "//pypi"),
        f"/{ORG}/{REPO}/pypi//legacy",
        f"/{ORG}/{REPO}/pypi/legacy//",
        f"/{ORG.upper()}/{REPO}/pypi/legacy/",
        f"/{ORG}/{REPO}/pypi/legacy/+simple/Tool_Box",
        f"/{ORG}/{REPO}/pypi/simple/Tool_Box",
        f"/{ORG}/{REPO}/packages/python",
    ],
)
def test_a_post_is_never_redirected(send, url):
    filename, content = make_wheel()

    answer = send(encode([*fields_of(filename, content), ("content", "")], filename, content), url=url)

    assert answer.status_code in (404, 405)
    assert "Location" not in answer.headers


def test_hatch_is_led_to_the_page_with_the_slash(client, tokens, add):
    add(*make_wheel("tool-box"))
    for spelling in ("tool-box", "Tool_Box", "Tool_Box/"):
        answer = client.get(f"{URL}+simple/{spelling}?a=1", headers=basic(tokens.read), buffered=True)
        assert answer.status_code == 301
        assert answer.headers["Location"] == f"{URL}+simple/tool-box/?a=1"


def test_the_event_of_an_upload_says_who_and_when(upload, repository, tokens):
    upload(*make_wheel())
    upload(*make_wheel())

    [event] = [json.loads(line) for line in repository.tree.events_file.read_text().splitlines()]
    assert event["event"] == "published"
    assert event["by"]["id"] == tokens.write.split("_")[1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["time"])


def test_a_form_that_ends_in_the_middle_stores_nothing(send, repository):
    filename, content = make_wheel()
    body = encode([("content", ""), *fields_of(filename, content)], filename, content)

    for end in (len(body) // 2, len(body) - 30, 10):
        answer = send(body[:end])
        assert answer.status_code == 400
        assert "form" in reason_phrase(answer)
    assert repository.projects() == []
    assert list(repository.tree.temporary.iterdir()) == []


def test_a_form_over_a_pipe_is_read_as_it_comes(client, tokens, repository):
    filename, content = make_wheel(files={"toolbox/data.bin": random.Random(1).randbytes(700_000)})
    body = encode([*fields_of(filename, content), ("content", "")], filename, content)

    answer = client.post(
        URL,
        input_stream=io.BytesIO(body),
        content_length=len(body),
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
        headers=basic(tokens.write),
        buffered=True,
    )

    assert answer.status_code == 200
    assert content_of(repository, filename) == content
