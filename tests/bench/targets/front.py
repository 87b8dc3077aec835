"""nginx in front of Packhouse, as docs/performance.md sets it up."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.corpus import Corpus
from tests.bench.targets import RUN, free_port, wait_for
from tests.bench.targets.product import Packhouse

CONFIGURATION = """
user root; daemon off; master_process off; worker_processes 1; pid {run}/pid; error_log {run}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 10000000;
  client_body_temp_path {run}/body; proxy_temp_path {run}/proxy; fastcgi_temp_path {run}/fastcgi;
  uwsgi_temp_path {run}/uwsgi; scgi_temp_path {run}/scgi;
  upstream packhouse {{ server 127.0.0.1:{upstream}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://packhouse; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $host; proxy_max_temp_file_size 0;
    }}
    location ~ ^/_files/([^/]+/[^/]+/packages/.+)$ {{ internal; alias {storage}/$1; }}
  }}
}}
"""


class NginxInFront(Packhouse):
    """Asked at nginx's port; processor time and memory are those of Packhouse alone."""

    def __init__(self, name: str, *, x_accel: bool = False) -> None:
        """Let nginx pass files on, or with *x_accel* take them from the disk itself."""
        prefix = "/_files" if x_accel else ""
        super().__init__(name, PACKHOUSE_TRUSTED_PROXIES="127.0.0.1", PACKHOUSE_X_ACCEL_REDIRECT=prefix)

    def command(self, data: Path) -> Sequence[str]:
        """Write down nginx's configuration, too."""
        self._nginx_port, run = free_port(), RUN / f"nginx-{self.name}"
        run.mkdir(parents=True, exist_ok=True)
        self._configuration = run / "nginx.conf"
        self._configuration.write_text(
            CONFIGURATION.format(run=run, port=self._nginx_port, upstream=self.port, storage=data)
        )
        return super().command(data)

    def start(self, corpus: Corpus, *, writable: bool = False) -> None:
        """Start nginx when Packhouse runs."""
        super().start(corpus, writable=writable)
        command = ["nginx", "-c", self._configuration, "-p", self._configuration.parent]
        self._nginx = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.port = self._nginx_port
        wait_for(self._nginx, self.port)

    def stop(self) -> None:
        """Stop both."""
        self._nginx.terminate()
        self._nginx.wait(10)
        super().stop()
