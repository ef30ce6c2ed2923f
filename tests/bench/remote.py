"""A restore over the network, on loopback: restore_into; curl from nginx + sha256sum + torch.load."""

import hashlib
import os
import socket
import subprocess
import time

import ckptd

import trainer
from measure import Result, alternate, at_most, timed
from programs import Ckptd, find, missing, run

CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/served;
  }}
}}
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Nginx:
    """Serves folder/served."""

    def __init__(self, folder):
        self.port = free_port()
        self.file = folder / "nginx.conf"
        user = "user root;\n" if os.geteuid() == 0 else ""  # its workers too, who else could not look into the folder
        self.file.write_text(user + CONFIGURATION.format(folder=folder, port=self.port))
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self.process = subprocess.Popen([find("nginx"), "-c", self.file], stderr=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except ConnectionRefusedError:
                if self.process.poll() is not None:
                    raise
                time.sleep(0.01)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def sha256(path):
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


FILE = "curl + sha256sum + torch.load + load_state_dict"
WITH_OPENSSL = "curl + openssl dgst + torch.load + load_state_dict"


def measure(setting):
    result = Result("A restore over the network, on loopback")
    if missing(result, "curl", "curl") or missing(result, "nginx", "nginx-light"):
        return result
    training = trainer.Trainer(setting.gib)
    served, fetched = setting.folder / "served", setting.folder / "fetched"
    copy = fetched / "state.pth"
    served.mkdir()
    fetched.mkdir()
    trainer.save_file(training.state(), served / "state.pth")
    (fetched / "sums").write_text(f"{sha256(served / 'state.pth')}  state.pth\n")
    with Ckptd(setting.folder) as server, Nginx(setting.folder) as nginx:
        client = ckptd.Client(server.address)
        client.save("bench", training.state(), epoch=1)

        def file():
            training.train()
            fetch = timed(
                lambda: run("curl", "--silent", "--show-error", "--fail", "--output", copy, f"{nginx.url}/state.pth")
            )
            check = timed(lambda: run("sha256sum", "--check", "--status", "sums", cwd=fetched))
            openssl = timed(lambda: run("openssl", "dgst", "-sha256", copy))
            load = timed(lambda: trainer.load_file_into(training, copy))
            copy.unlink()
            for step, seconds in {"fetch": fetch, "check": check, "load": load}.items():
                result.add(f"{FILE}: {step}", seconds)
            result.add(WITH_OPENSSL, fetch + openssl + load)
            return fetch + check + load

        def restore():
            training.train()
            return timed(lambda: client.restore_into("bench:latest", training.state()))

        alternate(result, setting, {FILE: file, "restore_into": restore})
    result.ratio(f"time: restore_into / {FILE}", "restore_into", FILE, at_most(0.5))
    result.ratio(f"time: restore_into / {WITH_OPENSSL}", "restore_into", WITH_OPENSSL)
    result.note("Debian's sha256sum does not use the processor's SHA instructions; openssl does")
    return result
