import errno
import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from jnst import files
from jnst.errors import InputError


@contextmanager
def full_disk(size):
    """No file may grow beyond `size` bytes: the kernel refuses the rest, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_written_file_holds_the_data_and_nothing_lies_beside_it(tmp_path):
    files.write_atomically(tmp_path / "a.png", b"first")
    files.write_atomically(tmp_path / "a.png", b"second")
    assert (tmp_path / "a.png").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a.png"]


def test_full_disk_leaves_the_old_file_and_no_remains(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    with full_disk(1000), pytest.raises(InputError, match=r"a\.png: cannot be written: "):
        files.write_atomically(tmp_path / "a.png", bytes(100_000))
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failure_of_any_step_leaves_the_old_file(tmp_path, monkeypatch, call):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(InputError, match=r"a\.png: cannot be written: No space left"):
        files.write_atomically(tmp_path / "a.png", b"new")
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_interrupt_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "a.png", b"new")
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


def test_data_is_on_disk_before_the_name_is(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    files.write_atomically(tmp_path / "a.png", b"data")
    assert calls == ["fsync", "replace"]


def test_a_library_s_own_temporary_file_lies_in_a_folder_of_ours(tmp_path):
    with files.replacing(tmp_path / "a.png", apart=True) as temporary:
        Path(temporary).with_name(".tmp123").write_bytes(b"data")
        (left,) = os.listdir(tmp_path)
        assert left.startswith(files.part_prefix("a.png"))
        os.rename(Path(temporary).with_name(".tmp123"), temporary)
    assert (tmp_path / "a.png").read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["a.png"]


def test_full_disk_leaves_no_folder_of_ours(tmp_path):
    with (
        full_disk(1000),
        pytest.raises(InputError, match=r"a\.png: cannot be written: "),
        files.replacing(tmp_path / "a.png", apart=True) as temporary,
    ):
        Path(temporary).with_name(".tmp123").write_bytes(bytes(100_000))
    assert os.listdir(tmp_path) == []


def test_written_file_has_the_users_usual_rights(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_atomically(tmp_path / "a.png", b"data")
        assert os.umask(0o027) == 0o027  # asking for the mask must not change it
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


def test_missing_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"a\.png: cannot be written: No such file"):
        files.write_atomically(tmp_path / "nothing" / "a.png", b"data")


def test_name_as_long_as_the_file_system_allows_is_written(tmp_path):
    path = tmp_path / ("a" * 251 + ".png")
    files.check_writable(path)
    files.write_atomically(path, b"data")
    assert path.read_bytes() == b"data"


def test_check_makes_the_folders_and_leaves_nothing_in_them(tmp_path):
    files.check_writable(tmp_path / "a" / "b" / "c.png")
    assert os.listdir(tmp_path / "a" / "b") == []


def test_check_keeps_a_file_that_is_there(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    files.check_writable(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_check_refuses_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "a.png", tmp_path / "file" / "b" / "a.png"):
        with pytest.raises(InputError, match=r"--output=.*a\.png: cannot be written"):
            files.check_writable(path)
    assert os.listdir(tmp_path) == ["file"]


def test_check_refuses_the_name_of_a_folder(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InputError, match=r"a\.png: is a folder"):
        files.check_writable(tmp_path / "a.png")


def test_check_refuses_a_name_too_long_for_the_file_system(tmp_path):
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        files.check_writable(tmp_path / ("a" * 300 + ".png"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_check_refuses_a_folder_without_rights(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written: Permission denied"):
        files.check_writable(tmp_path / "a.png")
