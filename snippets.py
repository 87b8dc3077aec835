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


def pip_command(base_url: str, org: str, repo: str, token: str = "", project: str = "PACKAGE") -> str:
    """Return the command that installs *project* from the repository, and what that needs from elsewhere."""
    return f"pip install --extra-index-url {index_url(base_url, org, repo, token)} {project}"


def pip_conf(base_url: str, org: str, repo: str, token: str = "") -> str:
    """Return the lines for ``pip.conf`` that let every ``pip install`` look into the repository too."""
    # Without quotes: pip takes them for a part of the address, ignores the line and logs the token (specs.md 2.7).
    return f"[global]\nextra-index-url = {index_url(base_url, org, repo, token)}"
