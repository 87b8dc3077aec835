"""nginx over pages that were written beforehand: what this machine can do at all. One worker, no access log."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.bench.connection import Connection
from tests.bench.corpus import SCRATCH, Corpus
from tests.bench.targets import RUN, Target
from tests.bench.targets.product import ORG, Packhouse

CONFIGURATION = """
user root; daemon off; master_process off; worker_processes 1; pid {run}/pid; error_log {run}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  types {{ text/html html; }}
  default_type application/octet-stream;
  access_log off; sendfile on; tcp_nopush on; gzip_static on; keepalive_requests 10000000;
  client_body_temp_path {run}/body; proxy_temp_path {run}/proxy; fastcgi_temp_path {run}/fastcgi;
  uwsgi_temp_path {run}/uwsgi; scgi_temp_path {run}/scgi;
  server {{ listen 127.0.0.1:{port} backlog=1024; root {root}; etag on; }}
}}
"""


class Nginx(Target):
    """Serves the very bytes that Packhouse serves: pages are asked of it once and written down."""

    name = "nginx"

    def load(self, corpus: Corpus) -> Path:
        """Write down every page, with a gzipped copy, and link the files where the pages' links lead."""
        data = SCRATCH / "nginx" / corpus.name
        done = data.with_name(f".{corpus.name}.done")
        if not done.exists():
            shutil.rmtree(data, ignore_errors=True)
            source = Packhouse("packhouse-source")
            source.start(corpus)
            try:
                for project in ["", *corpus.project_names()]:
                    _write_page(data / "simple" / project, source.connect(), source.index(), project)
            finally:
                source.stop()
            packages = source.data / ORG / source.repo / "packages"
            shutil.copytree(packages, data / "files", copy_function=os.link)  # with the core metadata
            done.touch()
        return data

    def command(self, data: Path) -> Sequence[str]:
        """In the foreground, as one process."""
        run = RUN / "nginx"
        run.mkdir(parents=True, exist_ok=True)
        configuration = run / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(run=run, port=self.port, root=data))
        return ["nginx", "-c", str(configuration), "-p", str(run)]


def _write_page(folder: Path, connection: Connection, index: str, project: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_bytes(connection.get(f"{index}{project}/" if project else index).body)
    compressed = folder / "index.html.gz"
    compressed.write_bytes(gzip.compress(page.read_bytes()))
    shutil.copystat(page, compressed)
