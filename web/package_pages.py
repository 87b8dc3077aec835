"""The pages of one project and of one file of it: how to install it, what it holds, why pip may not see it.

All that comes from packages is text; the one exception, a description, has been made safe by :mod:`web.readme`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import groupby
from typing import TYPE_CHECKING

from flask import Blueprint, current_app, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from packaging.utils import NormalizedName

import snippets
from storage.downloads import downloads_of, total_downloads
from storage.errors import FileNotFound, InvalidName, InvalidValue, ProjectNotFound
from storage.names import normalize_project
from storage.repository import Repository, project_of
from storage.sidecars import Sidecar
from storage.statuses import Status, parse_status, read_status
from storage.tokens import Scope
from web.access import base_url, page_needs, registry
from web.frame import held_scopes, person
from web.routing import Later

if TYPE_CHECKING:
    from packaging import specifiers

    from storage import browsing, explaining
    from web import package_facts, readme
else:
    specifiers = Later("packaging.specifiers")
    browsing, explaining = Later("storage.browsing"), Later("storage.explaining")
    package_facts, readme = Later("web.package_facts"), Later("web.readme")

package_pages = Blueprint("package_pages", __name__, url_prefix="/<org>/<repo>/packages")


def renderer() -> readme.Renderer:
    """The renderer of descriptions of the running app."""
    kept: readme.Renderer = current_app.extensions.setdefault("packhouse.renderer", readme.Renderer())
    return kept


# --- one project ---

RELEASES_ON_A_PAGE = 30


@package_pages.get("/<name>/")
@page_needs(Scope.READ_PACKAGES)
def project_page(repository: Repository, name: str) -> ResponseReturnValue:
    """A project's releases, the newest first, and what pip makes of its files."""
    project_name = requested_project(name)
    if name != project_name:
        return redirect(url_for(".project_page", name=project_name), HTTPStatus.MOVED_PERMANENTLY)
    try:
        project = browsing.open_project(repository, project_name)
    except ProjectNotFound:
        return deleted_page(repository, project_name)
    return render_project(repository, project)


def render_project(repository: Repository, project: browsing.Project, **more: object) -> str:
    """Return the page of *project*."""
    last = -(-len(project.releases) // RELEASES_ON_A_PAGE)
    page = min(max(1, request.args.get("page", 1, int)), last)
    latest = project.latest
    sidecar = repository.any_sidecar(project.name, browsing.representative(latest).filename)
    return render_template(
        "project.html",
        **frame(repository),
        project=project,
        releases=project.releases[(page - 1) * RELEASES_ON_A_PAGE : page * RELEASES_ON_A_PAGE],
        page=page,
        last=last,
        page_url=lambda number: url_for(".project_page", name=project.name, page=number),
        latest=latest,
        sidecar=sidecar,
        metadata=sidecar.metadata,
        statuses=list(Status),
        downloads=total_downloads(repository.tree.download_counts(project.name)),
        links=package_facts.links_of(sidecar.metadata),
        people=package_facts.people_of(sidecar.metadata),
        licenses=package_facts.licenses_of(sidecar),
        why=requested_explanation(repository, project),
        install=snippets.pip_command(
            base_url(), repository.org, repository.slug, package_facts.token_or_place(repository), project.name
        ),
        **more,
    )


@package_pages.post("/<name>/status")
@page_needs(Scope.WRITE_PACKAGES)
def change_status(repository: Repository, name: str) -> ResponseReturnValue:
    """Give the project another status (PEP 792)."""
    project = browsing.open_project(repository, requested_project(name))
    try:
        status = parse_status(request.form.get("status", ""), request.form.get("reason", ""))
    except InvalidValue as error:
        page = render_project(
            repository, project, status_error=sentence(error), status_reason=request.form.get("reason", "")
        )
        return page, HTTPStatus.UNPROCESSABLE_ENTITY
    repository.change_status(project.name, status, g.caller.actor)
    flash(f"The status of {project.name} is now: {status.status}.")
    return redirect(url_for(".project_page", name=project.name), HTTPStatus.SEE_OTHER)


# --- why can't pip see it? ---

MAX_EXPLAINED = 300  # files


@dataclass(frozen=True, slots=True)
class Why:
    """The answer on a page to "Why can't pip see it?", with the form that asks."""

    python: str
    platform: str
    requirement: str
    asked: bool
    error: str = ""
    wrong: str = ""  # the field that the error is about
    chosen: explaining.Explanation | None = None
    explanations: tuple[explaining.Explanation, ...] = ()
    more: int = 0  # files that are not explained

    @property
    def pythons(self) -> tuple[str, ...]:
        """What the list of Pythons offers."""
        return explaining.PYTHONS

    def platform_groups(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """The platforms of the list under their headings: key and title of each."""
        for heading, group in groupby(explaining.platforms().values(), lambda platform: platform.group):
            yield heading, [(platform.key, platform.title) for platform in group]


def requested_explanation(repository: Repository, project: browsing.Project) -> Why:
    """Answer the question in the address, if there is one."""
    given = {field: request.args.get(field, "").strip()[:300] for field in ("python", "platform", "requirement")}
    why = Why(
        given["python"] or explaining.DEFAULT_PYTHON,
        given["platform"] or explaining.DEFAULT_PLATFORM,
        given["requirement"],
        asked="python" in request.args or "platform" in request.args or "requirement" in request.args,
    )
    if not why.asked:
        return why
    no_requirement = specifiers.SpecifierSet()
    try:
        question = explaining.Question(
            explaining.parse_python(why.python),
            explaining.parse_platform(why.platform),
            explaining.parse_requirement(why.requirement, project.name) if why.requirement else no_requirement,
            project.status,
            repository.settings.private,
        )
    except InvalidValue as error:
        return Why(why.python, why.platform, why.requirement, asked=True, error=sentence(error), wrong=error.field)
    explanations = explaining.explain(project.files, question)
    return Why(
        why.python,
        why.platform,
        why.requirement,
        asked=True,
        chosen=next((e for e in explanations if e.verdict is explaining.Verdict.CHOSEN), None),
        explanations=tuple(explanations[:MAX_EXPLAINED]),
        more=max(0, len(explanations) - MAX_EXPLAINED),
    )


# --- one file ---

TABS = ("installation", "contents", "details", "attestations")


@package_pages.get("/<name>/<filename>")
@page_needs(Scope.READ_PACKAGES)
def package_page(repository: Repository, name: str, filename: str) -> ResponseReturnValue:
    """All that is known of one file; packagecloud's addresses say ``python`` where the project's name is."""
    project = project_of(filename)
    if name != project:
        if name != "python" and requested_project(name) != project:
            raise FileNotFound(filename)
        return redirect(url_for(".package_page", name=project, filename=filename), HTTPStatus.MOVED_PERMANENTLY)
    try:
        sidecar = repository.any_sidecar(project, filename)
    except FileNotFound:
        return deleted_page(repository, project, filename)
    return render_package(repository, sidecar)


def render_package(repository: Repository, sidecar: Sidecar, *, tab: str = "", **more: object) -> str:
    """Return the page of one file; *more* are tokens and errors to show on it."""
    file, metadata = sidecar.file, sidecar.metadata
    status = read_status(repository.tree, file.project)
    attestations = package_facts.attestations_of(repository, sidecar) if status.offers_files else ()
    tab = tab or request.args.get("tab", "")
    tab = tab if tab in TABS and (tab != "attestations" or attestations) else TABS[0]
    days = downloads_of(repository.tree, file.project, file.filename)
    return render_template(
        "package.html",
        **frame(repository),
        sidecar=sidecar,
        file=file,
        metadata=metadata,
        status=status,
        tab=tab,
        tabs=[t for t in TABS if t != "attestations" or attestations],
        attestations=attestations,
        downloads=sum(days.values()),
        chart=package_facts.chart_of(days),
        dependencies=browsing.dependencies_of(repository, metadata),
        links=package_facts.links_of(metadata),
        people=package_facts.people_of(metadata),
        licenses=package_facts.licenses_of(sidecar),
        tags=package_facts.tag_words(sidecar),
        description=renderer().render(metadata.description or "", metadata.description_content_type)
        if tab == TABS[0]
        else None,
        boxes=package_facts.snippet_boxes(repository, sidecar, str(more.get("token", "")))
        if tab == TABS[0] and status.offers_files
        else (),
        contents=package_facts.contents_of(sidecar) if tab == "contents" else None,
        **more,
    )


@package_pages.get("/<name>/<filename>/contents/<path:member>")
@page_needs(Scope.READ_PACKAGES)
def member_page(repository: Repository, name: str, filename: str, member: str) -> ResponseReturnValue:
    """The text of one file in the archive, with line numbers."""
    project = checked_project(name, filename)
    content = browsing.open_member(repository, project, filename, member)
    sidecar = repository.sidecar(project, filename)
    size = next(m.size for m in reversed(sidecar.members) if m.name == member)
    return render_template(
        "package_member.html",
        **frame(repository),
        sidecar=sidecar,
        file=sidecar.file,
        member=member,
        size=size,
        content=content,
    )


# --- changing a file ---


@package_pages.post("/<name>/<filename>/yank")
@page_needs(Scope.WRITE_PACKAGES)
def yank(repository: Repository, name: str, filename: str) -> ResponseReturnValue:
    """Mark the file as yanked (PEP 592)."""
    project, reason = checked_project(name, filename), request.form.get("reason", "")
    try:
        repository.yank_file(project, filename, reason, g.caller.actor)
    except InvalidValue as error:
        page = render_package(
            repository, repository.any_sidecar(project, filename), yank_error=sentence(error), yank_reason=reason
        )
        return page, HTTPStatus.UNPROCESSABLE_ENTITY
    flash(f"{filename} is yanked.")
    return redirect(url_for(".package_page", name=project, filename=filename), HTTPStatus.SEE_OTHER)


@package_pages.post("/<name>/<filename>/unyank")
@page_needs(Scope.WRITE_PACKAGES)
def unyank(repository: Repository, name: str, filename: str) -> ResponseReturnValue:
    """Take the mark away."""
    project = checked_project(name, filename)
    repository.unyank_file(project, filename, g.caller.actor)
    flash(f"{filename} is no longer yanked.")
    return redirect(url_for(".package_page", name=project, filename=filename), HTTPStatus.SEE_OTHER)


@package_pages.post("/<name>/<filename>/delete")
@page_needs(Scope.DELETE_PACKAGES)
def delete(repository: Repository, name: str, filename: str) -> ResponseReturnValue:
    """Move the file to the trash, if its name was typed."""
    project = checked_project(name, filename)
    typed = request.form.get("confirm", "").strip()
    if typed != filename:
        page = render_package(
            repository,
            repository.any_sidecar(project, filename),
            delete_error="This is not the name of the file; nothing was deleted.",
            delete_typed=typed[:300],
        )
        return page, HTTPStatus.UNPROCESSABLE_ENTITY
    repository.delete_file(project, filename, g.caller.actor)
    flash(f"{filename} is deleted.")
    return redirect(url_for(".package_page", name=project, filename=filename), HTTPStatus.SEE_OTHER)


@package_pages.post("/<name>/<filename>/restore")
@page_needs(Scope.DELETE_PACKAGES)
def restore(repository: Repository, name: str, filename: str) -> ResponseReturnValue:
    """Bring a deleted file back."""
    project = checked_project(name, filename)
    entry_id = request.form.get("id", "")
    if not any(entry.id == entry_id for entry in browsing.deleted_files(repository, project, filename)):
        raise FileNotFound(filename)
    repository.restore_file(project, entry_id, g.caller.actor)
    flash(f"{filename} is restored.")
    return redirect(url_for(".package_page", name=project, filename=filename), HTTPStatus.SEE_OTHER)


def deleted_page(repository: Repository, project: NormalizedName, filename: str = "") -> ResponseReturnValue:
    """Say that a file, or all of a project, was deleted, and when, and by whom; with a way back.

    :raises NotFound: if it never was there.
    """
    entries = browsing.deleted_files(repository, project, filename)
    if not entries:
        raise FileNotFound(filename) if filename else ProjectNotFound(project)
    page = render_template(
        "package_deleted.html", **frame(repository), name=project, filename=filename, entries=entries
    )
    return page, HTTPStatus.NOT_FOUND


# --- tokens ---


@package_pages.post("/<name>/<filename>/token")
@page_needs(Scope.READ_PACKAGES, signed_in=True)
def make_token(repository: Repository, name: str, filename: str) -> ResponseReturnValue:
    """Make a token that may read this repository, and show the snippets with it; it is not shown again."""
    project = checked_project(name, filename)
    sidecar = repository.any_sidecar(project, filename)
    user = person()
    if not repository.settings.private:
        return redirect(url_for(".package_page", name=project, filename=filename), HTTPStatus.SEE_OTHER)
    token, text = registry().tokens.create(
        repository.org,
        repository.slug,
        frozenset({Scope.READ_PACKAGES}),
        g.caller.actor,
        description=f"made to install {project}",
        user=user.name,
    )
    repository.record("token created", g.caller.actor, description=token.description)
    return render_package(repository, sidecar, tab=TABS[0], token=text, token_id=token.id)


# --- what a page shows ---


def frame(repository: Repository) -> dict[str, object]:
    """Return what all pages here show: the repository, and what the visitor may do in it."""
    held = held_scopes(repository.org, repository.slug)
    return {
        "section": "packages",
        "repository": repository,
        "settings": repository.settings,
        "may_write": Scope.WRITE_PACKAGES in held,
        "may_delete": Scope.DELETE_PACKAGES in held,
    }


def requested_project(name: str) -> NormalizedName:
    """Return the project called *name*, in whatever spelling.

    :raises ProjectNotFound: if no project can be called so.
    """
    try:
        return normalize_project(name)
    except InvalidName as error:
        raise ProjectNotFound(name) from error


def checked_project(name: str, filename: str) -> NormalizedName:
    """Return the project of *filename*, which the address calls *name*.

    :raises NotFound: if it is another's.
    """
    project = project_of(filename)
    if requested_project(name) != project:
        raise FileNotFound(filename)
    return project


def sentence(error: Exception) -> str:
    """Return what an error says as a sentence."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
