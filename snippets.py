"""What people paste into a shell or a file: the same lines at the first start and on the pages.

Pure functions of a *base_url* (without a slash at its end) and names; whoever calls says whose token goes in.
"""

from __future__ import annotations

import ipaddress

USER = "__token__"  # any user name will do with a token as the password; this one is known from twine


def local_url(host: str, port: int) -> str:
    """Return the address under which this machine reaches a server that is bound to *host* and *port*."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:  # bound to every address of the machine, and none to connect to
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if address.version == 6 else f"http://{host}:{port}"


def index_url(base_url: str, org: str, repo: str, token: str = "") -> str:
    """Return the address of the simple index, with *token* as its password; without one for a public repository."""
    scheme, _, rest = base_url.partition("://")
    credentials = f"{USER}:{token}@" if token else ""
    return f"{scheme}://{credentials}{rest}/{org}/{repo}/pypi/simple"


def curl_command(base_url: str, org: str, repo: str, token: str, file: str = "FILE") -> str:
    """Return the command, of three lines, that publishes the wheel or sdist *file*."""
    return (
        f"curl -X POST {base_url}/api/v1/repos/{org}/{repo}/packages.json \\\n"
        f'  -u "{token}:" \\\n'
        f'  -F "package[package_file]=@{file}"'
    )


def upload_url(base_url: str, org: str, repo: str) -> str:
    """Return the address that uploaders such as twine publish to."""
    return f"{base_url}/{org}/{repo}/pypi/legacy/"


def twine_command(base_url: str, org: str, repo: str, token: str, files: str = "dist/*") -> str:
    """Return the command, of two lines, with which twine publishes *files*."""
    url = upload_url(base_url, org, repo)
    return f"twine upload --repository-url {url} \\\n  -u {USER} -p {token} {files}"


def uv_publish_command(base_url: str, org: str, repo: str, token: str, files: str = "dist/*") -> str:
    """Return the command, of two lines, with which uv publishes *files*."""
    url = upload_url(base_url, org, repo)
    return f"uv publish --publish-url {url} \\\n  --token {token} {files}"


def poetry_commands(base_url: str, org: str, repo: str, token: str) -> str:
    """Return the commands with which poetry publishes what it has built; the first two are needed only once."""
    return (
        f"poetry config repositories.{repo} {upload_url(base_url, org, repo)}\n"
        f"poetry config http-basic.{repo} {USER} {token}\n"
        f"poetry publish --repository {repo}"
    )


def pip_command(base_url: str, org: str, repo: str, token: str = "", project: str = "PACKAGE") -> str:
    """Return the command that installs *project* from the repository, and what that needs from elsewhere."""
    return f"pip install --extra-index-url {index_url(base_url, org, repo, token)} {project}"


def pip_conf(base_url: str, org: str, repo: str, token: str = "") -> str:
    """Return the lines for ``pip.conf`` that let every ``pip install`` look into the repository too."""
    # Without quotes: pip takes them for a part of the address, ignores the line and logs the token (specs.md 2.7).
    return f"[global]\nextra-index-url = {index_url(base_url, org, repo, token)}"


def requirements_txt(base_url: str, org: str, repo: str, token: str = "") -> str:
    """Return the line for ``requirements.txt`` that makes pip look into the repository too; unquoted as above."""
    return f"--extra-index-url {index_url(base_url, org, repo, token)}"


def pip_install(name: str, version: str) -> str:
    """Return the command that installs one release, where pip has been told of the repository."""
    return f"pip install {name}=={version}"


def uv_install(base_url: str, org: str, repo: str, token: str, name: str, version: str) -> str:
    """Return the command with which uv installs one release; it asks the repository before the public index."""
    return f"uv pip install --index {index_url(base_url, org, repo, token)} {name}=={version}"


def poetry_source(base_url: str, org: str, repo: str, token: str, name: str, version: str) -> str:
    """Return the commands that tell poetry of the repository and let it take one release from there.

    The credentials go into poetry's own configuration, not into ``pyproject.toml``.
    """
    login = f"poetry config http-basic.{repo} {USER} {token}\n" if token else ""
    return (
        f"poetry source add --priority=explicit {repo} {index_url(base_url, org, repo)}/\n"
        f"{login}poetry add --source {repo} {name}=={version}"
    )


def pdm_source(base_url: str, org: str, repo: str, token: str, name: str) -> str:
    """Return the lines for ``pyproject.toml`` with which pdm takes *name* from the repository, and nothing else."""
    return (
        f'[[tool.pdm.source]]\nname = "{repo}"\nurl = "{index_url(base_url, org, repo, token)}"\n'
        f'include_packages = ["{name}"]'
    )
