"""Publishing with curl: the package API (contract.md section 4, specs.md 5.4 and 5.5)."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace

import pytest

from app import create_app
from settings import Settings
from tests.conftest import ORG, REPO, basic
from tests.storage.makers import make_sdist, make_wheel

URL = f"/api/v1/repos/{ORG}/{REPO}/packages.json"

DETAILS = {
    "name",
    "distro_version",
    "architecture",
    "repository",
    "size",
    "summary",
    "filename",
    "description",
    "licenses",
    "version",
    "type",
    "dependencies",
    "md5sum",
    "sha1sum",
    "sha256sum",
    "sha512sum",
    "private",
    "uploader_name",
    "created_at",
    "release",
    "epoch",
    "scope",
    "indexed",
    "total_downloads_count",
    "repository_url",
    "repository_html_url",
    "package_url",
    "self_url",
    "versions_url",
    "promote_url",
    "destroy_url",
    "package_html_url",
    "download_url",
    "downloads_count_url",
    "downloads_detail_url",
    "downloads_series_url",
}


def test_a_wheel_is_published_and_described(publish):
    filename, content = make_wheel(
        "Tool.Box", "1.0", requires=["six>=1"], summary="tools", description="# Tool box"
    )

    answer = publish(filename, content)

    assert answer.status_code == 201
    assert answer.content_type == "application/json"
    assert set(answer.json) == DETAILS
    assert answer.json["name"] == "tool-box"
    assert answer.json["version"] == "1.0"
    assert answer.json["filename"] == filename
    assert answer.json["size"] == str(len(content))
    assert answer.json["summary"] == "tools"
    assert answer.json["description"].strip() == "# Tool box"
    assert answer.json["private"] is True
    assert answer.json["repository"] == REPO
    assert {"context": "requires-dist", "dependencies": ["six>=1"]} in answer.json["dependencies"]
    for name in ("md5", "sha1", "sha256", "sha512"):
        assert answer.json[f"{name}sum"] == hashlib.new(name, content).hexdigest()


def test_every_address_in_the_answer_names_the_file_or_its_project(publish):
    filename, content = make_wheel()

    details = publish(filename, content).json

    path = f"/api/v1/repos/{ORG}/{REPO}"
    assert details["repository_url"] == path
    assert details["self_url"] == f"{path}/package/python/toolbox/1.0.json?filename={filename}"
    assert details["versions_url"] == f"{path}/package/python/toolbox/versions.json"
    assert details["destroy_url"] == f"{path}/python/1/{filename}"
    assert details["download_url"] == f"http://localhost/{ORG}/{REPO}/packages/python/{filename}/download"


def test_the_download_address_gives_the_bytes_that_were_published(client, publish, tokens):
    filename, content = make_wheel()
    url = publish(filename, content).json["download_url"]

    answer = client.get(url, headers=basic(tokens.read), buffered=True)

    assert answer.status_code == 200
    assert answer.data == content


def test_the_same_bytes_again_are_no_conflict(publish):
    filename, content = make_wheel()
    first = publish(filename, content)

    again = publish(filename, content)

    assert again.status_code == 200
    assert again.json == first.json


def test_other_bytes_under_the_name_are_refused_with_both_digests_and_who_came_first(publish):
    filename, content = make_wheel(summary="one")
    _, other = make_wheel(summary="two")
    publish(filename, content)

    answer = publish(filename, other)

    assert answer.status_code == 422
    assert answer.json["filename"] == ["has already been taken"]
    assert hashlib.sha256(content).hexdigest()[:16] in answer.json["message"]
    assert hashlib.sha256(other).hexdigest()[:16] in answer.json["message"]
    assert "token" in answer.json["message"]


@pytest.mark.parametrize(
    "made",
    [
        make_sdist("toolbox", "1.0"),
        make_wheel("toolbox", "1.0+local.7"),
        make_wheel("toolbox", "2!1.0"),
        make_wheel("toolbox", "1.0", build="1abc"),
        make_wheel("toolbox", "1.0", tags="py2.py3-none-any"),
        make_wheel("toolbox", "1.0", tags="cp311-cp311-linux_x86_64"),
        make_wheel("toolbox", "1.0", extra_headers=[("Classifier", "Private :: Do Not Upload")]),
    ],
    ids=["sdist", "local version", "epoch", "build tag", "compressed tags", "linux tag", "private classifier"],
)
def test_unusual_but_valid_files_are_fine(client, publish, tokens, made):
    filename, content = made

    answer = publish(filename, content)

    assert answer.status_code == 201, answer.json
    page = client.get(f"/{ORG}/{REPO}/pypi/simple/toolbox/", headers=basic(tokens.read), buffered=True)
    assert f">{filename}</a>" in page.text


def test_a_form_without_a_file_is_told_so(client, tokens):
    answer = client.post(URL, data={"package[name]": "x"}, headers=basic(tokens.write), buffered=True)

    assert answer.status_code == 422
    assert answer.json == {"package_file": ["can't be blank"]}


@pytest.mark.parametrize("content_type", ["application/octet-stream", "multipart/form-data", "text/plain"])
def test_a_body_that_is_no_form_is_told_so(client, tokens, content_type):
    headers = basic(tokens.write)

    answer = client.post(URL, data=b"PK\3\4", content_type=content_type, headers=headers, buffered=True)

    assert answer.status_code == 422
    assert answer.json == {"package_file": ["can't be blank"]}


@pytest.mark.parametrize(
    ("filename", "content", "word"),
    [
        ("toolbox-1.0-py3-none-any.whl", b"this is no zip", "zip"),
        ("toolbox-1.0.tar.gz", b"this is no tar", "gzip"),
        ("toolbox-1.0.exe", b"MZ", "wheel"),
        ("../../etc/passwd-1.0.tar.gz", b"x", ""),
    ],
    ids=["no zip", "no tar", "no distribution", "a path"],
)
def test_what_is_no_distribution_is_refused_with_the_reason(publish, repository, filename, content, word):
    answer = publish(filename, content)

    assert answer.status_code == 422
    [reason] = answer.json["package_file"]
    assert word in reason.lower()
    assert repository.projects() == []


def test_a_file_whose_part_has_another_name_takes_the_name_that_its_metadata_gives(publish):
    filename, content = make_wheel("toolbox", "1.0", tags="py2.py3-none-any")

    answer = publish("FILE", content)

    assert answer.status_code == 201, answer.json
    assert answer.json["filename"] == filename


def test_a_file_over_the_limit_is_413(registry, repository, tokens, tmp_path):
    small = Settings(storage=tmp_path / "data", max_file_size=1000, max_form_size=1000)
    registry.limits = replace(registry.limits, max_file_size=1000)
    client = create_app(small, registry).test_client()
    filename, content = make_wheel(files={"toolbox/data.bin": bytes(range(256)) * 8})

    answers = [
        client.post(URL, data={"package[package_file]": (io.BytesIO(body), filename)}, headers=basic(tokens.write))
        for body in (content[:1500], content + bytes(10_000))
    ]

    assert [answer.status_code for answer in answers] == [413, 413]
    assert "1,000 bytes" in answers[0].json["message"]
    assert list(repository.tree.temporary.iterdir()) == []


@pytest.mark.parametrize(
    "body",
    [
        b"--x",
        b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="package[package_file]"; filename="a"\r\n\r\n1\r\n',
        b"--x\r\nX: 1\r\n\r\n1\r\n--x--\r\n",
        b"\xff" * 100_000,
    ],
    ids=["cut off", "no name", "no end", "no disposition", "no boundary"],
)
def test_a_malformed_form_is_a_clear_400(client, tokens, repository, body):
    content_type = "multipart/form-data; boundary=x"

    answer = client.post(URL, data=body, content_type=content_type, headers=basic(tokens.write), buffered=True)

    assert answer.status_code == 400
    assert "form" in answer.json["message"]
    assert list(repository.tree.temporary.iterdir()) == []


def test_two_files_in_one_form_are_refused(client, tokens, repository):
    filename, content = make_wheel()
    form = {"package[package_file]": [(io.BytesIO(content), filename), (io.BytesIO(content), filename)]}

    answer = client.post(URL, data=form, headers=basic(tokens.write), buffered=True)

    assert answer.status_code == 400
    assert repository.projects() == []


def test_the_sidecar_says_who_published(publish, repository):
    filename, content = make_wheel()

    publish(filename, content)

    sidecar = json.loads(repository.tree.sidecar("toolbox", filename).read_text())
    assert sidecar["uploader"]["kind"] == "token"
    assert sidecar["uploader"]["description"] == "test"
