"""nginx passing on to the engine: what a sidecar is measured against."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.command import stop
from bench.load import found

_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr crit; worker_rlimit_nofile 4096;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering {buffering};
    }}
  }}
}}
"""


@contextmanager
def nginx(engine: int, *, stream: bool) -> Iterator[tuple[int, int]]:
    """nginx with one process in front of `engine`, for as long as the block: its process id and its port.

    Streams pass unbuffered.
    """
    program = found("nginx")
    assert program is not None, "need_tools() was not asked"
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tally-bench-nginx-") as folder:
        settings = Path(folder) / "nginx.conf"
        buffering = "off" if stream else "on"
        settings.write_text(_NGINX.format(folder=folder, engine=engine, port=port, buffering=buffering))
        process = subprocess.Popen([program, "-p", folder, "-c", str(settings)], stdout=subprocess.PIPE)
        try:
            _wait_for(port, process)
            yield process.pid, port
        finally:
            stop(process)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            raise RuntimeError(f"nginx ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("nginx does not listen")
