"""The pages of a project and of a file: what they show, to whom, and what can be changed there."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from packaging.utils import canonicalize_name
from werkzeug.security import generate_password_hash

from storage.files import encode_json
from storage.statuses import parse_status
from storage.uploads import copy_into
from storage.users import Role
from tests.conftest import ORG, REPO, TESTER, basic
from tests.storage.makers import make_metadata, make_sdist, make_wheel

HERE = f"/{ORG}/{REPO}/packages"
TOOLBOX = canonicalize_name("toolbox")
WHEEL = "toolbox-1.0-py3-none-any.whl"
PAGE = f"{HERE}/toolbox/{WHEEL}"
SCRIPT = "<script>alert(1)</script>"


class Visitor:
    """Somebody with a browser."""

    def __init__(self, client) -> None:
        self.client = client

    def get(self, url: str, **more):
        return self.client.get(url, buffered=True, **more)

    def text(self, url: str) -> str:
        answer = self.get(url)
        assert answer.status_code == 200, answer.status
        return answer.text

    def post(self, url: str, **fields: str):
        """Send a form as the page of it would."""
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.get("/login").text)[1]
        return self.client.post(url, data={"csrf_token": token, **fields}, buffered=True)

    def sign_in(self, name: str) -> Visitor:
        answer = self.post("/login", username=name, password="secret", next="/")
        assert answer.status_code == 303
        return self


@pytest.fixture
def people(registry) -> None:
    cheap = generate_password_hash("secret", "pbkdf2:sha256:1")
    registry.create_organization("others")
    for role in Role:
        registry.users.create(str(role), cheap, {ORG: role})
    registry.users.create("stranger", cheap, {"others": Role.ADMIN})


@pytest.fixture
def visitor(client, people) -> Visitor:
    return Visitor(client)


@pytest.fixture
def admin(visitor) -> Visitor:
    return visitor.sign_in("admin")


@pytest.fixture
def reader(visitor) -> Visitor:
    return visitor.sign_in("reader")


@pytest.fixture
def public(repository):
    repository.change_settings({"private": False})
    return repository


# --- who may see them ---

ADDRESSES = [f"{HERE}/toolbox/", PAGE, f"{PAGE}/contents/toolbox/__init__.py", f"{HERE}/nothing/", f"{PAGE}x"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_whoever_is_not_signed_in_is_sent_to_do_so(visitor, add, address):
    add(*make_wheel())

    answer = visitor.get(address)

    assert answer.status_code == 303
    assert answer.headers["Location"] == f"/login?next={address}"


@pytest.mark.parametrize("address", ADDRESSES)
def test_for_a_stranger_a_private_repository_is_not_there(visitor, add, address):
    add(*make_wheel())
    stranger = visitor.sign_in("stranger")

    private, none = stranger.get(address), stranger.get(address.replace(f"/{REPO}/", "/none/"))

    assert (private.status_code, none.status_code) == (404, 404)
    assert private.text == none.text


def test_anybody_may_see_the_pages_of_a_public_repository(visitor, add, public):
    add(*make_wheel())

    for address in ADDRESSES[:3]:
        assert visitor.get(address).status_code == 200


@pytest.mark.parametrize("who", ["reader", "writer"])
@pytest.mark.parametrize("change", ["yank", "unyank", "delete", "restore"])
def test_only_who_has_the_right_may_change_a_file(visitor, add, repository, who, change):
    add(*make_wheel())
    allowed = who == "writer" and change in ("yank", "unyank")

    answer = visitor.sign_in(who).post(f"{PAGE}/{change}", confirm=WHEEL)

    assert answer.status_code == (303 if allowed else 403)
    assert repository.sidecar(TOOLBOX, WHEEL).file.yanked is (allowed and change == "yank")


@pytest.mark.parametrize("change", ["yank", "unyank", "delete", "restore", "token"])
def test_a_form_from_elsewhere_changes_nothing(admin, registry, add, repository, change):
    add(*make_wheel())

    answer = admin.client.post(f"{PAGE}/{change}", data={"confirm": WHEEL}, buffered=True)

    assert answer.status_code == 400
    assert repository.sidecar(TOOLBOX, WHEEL).file.yanked is False
    assert registry.tokens.list(ORG, REPO) == []


def test_a_reader_is_offered_no_change(reader, add):
    add(*make_wheel())

    shown = reader.text(PAGE) + reader.text(f"{HERE}/toolbox/")

    assert "Manage this file" not in shown
    assert "Status of the project" not in shown
    assert "Make a read token" in shown


# --- one project ---


def test_releases_stand_newest_first_with_their_marks(reader, add, repository):
    for version in ("0.9", "1.10", "1.9", "2.0b1"):
        add(*make_sdist(version=version))
    repository.yank_file(TOOLBOX, "toolbox-1.10.tar.gz", "broken & bad", TESTER)

    shown = reader.text(f"{HERE}/toolbox/")

    releases = re.findall(
        r'release-version">([^<]+)</span>\s*<span class="release-marks">(.*?)</span>\s*<span c', shown, re.S
    )
    marks = [(version, re.findall(r">([^<>]+)</span>", f"{badges}</span>")) for version, badges in releases]
    assert marks == [("2.0b1", ["pre-release"]), ("1.10", ["yanked"]), ("1.9", ["latest"]), ("0.9", [])]
    assert "broken &amp; bad" in shown
    assert f'href="{HERE}/toolbox/toolbox-0.9.tar.gz"' in shown


def test_a_release_of_which_one_file_is_yanked_says_how_many(reader, add, repository):
    add(*make_sdist())
    add(*make_wheel())
    repository.yank_file(TOOLBOX, WHEEL, "", TESTER)

    assert "1 of 2 yanked" in reader.text(f"{HERE}/toolbox/")


def test_many_releases_come_in_pages(reader, add):
    for number in range(32):
        add(*make_sdist(version=f"1.{number}"))

    first, second = reader.text(f"{HERE}/toolbox/"), reader.text(f"{HERE}/toolbox/?page=2")

    assert first.count("release-version") == 30
    assert "Page 1 of 2" in first
    assert re.findall(r'release-version">([^<]+)', second) == ["1.1", "1.0"]
    assert reader.get(f"{HERE}/toolbox/?page=99999999999999999999999").status_code == 200
    assert reader.get(f"{HERE}/toolbox/?page=-1").text.count("release-version") == 30


@pytest.mark.parametrize("spelled", ["Toolbox", "TOOLBOX"])
def test_another_spelling_leads_to_the_project(reader, add, spelled):
    add(*make_wheel())

    project, file = reader.get(f"{HERE}/{spelled}/"), reader.get(f"{HERE}/{spelled}/{WHEEL}")

    assert (project.status_code, project.headers["Location"]) == (301, f"{HERE}/toolbox/")
    assert (file.status_code, file.headers["Location"]) == (301, PAGE)


def test_the_address_of_packagecloud_leads_to_the_file(reader, add):
    add(*make_wheel())

    answer = reader.get(f"{HERE}/python/{WHEEL}")

    assert (answer.status_code, answer.headers["Location"]) == (301, PAGE)


@pytest.mark.parametrize(
    "address",
    ["nothing/", "-/", "%2e%2e/", f"other/{WHEEL}", "toolbox/toolbox-2.0-py3-none-any.whl", "toolbox/x.txt"],
)
def test_what_is_not_there_is_404(reader, add, address):
    add(*make_wheel())

    assert reader.get(f"{HERE}/{address}").status_code == 404


@pytest.mark.parametrize("status", ["archived", "deprecated", "quarantined"])
def test_a_status_is_said_on_both_pages(reader, add, repository, status):
    add(*make_wheel())
    repository.change_status(TOOLBOX, parse_status(status, f"because {SCRIPT}"), TESTER)

    for address in (f"{HERE}/toolbox/", PAGE):
        shown = reader.text(address)
        assert f"{status.capitalize()}:" in shown
        assert f"because {html.escape(SCRIPT)}" in shown


def test_a_quarantined_file_can_be_looked_up_but_neither_downloaded_nor_opened(reader, add, repository):
    add(*make_wheel())
    repository.change_status(TOOLBOX, parse_status("quarantined"), TESTER)

    shown = reader.text(PAGE) + reader.text(f"{PAGE}?tab=contents")

    assert "/download" not in shown
    assert "/contents/" not in shown
    assert "pip install" not in shown
    assert reader.get(f"{PAGE}/contents/toolbox/__init__.py").status_code == 404


def test_a_writer_changes_the_status_and_gives_a_reason_of_one_line(visitor, add, repository):
    add(*make_wheel())
    writer = visitor.sign_in("writer")

    changed = writer.post(f"{HERE}/toolbox/status", status="deprecated", reason="use spanner")
    refused = writer.post(f"{HERE}/toolbox/status", status="archived", reason="x" * 501)

    assert changed.status_code == 303
    assert refused.status_code == 422
    assert "at most 500 characters" in refused.text
    assert str(repository.project(TOOLBOX).status.status) == "deprecated"


# --- why can't pip see it? ---


def test_every_file_is_explained_in_a_sentence(reader, add, repository):
    add(*make_wheel(version="1.0"))
    add(*make_wheel(version="1.1", tags="cp311-cp311-win_amd64"))
    add(*make_wheel(version="1.2", requires_python=">=3.13"))
    add(*make_wheel(version="1.3"))
    add(*make_wheel(version="2.0b1"))
    repository.yank_file(TOOLBOX, "toolbox-1.3-py3-none-any.whl", SCRIPT, TESTER)

    shown = reader.text(f"{HERE}/toolbox/?python=3.12&platform=linux-x86_64-glibc2.36")

    assert "pip installs <strong>toolbox-1.0-py3-none-any.whl</strong>" in shown
    assert "The repository is private: pip sees nothing of it without a token" in shown
    assert "It is built for CPython 3.11, and this is CPython 3.12" in shown
    assert "It requires Python &gt;=3.13; this is Python 3.12." in shown
    assert f"It is yanked ({html.escape(SCRIPT)})" in shown
    assert "It is a pre-release" in shown


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("python=2", "Python version must be one such as"),
        ("platform=amiga", "Platform must be one of the list."),
        (f"requirement={SCRIPT}", "Requirement must be written like"),
        ("requirement=other", "Requirement must be about toolbox"),
    ],
)
def test_a_question_that_makes_no_sense_says_why(reader, add, query, rule):
    add(*make_wheel())

    shown = reader.text(f"{HERE}/toolbox/?{query}")

    assert rule in shown
    assert SCRIPT not in shown


def test_a_project_of_which_nothing_fits_says_so(reader, add):
    add(*make_wheel())

    shown = reader.text(f"{HERE}/toolbox/?requirement=toolbox>=2")

    assert "pip finds nothing to install" in shown
    assert "Its version is not in the requirement" in shown


# --- one file ---


def test_the_page_of_a_file_says_all_that_is_known_of_it(reader, add, repository):
    add(*make_wheel("spanner"))
    metadata = make_metadata(
        requires=["spanner>=1", "nothing", 'requests[socks]>=2; extra == "web"'],
        requires_python=">=3.9",
        summary="Hammers",
        extra_headers=[
            ("License", "MIT"),
            ("Author-email", "Ada <ada@example.com>, Bob <bob@example.com>"),
            ("Project-URL", "Docs, https://example.com/docs"),
            ("Home-page", "https://example.com/"),
            ("Keywords", "nails,wood"),
        ],
    )
    added = add(*make_wheel(metadata=metadata, entry_points="[console_scripts]\ntoolbox = toolbox:main\n"))
    today = datetime.now(UTC).date()
    days = {(today - timedelta(days=3)).isoformat(): 4, "2001-01-01": 7}
    repository.tree.download_counts(TOOLBOX).write_bytes(encode_json({WHEEL: days}))

    shown, details = reader.text(PAGE), reader.text(f"{PAGE}?tab=details")

    for words in ("Hammers", "&gt;=3.9", "MIT", "Ada", "Private", "Total files", "the command line", "11"):
        assert words in shown
    assert '<a href="https://example.com/docs" rel="nofollow noopener"' in shown
    assert '<a href="mailto:ada@example.com" rel="nofollow noopener">Ada</a>' in shown
    assert "2 and 1 for extras" in shown
    assert f'<a href="{HERE}/spanner/">spanner</a>' in shown
    assert f'<a href="{HERE}/nothing/">' not in shown
    assert "with <code>[web]</code>" in shown
    assert 'aria-label="Downloads a day in the last 90 days: 4 in all' in shown
    digests = added.sidecar.digests
    for digest in (digests.md5, digests.sha1, digests.sha256, digests.sha512, digests.blake2b_256):
        assert digest in details
    assert "any Python 3" in details
    assert "toolbox:main" in details


def test_the_tabs_are_links_and_attestations_have_one_where_there_are_some(reader, repository):
    filename, content = make_wheel()
    statement = {
        "subject": [{"name": filename, "digest": {"sha256": "0" * 64}}],
        "predicateType": f"https://example.com/{SCRIPT}\ud800",
    }
    envelope = {"statement": base64.b64encode(json.dumps(statement).encode()).decode(), "signature": ""}
    document = json.dumps([{"envelope": envelope}, {"deep": "\ud800"}]).encode()
    with closing(repository.receive()) as incoming:
        copy_into(incoming, io.BytesIO(content))
        repository.add_file(incoming, filename, TESTER, attestations=document)

    shown = reader.text(f"{PAGE}?tab=attestations")

    assert re.findall(r'<a href="[^"]*\?tab=(\w+)"', shown)[:3] == ["contents", "details", "attestations"]
    assert "is not about this file" in shown
    assert html.escape(SCRIPT) in shown
    assert SCRIPT not in shown


@pytest.mark.parametrize("tab", ["attestations", "nonsense", SCRIPT])
def test_a_tab_that_is_not_there_is_the_first_one(reader, add, tab):
    add(*make_wheel())

    assert "Installation instructions" in reader.text(f"{PAGE}?tab={tab}")


# --- contents ---


def test_the_contents_are_a_tree_with_sizes_and_a_filter(reader, add):
    add(*make_wheel(files={"toolbox/a/b.py": b"x" * 1500, "toolbox/c.txt": b"hi"}))

    tree, filtered = reader.text(f"{PAGE}?tab=contents"), reader.text(f"{PAGE}?tab=contents&q=B.PY")

    assert '<span class="member-name">a/</span> <span class="member-size quiet">1 file, 1.5 kB</span>' in tree
    assert f'href="{PAGE}/contents/toolbox/c.txt">c.txt</a>' in tree
    assert re.findall(r'class="member-name" href="[^"]*">([^<]+)', filtered) == ["toolbox/a/b.py"]
    assert "1 file of 5 with “B.PY” in the path" in filtered
    assert "No file of the archive has that" in reader.text(f"{PAGE}?tab=contents&q=nothing")


def test_a_text_opens_with_numbered_lines(reader, add):
    add(*make_wheel(files={"toolbox/a.py": f"one\n{SCRIPT}\n".encode()}))

    shown = reader.text(f"{PAGE}/contents/toolbox/a.py")

    assert '<li id="L1">one</li>' in shown
    assert f'<li id="L2">{html.escape(SCRIPT)}</li>' in shown
    assert SCRIPT not in shown


def test_a_binary_and_a_large_member_say_so(reader, add):
    add(*make_wheel(files={"toolbox/a.so": b"\x7fELF\x00", "toolbox/b.txt": b"x\n" * 300_000}))

    assert "It is a binary file." in reader.text(f"{PAGE}/contents/toolbox/a.so")
    assert "It is larger than 512 kB" in reader.text(f"{PAGE}/contents/toolbox/b.txt")


@pytest.mark.parametrize(
    "member",
    [
        "nothing",
        "..",
        "../../../registry.json",
        "%2e%2e/%2e%2e/repository.json",
        "/etc/passwd",
        "toolbox/",
        "%00",
        "toolbox",
    ],
)
def test_what_is_no_member_is_404(reader, add, member):
    add(*make_wheel())

    assert reader.get(f"{PAGE}/contents/{member}").status_code == 404


@pytest.mark.parametrize(
    "name", [f"{SCRIPT.replace('/', '')}.py", "a b?c#d%41.py", "\"'&.py", "é\u202e.py", "{{7*7}}.py"]
)
def test_members_with_hostile_names_are_listed_as_text_and_can_be_opened(reader, add, name):
    add(*make_wheel(files={f"toolbox/{name}": b"content"}))

    listed = reader.text(f"{PAGE}?tab=contents")
    address = html.unescape(re.search(rf'href="({re.escape(PAGE)}/contents/toolbox/[^"]*)"', listed)[1])
    opened = reader.text(address)

    assert '<li id="L1">content</li>' in opened
    assert "<script>alert" not in listed + opened


# --- hostile metadata ---

HOSTILE_HEADERS = [
    (name, f"{name} {SCRIPT}")
    for name in (
        "Author",
        "Maintainer",
        "License",
        "Keywords",
        "Classifier",
        "Platform",
        "Home-page",
        "Download-URL",
    )
] + [
    ("Author-email", f'"{SCRIPT}" <a@b.c>, x" onmouseover="alert(1)@b.c'),
    ("Project-URL", f"{SCRIPT}, https://example.com/?{SCRIPT}"),
    ("Project-URL", "Evil, javascript:alert(1)"),
    ("Project-URL", "Data, data:text/html;base64,AAAA"),
    ("Project-URL", "Worse, https://[broken"),
    ("Project-URL", "Case, JaVaScRiPt://example.com/%0aalert(1)"),
    ("Description-Content-Type", "text/markdown"),
]


def test_markup_in_every_field_is_shown_as_text(admin, add, repository):
    filename, content = make_wheel(
        summary=f"Summary {SCRIPT}",
        extra_headers=HOSTILE_HEADERS,
        description=f"# {SCRIPT}\n\n[x](javascript:alert(1))",
        entry_points=f"[{SCRIPT}]\n{SCRIPT} = {SCRIPT}\n",
    )
    add(filename, content)
    repository.yank_file(TOOLBOX, WHEEL, f"Reason {SCRIPT}", TESTER)

    for address in (f"{HERE}/toolbox/", PAGE, f"{PAGE}?tab=details", f"{PAGE}?tab=contents"):
        shown = admin.text(address)
        assert "Summary &lt;script&gt;alert(1)&lt;/script&gt;" in shown
        assert "<script>" not in shown
        links = re.findall(r'href="([^"]*)"', shown)
        assert not [link for link in links if re.match(r"\s*(javascript|data|vbscript):", link, re.IGNORECASE)]
        assert not re.search(r"<[^>]*\sonmouseover=", re.sub(r'"[^"]*"', '""', shown))
        assert " style=" not in shown


def test_a_description_that_cannot_be_rendered_is_shown_as_text(reader, add):
    add(
        *make_wheel(
            description=f".. raw:: html\n\n   {SCRIPT}\n",
            extra_headers=[("Description-Content-Type", "text/x-rst")],
        )
    )

    shown = reader.text(PAGE)

    assert "It cannot be rendered, so it is shown as plain text." in shown
    assert html.escape(SCRIPT) in shown
    assert SCRIPT not in shown


def test_pages_forbid_inline_code_and_are_not_kept(reader, add):
    add(*make_wheel())

    answer = reader.get(PAGE)

    assert "unsafe-inline" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "private, no-store"


# --- installing ---


def test_snippets_name_the_place_of_the_token_and_have_no_quotes(reader, add):
    add(*make_wheel())

    shown = html.unescape(reader.text(PAGE))

    index = f"http://__token__:YOUR_TOKEN@localhost/{ORG}/{REPO}/pypi/simple"
    assert f"[global]\nextra-index-url = {index}\n" in shown.replace("</code>", "\n")
    assert f">--extra-index-url {index}<" in shown
    assert ">pip install toolbox==1.0<" in shown
    assert f"uv pip install --index {index} toolbox==1.0" in shown
    assert f"poetry config http-basic.{REPO} __token__ YOUR_TOKEN" in shown
    assert f'url = "{index}"' in shown


def test_a_public_repository_needs_no_credentials(reader, add, public):
    add(*make_wheel())

    shown = reader.text(PAGE)

    assert f"extra-index-url = http://localhost/{ORG}/{REPO}/pypi/simple" in shown
    assert "TOKEN" not in shown
    assert "__token__" not in shown
    assert "Make a read token" not in shown


def test_a_token_is_made_shown_once_filled_in_and_may_only_read(reader, registry, add):
    add(*make_wheel())

    made = reader.post(f"{PAGE}/token")

    secret = re.search(r"__token__:(pkh_\w+)@", made.text)[1]
    (token,) = registry.tokens.list(ORG, REPO)
    assert made.status_code == 200
    assert made.headers["Cache-Control"] == "private, no-store"
    assert "YOUR_TOKEN" not in made.text
    assert (sorted(token.scopes), token.repo, token.user) == (["read_packages"], REPO, "reader")
    assert secret not in reader.text(PAGE)
    index = reader.client.get(f"/{ORG}/{REPO}/pypi/simple/toolbox/", headers=basic(secret), buffered=True)
    assert index.status_code == 200


def test_no_token_is_made_for_a_public_repository_or_by_a_token(reader, registry, add, repository, tokens):
    add(*make_wheel())
    before = len(registry.tokens.list(ORG, REPO))
    csrf = re.search(r'name="csrf_token" value="([^"]+)"', reader.get("/login").text)[1]

    by_token = reader.client.post(
        f"{PAGE}/token", data={"csrf_token": csrf}, headers=basic(tokens.admin), buffered=True
    )
    repository.change_settings({"private": False})
    public = reader.post(f"{PAGE}/token")

    assert (by_token.status_code, public.status_code) == (403, 303)
    assert len(registry.tokens.list(ORG, REPO)) == before


# --- changing a file ---


def test_a_file_is_yanked_with_a_reason_and_unyanked(admin, add, repository):
    add(*make_wheel())

    yanked = admin.post(f"{PAGE}/yank", reason=f"broken {SCRIPT}")
    reason = repository.sidecar(TOOLBOX, WHEEL).file.yanked_reason
    shown = admin.text(PAGE)
    admin.post(f"{PAGE}/unyank")

    assert (yanked.status_code, yanked.headers["Location"]) == (303, PAGE)
    assert reason == f"broken {SCRIPT}"
    assert f"Reason: broken {html.escape(SCRIPT)}" in shown
    assert repository.sidecar(TOOLBOX, WHEEL).file.yanked_reason is None


def test_a_reason_of_several_lines_is_refused_beside_its_field(admin, add, repository):
    add(*make_wheel())

    refused = admin.post(f"{PAGE}/yank", reason="a\nb")

    assert refused.status_code == 422
    assert "Reason must be one line" in refused.text
    assert repository.sidecar(TOOLBOX, WHEEL).file.yanked is False


@pytest.mark.parametrize("typed", ["", "toolbox", WHEEL.upper(), f"{WHEEL}x", SCRIPT])
def test_a_file_is_not_deleted_until_its_name_is_typed(admin, add, repository, typed):
    add(*make_wheel())

    refused = admin.post(f"{PAGE}/delete", confirm=typed)

    assert refused.status_code == 422
    assert "This is not the name of the file; nothing was deleted." in refused.text
    assert repository.sidecar(TOOLBOX, WHEEL).file.filename == WHEEL
    assert SCRIPT not in refused.text


def test_a_deleted_file_is_restored_from_the_page_that_says_so(admin, add, repository):
    content = add(*make_wheel()).sidecar

    deleted = admin.post(f"{PAGE}/delete", confirm=WHEEL)
    gone, project = admin.get(PAGE), admin.get(f"{HERE}/toolbox/")
    entry = re.search(r'name="id" value="([^"]+)"', gone.text)[1]
    restored = admin.post(f"{PAGE}/restore", id=entry)

    assert (deleted.status_code, deleted.headers["Location"]) == (303, PAGE)
    assert (gone.status_code, project.status_code) == (404, 404)
    assert f"{WHEEL} was deleted" in gone.text
    assert "toolbox was deleted" in project.text
    assert restored.status_code == 303
    assert repository.sidecar(TOOLBOX, WHEEL) == content


def test_whoever_may_not_restore_is_only_told(visitor, add, repository):
    add(*make_wheel())
    repository.delete_file(TOOLBOX, WHEEL, TESTER)

    shown = visitor.sign_in("writer").get(PAGE)

    assert shown.status_code == 404
    assert "was deleted" in shown.text
    assert "Restore" not in shown.text


@pytest.mark.parametrize("entry_id", ["", "nothing", "../../packages", SCRIPT])
def test_what_is_not_in_the_trash_cannot_be_restored(admin, add, entry_id):
    add(*make_wheel())

    assert admin.post(f"{PAGE}/restore", id=entry_id).status_code == 404
