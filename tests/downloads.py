"""Downloads for tests: a real web server whose answers are scripted, and a small file in place of the VGG-19."""

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import reference

import jnst
from jnst.weights import fetch

ROOT = Path(jnst.__file__).resolve().parents[1]
PATIENCE, SILENCE = 60, 15
"""Seconds after which a command that hangs ends a test, and after which a silent server gives up."""


class Server:
    """Answers its first request by the first of `script`, and so on; the last answer is given again and again."""

    def __init__(self, *script, tls=None):
        self.script, self.requests, self.lock = script, [], threading.Lock()
        self.over = threading.Event()
        self._server = _Quiet(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def next_answer(self, line):
        with self.lock:
            self.requests.append(line)
            return self.script[min(len(self.requests), len(self.script)) - 1]


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request, address):
        """The other side has gone, as it should in most of these tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        self.server.owner.next_answer(f"{self.command} {self.path}")(self)

    do_CONNECT = do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


# ---- Answers


def answer(data=b"", status=200, *, claim=None, hold=False, **headers):
    """Sends `data` as `claim` bytes (its own length; -1: without a word of it); where it is to `hold`, says no more."""

    def send(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if claim != -1:
            handler.send_header("Content-Length", str(len(data) if claim is None else claim))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data)
        if hold:
            handler.wfile.flush()
            handler.server.owner.over.wait(SILENCE)

    return send


def chunked(data, size):
    """Sends `data` in HTTP's chunks of so many bytes, as servers do that do not know the length beforehand."""

    def send(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(data), size):
            part = data[start : start + size]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n")

    return send


def raw(data):
    """Sends bytes that need not be HTTP; none: closes the connection without a word."""
    return lambda handler: handler.wfile.write(data)


def silence(handler):
    """Takes the request and says nothing."""
    handler.server.owner.over.wait(SILENCE)


def endless(handler):
    """Sends far more than anybody should take."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(bytes(2**16))


# ---- In place of the VGG-19


def params(widths=(4, 5, 6, 7, 8)):
    return reference.random_params(widths, seed=3)


def keras_bytes(size=400_001, layers=("conv1_1", "conv1_2", "conv2_1")):
    """A file as Keras wrote it, with the first layers of `params()`, a little larger than `size`."""
    made, rest = params(), np.random.default_rng(0).integers(0, 256, size, np.uint8)
    file = io.BytesIO()
    with h5py.File(file, "w") as keras:
        for name in layers:
            layer = f"block{name[4]}_conv{name[6]}"
            keras[f"{layer}/{layer}_W_1:0"] = made[name]["kernel"]
            keras[f"{layer}/{layer}_b_1:0"] = made[name]["bias"]
        keras["rest"] = rest  # larger than what is read at a time
    return file.getvalue()


FILE = "vgg19_tiny_notop.h5"
NOBODY = "http://127.0.0.1:1/"
"""Where no server is."""


def record(data, url=NOBODY + FILE):
    return fetch.Download(name="vgg19", url=url, size=len(data), md5=hashlib.md5(data).hexdigest())


_PROCESS = """
import importlib, json, sys
from jnst.weights import fetch
fetch.DOWNLOADS["vgg19"] = fetch.Download(**json.loads(sys.argv[1]))
sys.exit(importlib.import_module(f"jnst.cli.{sys.argv[2]}").main(sys.argv[2:]))
"""


def start(download, *words, **options):
    """A command as a process, for which `vgg19` means this download: `start(record, "weights", "fetch", "vgg19")`."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    fields = json.dumps(dataclasses.asdict(download))
    return subprocess.Popen([sys.executable, "-P", "-c", _PROCESS, fields, *words], text=True, **streams)


def alone(monkeypatch, cache):
    """A cache folder of one's own, and none of the machine's settings for networks, for processes too."""
    proxies = [f"{kind}_proxy" for kind in ("http", "https", "all", "no", "ftp")]
    for name in (*proxies, *map(str.upper, proxies), "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(fetch.MIRROR, raising=False)
    monkeypatch.setenv("JNST_CACHE", str(cache))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def checkout():
    """What lies in the checkout where weights and caches might turn up."""
    folders = [ROOT, *(ROOT / name for name in ("weights", "examples", "presets") if (ROOT / name).is_dir())]
    paths = [path for folder in folders for path in folder.iterdir()]
    return sorted(str(path) for path in paths if path.name[0] != "." and path != ROOT / "out")
