"""Downloads against a real server that stalls, cuts off, refuses and lies: the file is there whole, or not at all."""

import contextlib
import dataclasses
import gzip
import hashlib
import os
import resource
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from cli.command import listed, read_until
from downloads import (
    FILE,
    NOBODY,
    Server,
    alone,
    answer,
    checkout,
    chunked,
    endless,
    keras_bytes,
    params,
    raw,
    record,
    silence,
    start,
)

from jnst import weights
from jnst.errors import InputError
from jnst.weights import fetch

DATA = keras_bytes()
WRONG = bytes(len(DATA))
DEFAULT = fetch.DOWNLOADS["vgg19"]

OK = answer(DATA)
CUT = answer(DATA[:200_000], claim=len(DATA))
CUT_EARLY = answer(DATA[:1000], claim=len(DATA))
STALL = answer(DATA[:200_000], claim=len(DATA), hold=True)
BROKEN = answer(b"oops", 500)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where fetched files lie; `vgg19` is a small file, and nobody waits long."""
    alone(monkeypatch, tmp_path / "cache")
    monkeypatch.setitem(fetch.DOWNLOADS, "vgg19", record(DATA))
    monkeypatch.setattr(fetch, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(fetch, "SILENT_SECONDS", 0.3)
    return tmp_path / "cache" / "weights"


@pytest.fixture(autouse=True)
def sleeps(monkeypatch):
    """The seconds between tries, which nobody waits here."""
    seconds = []
    monkeypatch.setattr(fetch.time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:
        yield lambda *script, **options: stack.enter_context(Server(*script, **options))


class Seen:
    """A `Progress` that keeps what it is told."""

    def __init__(self, stop=None):
        self.tries, self.counts, self.closed, self.stop = [], [], 0, stop

    def __call__(self, download, url, attempt):
        self.tries.append((download.name, url, attempt))
        self.counts.append(0)
        return self

    def update(self, count):
        self.counts[-1] += count
        if self.stop is not None:
            raise self.stop

    def close(self):
        self.closed += 1


def assert_whole(folder):
    assert listed(folder) == [FILE]
    assert (folder / FILE).read_bytes() == DATA


def failure(**options):
    """The message of a fetch that fails, which is one line."""
    with pytest.raises(InputError) as caught:
        fetch.fetch("vgg19", **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_says_what_to_do(message, url, folder):
    """Which file, from where, and the three ways on."""
    assert message.startswith(f"vgg19: cannot be fetched from {url}: "), message
    for words in (str(folder / FILE), "put the file at", "JNST_MIRROR", "--weights", "random"):
        assert words in message, message


# ---- What is fetched


def test_the_default_is_the_published_file():
    assert DEFAULT.url == (
        "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
        "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
    )
    assert DEFAULT.file == "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert (DEFAULT.size, DEFAULT.md5) == (80_134_624, "253f8cb515780f3b799900260a226db6")
    assert DEFAULT.sha256 or DEFAULT.hash == "md5:253f8cb515780f3b799900260a226db6"
    # 16 kernels and biases of float32, the published widths; the rest is HDF5's own.
    channels = [3, 64, 64, 128, 128, *[256] * 4, *[512] * 8]
    numbers = sum(9 * a * b + b for a, b in zip(channels, channels[1:], strict=False))
    assert 0 < DEFAULT.size - 4 * numbers < 40_000


def test_without_an_answer_the_default_gives_up_within_seconds():
    assert fetch.TRIES == 3
    assert 2 <= fetch.CONNECT_SECONDS <= 10
    assert 2 <= fetch.SILENT_SECONDS <= 20


def test_a_fetched_file_is_whole_and_is_fetched_once(folder, serve):
    server = serve(OK)
    assert not fetch.here("vgg19")
    assert fetch.fetch("vgg19", url=server.url + "some/where.h5") == folder / FILE
    assert server.requests == ["GET /some/where.h5"]
    assert_whole(folder)
    assert fetch.here("vgg19")
    assert fetch.place(fetch.DOWNLOADS["vgg19"]) == folder / FILE
    assert fetch.fetch("vgg19", url=server.url) == folder / FILE
    assert len(server.requests) == 1


def test_the_word_loads_what_was_fetched(folder, serve, monkeypatch):
    monkeypatch.setenv("JNST_MIRROR", serve(OK).url)
    found, expected = weights.load("vgg19"), params()
    assert found.name == "vgg19"
    assert found.sha256 == hashlib.sha256(DATA).hexdigest()
    assert found.convolutions == ("conv1_1", "conv1_2", "conv2_1")
    np.testing.assert_array_equal(found.params["conv2_1"]["kernel"], expected["conv2_1"]["kernel"])
    np.testing.assert_allclose(  # BGR in 0..255 as Keras has it, RGB in [0, 1] as the house has it
        found.params["conv1_1"]["kernel"], 255 * expected["conv1_1"]["kernel"][:, :, ::-1], rtol=1e-6
    )


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_fetched_file_has_the_permissions_of_any_new_file(folder, serve, mask):
    before = os.umask(mask)
    try:
        path = fetch.fetch("vgg19", url=serve(OK).url)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_the_better_hash_counts_where_it_is_known(folder, serve, monkeypatch):
    right = dataclasses.replace(record(DATA), md5="0" * 32, sha256=hashlib.sha256(DATA).hexdigest())
    monkeypatch.setitem(fetch.DOWNLOADS, "vgg19", right)
    fetch.fetch("vgg19", url=serve(OK).url)
    assert_whole(folder)
    fetch.fetch("vgg19")  # which checks it again
    (folder / FILE).unlink()
    monkeypatch.setitem(fetch.DOWNLOADS, "vgg19", dataclasses.replace(record(DATA), sha256="0" * 64))
    assert f"expected sha256:{'0' * 64}" in failure(url=serve(OK).url)
    assert listed(folder) == []


# ---- Answers that come to a good end

GOOD = {
    "gzip": answer(gzip.compress(DATA), Content_Encoding="gzip"),
    "chunks": chunked(DATA, 100_000),
    "small chunks": chunked(DATA, 4096),  # as behind many a proxy: far more of them than 64 KiB pieces
    "without a length": answer(DATA, claim=-1),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_file_may_come_in_any_wrapping(folder, serve, case):
    server = serve(GOOD[case])
    fetch.fetch("vgg19", url=server.url)
    assert_whole(folder)
    assert len(server.requests) == 1


def test_a_redirect_is_followed(folder, serve):
    target = serve(OK)
    server = serve(answer(status=302, Location=target.url + "there.h5"))
    fetch.fetch("vgg19", url=server.url)
    assert (server.requests, target.requests) == (["GET /"], ["GET /there.h5"])
    assert_whole(folder)


RECOVERED = {
    "two errors of the server": [BROKEN, answer(status=503), OK],
    "cut off": [CUT, OK],
    "cut off twice": [CUT, CUT, OK],
    "cut off at the start": [CUT_EARLY, OK],
    "closed without a word": [raw(b""), OK],
    "silent in the middle": [STALL, OK],
}


@pytest.mark.parametrize("case", RECOVERED)
def test_a_trouble_that_passes_costs_another_try(folder, serve, sleeps, case):
    server, seen = serve(*RECOVERED[case]), Seen()
    fetch.fetch("vgg19", url=server.url, progress=seen)
    assert_whole(folder)
    assert len(server.requests) == len(RECOVERED[case])
    assert sleeps == [1, 2][: len(RECOVERED[case]) - 1]
    assert [attempt for _, _, attempt in seen.tries] == list(range(1, 1 + len(RECOVERED[case])))
    assert seen.closed == len(seen.tries)


# ---- Answers that do not: cause, number of requests

BAD = {
    "not there": ([answer(b"no such file", 404)], "404", 1),
    "forbidden": ([answer(status=403)], "403", 1),
    "error of the server": ([BROKEN], "500", 3),
    "cut off": ([CUT], "the connection broke off", 3),
    "cut off at the start": ([CUT_EARLY], "the connection broke off", 3),
    "closed without a word": ([raw(b"")], "the connection broke off", 3),
    "silent from the start": ([silence], "no answer in time", 1),
    "silent in the middle": ([STALL], "the connection fell silent", 3),
    "errors, then nothing there": ([BROKEN, answer(status=404)], "404", 2),
    "wrong bytes": ([answer(WRONG)], "not its bytes", 1),
    "one byte changed": ([answer(DATA[:-1] + bytes([DATA[-1] ^ 1]))], "not its bytes", 1),
    "one byte more": ([answer(DATA + b"\0")], "not its bytes", 1),
    "a page of a login": ([answer(b"<html>Please log in.</html>", Content_Type="text/html")], "not its bytes", 1),
    "nothing": ([answer(b"")], "", 1),
    "bytes without end": ([endless], "not its bytes", 1),
    "gzip without end": ([answer(gzip.compress(bytes(10**8)), Content_Encoding="gzip")], "not its bytes", 1),
    "gzip that is none": ([answer(DATA, Content_Encoding="gzip")], "", None),
    "a length that is no number": ([answer(DATA, claim="abc")], "", None),
    "another protocol": ([raw(b"SSH-2.0-OpenSSH_9.2p1\r\n")], "", None),
    "a cut without a length": ([answer(DATA[:200_000], claim=-1)], "", None),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_answers_leave_nothing_and_say_what_to_do(folder, serve, sleeps, case):
    script, cause, count = BAD[case]
    server, seen = serve(*script), Seen()
    message = failure(url=server.url + "a.h5", progress=seen)
    assert_says_what_to_do(message, server.url + "a.h5", folder)
    assert cause in message
    assert listed(folder) == []
    assert count in (len(server.requests), None)
    assert len(sleeps) == len(server.requests) - 1
    assert seen.closed == len(seen.tries) == len(server.requests)


def test_bytes_without_end_are_stopped_soon(folder, serve):
    seen = Seen()
    failure(url=serve(endless).url, progress=seen)
    assert sum(seen.counts) < len(DATA) + 2**18


def test_a_circle_of_redirects_ends(folder, serve):
    server = serve(answer(status=302, Location="/again"))
    assert_says_what_to_do(failure(url=server.url), server.url, folder)
    assert listed(folder) == []


# ---- No network


def test_nobody_there_is_said_at_once(folder, sleeps):
    seen = Seen()
    message = failure(progress=seen)
    assert_says_what_to_do(message, NOBODY + FILE, folder)
    assert "no connection" in message
    assert sleeps == []
    assert len(seen.tries) == 1
    assert listed(folder) == []


def test_a_host_without_a_name_is_no_network(folder, monkeypatch, sleeps):
    def unknown(*arguments, **options):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    url = "https://files.invalid/a.h5"
    message = failure(url=url)
    assert_says_what_to_do(message, url, folder)
    assert "no network" in message
    assert sleeps == []
    assert listed(folder) == []


@pytest.mark.slow
def test_a_host_that_swallows_all_is_given_up(folder, sleeps):
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(socket.socket())
        host.bind(("127.0.0.1", 0))
        host.listen(0)
        for _ in range(8):  # until its queue is full, and further knocking is not even refused
            guest = stack.enter_context(socket.socket())
            guest.settimeout(0.2)
            try:
                guest.connect(host.getsockname())
            except TimeoutError:
                break
        else:
            pytest.skip("this system takes every connection")
        url = f"http://127.0.0.1:{host.getsockname()[1]}/a.h5"
        message = failure(url=url)
    assert_says_what_to_do(message, url, folder)
    assert "no answer in time" in message
    assert sleeps == []


@pytest.mark.parametrize("count", [1, 2, 4])
def test_all_addresses_of_a_host_share_the_time_to_connect(folder, monkeypatch, count):
    monkeypatch.setattr(fetch, "CONNECT_SECONDS", 6.0)
    seen = []

    def get(url, timeout, **options):
        seen.append(timeout)
        raise requests.ConnectTimeout("timed out")

    monkeypatch.setattr(requests, "get", get)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{index}", 443)) for index in range(count)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
    assert "no answer in time" in failure(url="https://files.invalid/a.h5")
    assert seen == [(6.0 / count, 0.3)]


# ---- Proxies, mirrors, certificates

FAR = "http://files.invalid/a.h5"
"""An address that only a proxy knows."""


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_is_asked(folder, serve, monkeypatch, variable):
    proxy = serve(OK)
    monkeypatch.setenv(variable, proxy.url)
    fetch.fetch("vgg19", url=FAR)
    assert proxy.requests == [f"GET {FAR}"]
    assert_whole(folder)


def test_a_proxy_is_asked_for_https_too(folder, serve, monkeypatch):
    proxy, url = serve(answer(status=403)), "https://files.invalid/a.h5"
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("HTTP_PROXY", NOBODY)
    message = failure(url=url)
    assert proxy.requests == ["CONNECT files.invalid:443"]
    assert_says_what_to_do(message, url, folder)
    assert "proxy" in message


def test_hosts_without_a_proxy_are_reached_directly(folder, serve, monkeypatch):
    proxy, server = serve(OK), serve(OK)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    fetch.fetch("vgg19", url=server.url)
    assert (len(server.requests), proxy.requests) == (1, [])


@pytest.mark.parametrize(
    ("proxy", "cause"), [(NOBODY, "the proxy does not answer"), ("::::", "::::"), ("socks5://127.0.0.1:1", "SOCKS")]
)
def test_a_proxy_that_is_none_is_said(folder, monkeypatch, sleeps, proxy, cause):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    message = failure(url=FAR)
    assert_says_what_to_do(message, FAR, folder)
    assert cause in message
    assert sleeps == []


def test_a_proxy_that_wants_a_password_is_said(folder, serve, monkeypatch):
    proxy = serve(answer(status=407))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert "407" in failure(url=FAR)
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("path", ["", "some/folder", "some/folder/"])
def test_a_mirror_is_a_folder_with_the_same_file(folder, serve, monkeypatch, path):
    mirror, seen = serve(OK), Seen()
    monkeypatch.setenv("JNST_MIRROR", mirror.url + path)
    fetch.fetch("vgg19", progress=seen)
    address = "/".join(filter(None, [path.rstrip("/"), FILE]))
    assert mirror.requests == [f"GET /{address}"]
    assert seen.tries == [("vgg19", mirror.url + address, 1)]
    assert_whole(folder)


def test_an_address_that_is_given_goes_before_the_mirror(folder, serve, monkeypatch):
    mirror, server = serve(OK), serve(OK)
    monkeypatch.setenv("JNST_MIRROR", mirror.url)
    fetch.fetch("vgg19", url=server.url + "x")
    assert (mirror.requests, server.requests) == ([], ["GET /x"])


def test_a_mirror_does_not_excuse_wrong_bytes(folder, serve, monkeypatch):
    mirror = serve(answer(WRONG))
    monkeypatch.setenv("JNST_MIRROR", mirror.url)
    assert_says_what_to_do(failure(), mirror.url + FILE, folder)
    assert listed(folder) == []


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/a.h5", "a.h5", "file:///etc/passwd", "//127.0.0.1/a.h5"])
def test_another_kind_of_address_is_refused_under_its_flag(folder, monkeypatch, address):
    assert f"--url={address}: expected an address that begins with https://" in failure(url=address)
    monkeypatch.setenv("JNST_MIRROR", address)
    assert f"JNST_MIRROR={address}: expected an address that begins with https://" in failure()
    assert not folder.exists()


@pytest.mark.parametrize("proxy", ["", NOBODY])
@pytest.mark.parametrize("address", ["http://[", "http://127.0.0.1:99999/a", "http://127.0.0.1:x/a", "http://a..b/"])
def test_an_address_that_is_none_is_a_mistake_of_the_user(folder, monkeypatch, address, proxy):
    if proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
    assert address in failure(url=address)
    if folder.exists():
        assert listed(folder) == []


def test_a_scheme_in_capitals_is_one(folder, serve):
    fetch.fetch("vgg19", url=serve(OK).url.replace("http", "HTTP"))
    assert_whole(folder)


@pytest.fixture
def tls(tmp_path):
    """A certificate that nobody but its file's owner trusts."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not here to make a certificate")
    path, key = tmp_path / "own.crt", tmp_path / "own.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return context, str(path)


def test_certificates_are_checked_and_ones_own_can_be_named(folder, serve, monkeypatch, tls, sleeps):
    server = serve(OK, tls=tls[0])
    message = failure(url=server.url)
    assert_says_what_to_do(message, server.url, folder)
    assert "certificate is not trusted" in message
    assert (server.requests, sleeps, listed(folder)) == ([], [], [])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", tls[1])
    fetch.fetch("vgg19", url=server.url)
    assert_whole(folder)


def test_certificates_that_are_not_there_are_no_fault_of_the_folder(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere.crt"))
    message = failure(url="https://127.0.0.1:1/a.h5")
    assert "nowhere.crt" in message
    assert "cannot be written" not in message


# ---- The folder


def test_a_wrong_file_at_its_place_is_refused_and_kept(folder, serve):
    server = serve(OK)
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(WRONG)
    message = failure(url=server.url)
    assert message.startswith(f"{folder / FILE}: is not the file that vgg19 means")
    assert record(DATA).hash in message
    assert "remove it" in message
    with pytest.raises(InputError, match="remove it"):
        weights.load("vgg19")
    assert server.requests == []
    assert (folder / FILE).read_bytes() == WRONG
    assert listed(folder) == [FILE]


def test_a_file_that_somebody_put_there_is_taken(folder):
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(DATA)
    assert fetch.here("vgg19")
    assert fetch.fetch("vgg19") == folder / FILE


@pytest.mark.parametrize("way", ["cache", "cache/weights"])
def test_a_file_in_the_way_of_the_folder_is_said_before_any_request(folder, tmp_path, serve, way):
    server = serve(OK)
    (tmp_path / way).parent.mkdir(exist_ok=True)
    (tmp_path / way).write_text("mine")
    message = failure(url=server.url)
    assert message.startswith(f"{folder / FILE}: cannot be written: ")
    assert "JNST_CACHE" in message
    assert server.requests == []
    assert (tmp_path / way).read_text() == "mine"


def test_a_folder_at_the_place_of_the_file_is_said(folder, serve):
    (folder / FILE).mkdir(parents=True)
    message = failure(url=serve(OK).url)
    assert str(folder / FILE) in message
    assert listed(folder) == []
    assert (folder / FILE).is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_said(folder, serve):
    server = serve(OK)
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    message = failure(url=server.url)
    folder.chmod(0o700)
    assert "cannot be written" in message
    assert "JNST_CACHE" in message
    assert listed(folder) == []


def test_a_file_too_large_for_the_disk_leaves_nothing(folder, serve, sleeps):
    server = serve(OK)
    folder.mkdir(parents=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        message = failure(url=server.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert message.startswith(f"{folder / FILE}: cannot be written: File too large")
    assert (listed(folder), sleeps, len(server.requests)) == ([], [], 1)


def test_a_full_disk_leaves_nothing(folder, tmp_path, serve, sleeps):
    disk = tmp_path / "cache"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk]
    if not mount or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk can be made by root only")
    try:
        server = serve(OK)
        message = failure(url=server.url)
        left = listed(disk)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert message.startswith(f"{folder / FILE}: cannot be written: No space left")
    assert (left, sleeps, len(server.requests)) == ([], [], 1)


def test_home_in_the_name_of_the_cache_folder(serve, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JNST_CACHE", "~/cache")
    monkeypatch.chdir(tmp_path)
    path = fetch.fetch("vgg19", url=serve(OK).url)
    assert path == tmp_path / "home" / "cache" / "weights" / FILE
    assert path.read_bytes() == DATA
    assert not (tmp_path / "~").exists()


def test_a_relative_cache_folder(serve, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JNST_CACHE", "near")
    fetch.fetch("vgg19", url=serve(OK).url)
    assert_whole(tmp_path / "near" / "weights")


def test_old_leftovers_are_swept_and_nothing_else(folder, serve):
    folder.mkdir(parents=True)
    names = ["tmpabcd1234", "tmp_9zy8xw7", "tmpyoung123", "mine.safetensors", "tmp.safetensors", "tmpnet.safetensors"]
    for name in names:
        (folder / name).write_text("x")
        if name != "tmpyoung123":
            yesterday = time.time() - 90_000
            os.utime(folder / name, (yesterday, yesterday))
    fetch.fetch("vgg19", url=serve(OK).url)
    assert listed(folder) == sorted([FILE, *names[2:]])


def test_a_fetch_writes_neither_into_the_working_folder_nor_into_the_checkout(folder, tmp_path, serve, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    before = checkout()
    fetch.fetch("vgg19", url=serve(OK).url)
    assert listed(tmp_path) == [f"cache/weights/{FILE}"]
    assert checkout() == before


# ---- What is told meanwhile


def test_progress_counts_the_bytes(folder, serve):
    server, seen = serve(OK), Seen()
    fetch.fetch("vgg19", url=server.url, progress=seen)
    assert seen.tries == [("vgg19", server.url, 1)]
    assert seen.counts == [len(DATA)]
    assert seen.closed == 1


def test_progress_starts_anew_with_each_try(folder, serve):
    server, seen = serve(CUT, OK), Seen()
    fetch.fetch("vgg19", url=server.url, progress=seen)
    assert 0 < seen.counts[0] <= 200_000
    assert seen.counts[1] == len(DATA)


def test_no_progress_where_nothing_is_fetched(folder, serve):
    fetch.fetch("vgg19", url=serve(OK).url)
    seen = Seen()
    fetch.fetch("vgg19", progress=seen)
    assert seen.tries == []


def test_ctrl_c_in_the_middle_leaves_nothing(folder, serve):
    server, seen = serve(STALL, OK), Seen(stop=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("vgg19", url=server.url, progress=seen)
    assert listed(folder) == []
    assert seen.closed == 1
    fetch.fetch("vgg19", url=server.url)
    assert_whole(folder)


# ---- Processes


@pytest.mark.slow
def test_killed_in_the_middle_it_can_be_fetched_again(folder, serve):
    server = serve(STALL, OK)
    command = ["weights", "fetch", "vgg19", f"--url={server.url}"]
    child = start(record(DATA), *command)
    read_until(child.stdout, "  10%")
    child.kill()
    child.communicate(timeout=60)
    (left,) = folder.iterdir()  # what nothing could remove any more
    assert left.name.startswith("tmp")
    assert left.stat().st_size < len(DATA)
    assert not fetch.here("vgg19")
    os.utime(left, (time.time() - 90_000,) * 2)
    fetch.fetch("vgg19", url=server.url)
    assert_whole(folder)


@pytest.mark.slow
def test_two_fetches_at_once_both_succeed(folder, serve):
    together = []

    def both(handler):
        """Answers nobody before both have asked."""
        together.append(handler)
        for _ in range(1200):
            if len(together) == 2 or handler.server.owner.over.wait(0.05):
                break
        OK(handler)

    server = serve(both)
    children = [start(record(DATA), "weights", "fetch", "vgg19", f"--url={server.url}") for _ in range(2)]
    ends = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0, 0], ends
    assert [err for _, err in ends] == ["", ""]
    assert len(server.requests) == 2
    assert_whole(folder)


def test_nothing_is_written_before_there_is_something_to_fetch(folder):
    assert not fetch.here("vgg19")
    assert weights.load("random", ["relu1_1"]).name == "random:0"
    with pytest.raises(InputError, match="no such file; names: mini, vgg19, random"):
        weights.load("vgg16")
    assert not Path(folder).exists()
