"""Downloads that are checked by hash and appear whole or not at all.

Pooch does the work: a temporary file, the hash, the rename; and Requests below it follows the usual variables for
proxies and certificates. Around it stand what neither has: a limit on what is accepted, and retries that know a cut
connection, which is worth another try, from a missing network, which is said at once.
"""

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from jnst import bundled, files
from jnst.errors import InputError

__all__ = ["DOWNLOADS", "MIRROR", "Bar", "Download", "Progress", "address", "fetch", "here", "place"]

MIRROR = "JNST_MIRROR"
"""The variable with the address of a folder that holds the same files, for networks that reach no other."""

TRIES = 3
CONNECT_SECONDS, SILENT_SECONDS = 6.0, 10.0
"""How long all addresses of a host together may take to answer; how long a connection may say nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Download:
    """A file that is known by its hash."""

    name: str
    url: str
    size: int
    """In bytes."""
    md5: str
    sha256: str = ""
    """Empty until somebody has seen the file: then the better hash."""

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    @property
    def hash(self) -> str:
        """The hash that is checked, with its kind."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}"


# Address and MD5 as keras-applications has them; the size as its progress bars show it.
DOWNLOADS = {
    "vgg19": Download(
        name="vgg19",
        url="https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
        "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        size=80_134_624,
        md5="253f8cb515780f3b799900260a226db6",
    )
}
"""By the name that `--weights` takes."""


class Bar(Protocol):
    """What is told of a download while it runs."""

    def update(self, count: int, /) -> None:
        """So many bytes more."""

    def close(self) -> None:
        """No more will come."""


Progress = Callable[[Download, str, int], Bar]
"""Called before each try with what is fetched, from where, and which try it is, from 1."""


def place(download: Download) -> Path:
    """Where the file lies once it is here."""
    return files.weights_folder() / download.file


def address(download: Download, url: str = "") -> str:
    """Where it is fetched from: `url` where that is given, else in the folder that `JNST_MIRROR` names, else in public.

    Raises:
        InputError: that is no address on the web.
    """
    mirror = os.environ.get(MIRROR, "")
    given = f"--url={url}" if url else f"{MIRROR}={mirror}"
    url = url or (f"{mirror.rstrip('/')}/{download.file}" if mirror else download.url)
    try:
        parts = urlsplit(url)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise InputError(f"{given}: not an address ({error})") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{given}: expected an address that begins with https:// or http://")
    return url


def here(name: str) -> bool:
    """Whether the download of this name has been made."""
    return bundled.is_file(place(DOWNLOADS[name]))


def fetch(name: str, *, url: str = "", progress: Progress | None = None) -> Path:
    """The file of a name in `DOWNLOADS`, downloaded where it is not here yet, its hash checked in any case.

    Args:
        name: Of the download.
        url: Another address of the same file; else a folder named by `JNST_MIRROR`, else the public address.
        progress: Told of the download.

    Raises:
        InputError: it cannot be had; the message says why and what to do instead.
    """
    import pooch  # late: it takes a while to load
    import requests

    download = DOWNLOADS[name]
    path = place(download)
    if bundled.is_file(path):
        if not _matches(path, download):
            raise InputError(f"{path}: is not the file that {name} means (its hash is not {download.hash}): remove it")
        return path
    url = address(download, url)
    pooch.get_logger().setLevel("ERROR")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        timeout = (_connect_seconds(download, url), SILENT_SECONDS)
        for attempt in range(1, TRIES + 1):
            guard = _Guard(download.size, timeout, progress(download, url, attempt) if progress else None)
            try:
                pooch.retrieve(url, download.hash, fname=download.file, path=path.parent, downloader=guard)
                os.chmod(path, 0o666 & ~files.umask())  # temporary files are made private
                return path
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.Timeout) as error:
                if not _reached(error, guard.count) or attempt == TRIES:  # no better in a second
                    raise _failure(download, url, _cause(error, guard.count)) from error
            except requests.HTTPError as error:
                status = error.response.status_code
                if status < 500 or attempt == TRIES:
                    raise _failure(download, url, f"the server answers {status} {error.response.reason}") from error
            except requests.RequestException as error:
                raise _failure(download, url, str(error)) from error
            except (ValueError, _TooLong) as error:  # Pooch's word for a wrong hash
                short = f" ({guard.count} of {download.size} came)" if guard.count < download.size else ""
                raise _failure(download, url, f"these are not its bytes: expected {download.hash}{short}") from error
            except OSError as error:
                if error.errno is None:  # Requests' own, for certificates that are not there
                    raise _failure(download, url, str(error)) from error
                raise
            finally:
                guard.finish()
            time.sleep(attempt)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error} (JNST_CACHE names the folder)"
        ) from error
    raise AssertionError("unreachable")


class _TooLong(Exception):
    """More bytes than the file has."""


class _Guard:
    """Pooch's downloader, into a file that counts, tells the bar, and stops what does not end.

    (Pooch's own progress counts pieces, whatever their size, and a server may send small ones.)
    """

    def __init__(self, size: int, timeout: tuple[float, float], bar: Bar | None):
        self.count, self._size, self._timeout, self._bar = 0, size, timeout, bar

    def __call__(self, url, path, _):
        import pooch

        with open(path, "wb") as self._file:
            pooch.HTTPDownloader(chunk_size=2**16, timeout=self._timeout)(url, self, None)

    def write(self, data):
        """Takes no more than the file has."""
        self.count += len(data)
        if self.count > self._size:
            raise _TooLong
        self._file.write(data)
        if self._bar is not None:
            self._bar.update(len(data))

    def flush(self):
        """Pooch does this after each piece."""
        self._file.flush()

    def finish(self):
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()


def _failure(download, url, cause):
    others = ", ".join(f"--weights={name}" for name in [*bundled.names("weights", ".safetensors"), "random"])
    return InputError(
        f"{download.name}: cannot be fetched from {url}: {cause}; put the file at {place(download)} "
        f"({download.size / 2**20:.0f} MiB) yourself, set {MIRROR} to the address of a folder that has it, "
        f"or use {others} or a file"
    )


def _reached(error, count):
    """Whether there was a connection that broke, rather than none."""
    import requests
    import urllib3

    broke = isinstance(error, requests.exceptions.ChunkedEncodingError)
    return count > 0 or broke or (bool(error.args) and isinstance(error.args[0], urllib3.exceptions.ProtocolError))


def _cause(error, count):
    if _reached(error, count):
        return "the connection broke off" if "timed out" not in str(error) else "the connection fell silent"
    words = str(error)
    if "NameResolution" in words or "getaddrinfo" in words or "name resolution" in words.lower():
        return "no network (the host's name is not found)"
    if "Tunnel connection failed" in words:
        answer = words.partition("Tunnel connection failed: ")[2].rstrip("'\"()")
        return f"the proxy refuses ({answer})"
    if "roxy" in words:
        return "the proxy does not answer"
    if "timed out" in words:
        return "no answer in time"
    if "CERTIFICATE" in words:
        return "the server's certificate is not trusted"
    return "no connection"


def _connect_seconds(download, url):
    """urllib3 tries the addresses of a host one after the other, each this long."""
    import requests

    if requests.utils.get_environ_proxies(url):  # which alone may know the host
        return CONNECT_SECONDS
    try:
        parts = urlsplit(url)
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _failure(download, url, "no network (the host's name is not found)") from error
    return max(1.0, CONNECT_SECONDS / len(found))


def _matches(path, download):
    import pooch

    return pooch.file_hash(str(path), alg=download.hash.partition(":")[0]) == download.hash.partition(":")[2]


def _sweep(folder):
    """Removes what killed downloads left a day ago or earlier; younger ones may be alive."""
    for path in folder.glob("tmp????????"):  # Python's temporary names; what is converted has an ending
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 86400:
                path.unlink()
