"""Whatever happens to a repository, it shows what a plain dict would."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from storage.errors import FileAlreadyExists, FileNotFound, ProjectNotFound
from storage.registry import Registry
from storage.repository import RepositorySettings, project_of
from tests.conftest import ORG, REPO, TESTER, add_to
from tests.storage.makers import make_sdist, make_wheel

PROJECTS = ["toolbox", "hammer"]


@lru_cache
def content_of(project: str, version: str, kind: str, variant: int) -> tuple[str, bytes]:
    """The name and bytes of a file; other variants are other bytes under the same name."""
    make = make_wheel if kind == "wheel" else make_sdist
    return make(project, version, summary=f"variant {variant}")


files = st.tuples(st.sampled_from(PROJECTS), st.sampled_from(["1.0", "2.0"]), st.sampled_from(["wheel", "sdist"]))


class History(RuleBasedStateMachine):
    """Publishes, yanks, deletes, restores and reopens beside a dict."""

    deleted = Bundle("deleted")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        registry = Registry(self.folder / "data")
        registry.create_organization(ORG)
        self.repository = registry.create_repository(ORG, REPO, RepositorySettings(name="Main"))
        self.live: dict[str, tuple[bytes, str | None]] = {}  # by file name: content and yanked reason
        self.trash: dict[str, list[bytes]] = {}  # by file name: what lies in the trash
        self.reuse = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(file=files, variant=st.integers(0, 1))
    def publish(self, file, variant):
        filename, content = content_of(*file, variant)
        if filename in self.live:
            expected = "same" if self.live[filename][0] == content else "taken"
        else:
            stood = self.trash.get(filename, [])
            expected = "taken" if stood and content not in stood and not self.reuse else "stored"

        try:
            added = add_to(self.repository, filename, content)
        except FileAlreadyExists:
            came = "taken"
        else:
            came = "stored" if added.created else "same"

        assert came == expected
        if came == "stored":
            self.live[filename] = (content, None)

    @rule(target=deleted, file=files)
    def delete(self, file):
        filename = content_of(*file, 0)[0]
        if filename not in self.live:
            with pytest.raises(FileNotFound):
                self.repository.delete_file(file[0], filename, TESTER)
            return multiple()
        entry = self.repository.delete_file(file[0], filename, TESTER)
        content, reason = self.live.pop(filename)
        self.trash.setdefault(filename, []).append(content)
        return entry.id, filename, content, reason

    @rule(entry=consumes(deleted))
    def restore(self, entry):
        entry_id, filename, content, reason = entry
        project = project_of(filename)
        if filename in self.live and self.live[filename][0] != content:
            with pytest.raises(FileAlreadyExists):
                self.repository.restore_file(project, entry_id, TESTER)
            return
        self.repository.restore_file(project, entry_id, TESTER)
        self.live.setdefault(filename, (content, reason))
        self.trash[filename].remove(content)

    @rule(file=files, reason=st.sampled_from(["", "wrong tag", None]))
    def yank(self, file, reason):
        filename = content_of(*file, 0)[0]
        if filename not in self.live:
            with pytest.raises(FileNotFound):
                self.repository.yank_file(file[0], filename, "", TESTER)
            return
        if reason is None:
            self.repository.unyank_file(file[0], filename, TESTER)
        else:
            self.repository.yank_file(file[0], filename, reason, TESTER)
        self.live[filename] = (self.live[filename][0], reason)

    @rule()
    def reopen(self):
        self.repository = Registry(self.folder / "data").repository(ORG, REPO)

    @precondition(lambda self: not self.reuse)
    @rule()
    def allow_reuse(self):
        self.repository.change_settings({"reuse_filenames": True})
        self.reuse = True

    @invariant()
    def shows_what_the_dict_does(self):
        assert self.repository.projects() == sorted({project_of(filename) for filename in self.live})
        shown = {}
        for project in PROJECTS:
            try:
                detail = self.repository.project(project)
            except ProjectNotFound:
                continue
            for file in detail.files:
                _, opened = self.repository.open_file(project, file.filename)
                with opened:
                    content = opened.read()
                assert hashlib.sha256(content).hexdigest() == file.sha256
                shown[file.filename] = (content, file.yanked_reason)
        assert shown == self.live
        in_trash = sorted(entry.sidecar.file.filename for entry in self.repository.trash())
        assert in_trash == sorted(name for name, contents in self.trash.items() for _ in contents)


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=2000), version=st.sampled_from(["1.0", "1!2.0", "1.0+x"]), sdist=st.booleans())
def test_what_is_added_is_listed_byte_for_byte(registry, payload, version, sdist):
    slug = f"r{hashlib.sha256(payload + version.encode() + bytes([sdist])).hexdigest()[:20]}"
    if slug in [repository.slug for repository in registry.repositories(ORG)]:
        return
    repository = registry.create_repository(ORG, slug, RepositorySettings(name="x"))
    make = make_sdist if sdist else make_wheel
    filename, content = make(version=version, files={"toolbox/data.bin": payload})

    add_to(repository, filename, content)

    (file,) = repository.project("toolbox").files
    _, opened = repository.open_file("toolbox", filename)
    with opened:
        assert opened.read() == content
    assert (file.filename, file.size, file.sha256) == (filename, len(content), hashlib.sha256(content).hexdigest())
