"""The objects of packagecloud's API (specs.md 5.5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from flask import g

from storage.downloads import downloads_of
from storage.repository import Repository
from storage.sidecars import Sidecar
from web.access import base_url, registry
from web.words import plural, time_ago


def fragment(repository: Repository, sidecar: Sidecar) -> dict[str, Any]:
    """Return packagecloud's PackageFragment of a file (specs.md 5.5): what stands in lists.

    Where to read more is said in paths, but for one full URL (specs.md 5.1).
    """
    file = sidecar.file
    quoted = quote(file.filename)
    root = repository_address(repository)
    version = version_address(repository, sidecar)
    html = f"/{repository.org}/{repository.slug}/packages/python/{quoted}"
    return {
        "name": file.project,
        "distro_version": "python",
        "architecture": None,
        "filename": file.filename,
        "version": file.version,
        "type": "python",
        "sha256sum": sidecar.digests.sha256,
        "private": repository.settings.private,
        "uploader_name": uploader_name(sidecar) if g.get("caller") else None,  # not for everybody (specs.md 5.2)
        "created_at": sidecar.file.upload_time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{millisecond(sidecar):03d}Z",
        "release": None,
        "epoch": None,
        "scope": None,
        "indexed": True,
        "repository_html_url": f"/{repository.org}/{repository.slug}",
        "package_url": f"{version}.json?filename={quoted}",
        "promote_url": f"{root}/python/1/{quoted}/promote.json",
        "destroy_url": f"{root}/python/1/{quoted}",
        "package_html_url": html,
        "download_url": f"{base_url()}{html}/download",
        "downloads_count_url": f"{version}/stats/downloads/count.json?filename={quoted}",
        "downloads_detail_url": f"{version}/stats/downloads/detail.json?filename={quoted}",
        "downloads_series_url": f"{version}/stats/downloads/series/daily.json?filename={quoted}",
    }


def package_details(repository: Repository, sidecar: Sidecar) -> dict[str, Any]:
    """Return packagecloud's PackageDetails of a file (specs.md 5.5)."""
    file, metadata, digests = sidecar.file, sidecar.metadata, sidecar.digests
    root = repository_address(repository)
    return {
        **fragment(repository, sidecar),
        "repository": repository.slug,
        "size": str(file.size),
        "summary": metadata.summary,
        "description": metadata.description,
        "licenses": licenses(sidecar),
        "dependencies": dependencies(sidecar),
        "md5sum": digests.md5,
        "sha1sum": digests.sha1,
        "sha512sum": digests.sha512,
        "total_downloads_count": sum(downloads_of(repository.tree, file.project, file.filename).values()),
        "repository_url": root,
        "self_url": f"{version_address(repository, sidecar)}.json?filename={quote(file.filename)}",
        "versions_url": f"{root}/package/python/{file.project}/versions.json",
    }


def repository_address(repository: Repository) -> str:
    """Return the path of a repository in this API."""
    return f"/api/v1/repos/{repository.org}/{repository.slug}"


def version_address(repository: Repository, sidecar: Sidecar) -> str:
    """Return the path of the release that a file belongs to, without what may follow."""
    return f"{repository_address(repository)}/package/python/{sidecar.file.project}/{quote(sidecar.file.version)}"


def millisecond(sidecar: Sidecar) -> int:
    """The thousandths of a second in the upload time."""
    return sidecar.file.upload_time.microsecond // 1000


def uploader_name(sidecar: Sidecar) -> str:
    """Who published a file, in a word or two."""
    return sidecar.uploader.description or sidecar.uploader.id or str(sidecar.uploader)


SHORT_LICENSE = 100  # characters; a longer License field is a whole licence


def licenses(sidecar: Sidecar) -> list[str]:
    """The licences that a file's metadata names (specs.md 8.7)."""
    metadata = sidecar.metadata
    if metadata.license_expression:
        return [metadata.license_expression]
    classified = [c.rpartition(" :: ")[2] for c in metadata.classifiers if c.startswith("License :: ")]
    if classified:
        return classified
    text = metadata.license or ""
    return [text] if text and "\n" not in text and len(text) <= SHORT_LICENSE else []


def dependencies(sidecar: Sidecar) -> list[dict[str, Any]] | None:
    """What a file depends on, by packagecloud's contexts; None if on nothing."""
    metadata = sidecar.metadata
    by_context: dict[str, Iterable[str]] = {
        "requires": metadata.requires,
        "requires-dist": metadata.requires_dist,
        "requires-external": metadata.requires_external,
        "requires-extra": metadata.provides_extra,
        "requires-python": [metadata.requires_python] if metadata.requires_python else [],
    }
    return [{"context": key, "dependencies": list(held)} for key, held in by_context.items() if held] or None


def repository_json(repository: Repository) -> dict[str, Any]:
    """Return packagecloud's Repository (specs.md 5.5)."""
    held = repository.settings
    entries = registry().catalog(repository).newest_first()
    return {
        "name": repository.slug,
        "created_at": held.created_at,
        "url": f"{base_url()}/{repository.org}/{repository.slug}",
        "last_push_human": time_ago(entries[0].upload_time) if entries else "never",
        "package_count_human": plural(len(entries), "package"),
        "private": held.private,
        "fqname": f"{repository.org}/{repository.slug}",
    }
