"""Checkpoints of trainings, in a folder, by orbax."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from jnst.cli.training_checkpoints import Checkpoints, is_ours
from jnst.errors import InputError
from jnst.types import Snapshot

pytestmark = pytest.mark.slow

LEAVES = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([3, 4], np.int32), np.float32(7).reshape(())]
FACTS = {"flags": {"steps": 9}, "inputs": {"weights": "ab"}, "seconds": 1.5}


def _write(checkpoints, *steps):
    for step in steps:
        trace = [{"step": 1, "net": 0, "total": 0.25}]
        checkpoints.write(Snapshot([step * leaf for leaf in LEAVES], trace), {**FACTS, "step": step})
    checkpoints.close()


def test_what_is_read_is_what_was_written(tmp_path):
    output = str(tmp_path / "net.safetensors")
    _write(Checkpoints(output), 2, 4)
    found = Checkpoints(output).read()
    for ours, theirs in zip(found.snapshot.leaves, LEAVES, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert np.array_equal(ours, 4 * theirs)
    assert found.snapshot.trace == [{"step": 1, "net": 0, "total": 0.25}]
    assert found.facts == {**FACTS, "step": 4}
    assert Checkpoints(output).step_of_another() == 4


def test_two_are_kept_and_the_last_is_taken(tmp_path):
    output = str(tmp_path / "net.safetensors")
    _write(Checkpoints(output), 1, 2, 3)
    folder = tmp_path / "net.ckpt"
    assert sorted(entry.name for entry in folder.iterdir()) == ["2", "3"]
    assert is_ours(folder)
    shutil.rmtree(folder / "3")
    assert Checkpoints(output).read().facts["step"] == 2


def test_without_one_there_is_none(tmp_path):
    assert Checkpoints(str(tmp_path / "net.safetensors")).read() is None
    (tmp_path / "net.ckpt").mkdir()
    assert Checkpoints(str(tmp_path / "net.safetensors")).read() is None


def test_a_training_that_starts_anew_takes_the_place_of_another(tmp_path):
    output = str(tmp_path / "net.safetensors")
    _write(Checkpoints(output), 8)
    _write(Checkpoints(output), 1)
    assert Checkpoints(output).read().facts["step"] == 1


def test_one_that_goes_on_keeps_what_it_went_on_from(tmp_path):
    output = str(tmp_path / "net.safetensors")
    _write(Checkpoints(output), 8)
    checkpoints = Checkpoints(output)
    checkpoints.read()
    _write(checkpoints, 9)
    assert sorted(entry.name for entry in (tmp_path / "net.ckpt").iterdir()) == ["8", "9"]


def test_a_damaged_one_is_named(tmp_path):
    output = str(tmp_path / "net.safetensors")
    _write(Checkpoints(output), 1)
    for path in (tmp_path / "net.ckpt").rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"net\.ckpt: not a whole checkpoint .*; without --resume"):
        Checkpoints(output).read()


def test_where_the_last_is_damaged_the_one_before_is_taken_and_the_way_is_free_again(tmp_path, capsys):
    output = str(tmp_path / "net.safetensors")
    _write(Checkpoints(output), 2, 4)
    for path in (tmp_path / "net.ckpt" / "4").rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50])
    checkpoints = Checkpoints(output)
    assert checkpoints.read().facts["step"] == 2
    err = capsys.readouterr().err
    assert err.startswith(f"jnst: {tmp_path / 'net.ckpt' / '4'}: not a whole checkpoint (")
    assert err.count("\n") == 1
    _write(checkpoints, 4)
    found = Checkpoints(output).read()
    assert found.facts["step"] == 4
    assert np.array_equal(found.snapshot.leaves[0], 4 * LEAVES[0])
    assert capsys.readouterr().err == ""


def test_what_the_system_does_not_let_be_read_is_not_passed_over(tmp_path):
    output = str(tmp_path / "net.safetensors")
    _write(Checkpoints(output), 2, 4)
    file = tmp_path / "net.ckpt" / "4" / "state" / "_METADATA"
    file.rename(tmp_path / "aside")
    file.mkdir()
    with pytest.raises(InputError, match=r"net\.ckpt: cannot be read: .*Is a directory"):
        Checkpoints(output).read()
    file.rmdir()
    (tmp_path / "aside").rename(file)
    assert Checkpoints(output).read().facts["step"] == 4


_FULL = """
import resource, signal, sys
import numpy as np
from jnst.cli.training_checkpoints import Checkpoints
from jnst.errors import InputError
from jnst.types import Snapshot
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rng = np.random.default_rng(0)  # nothing that could be written smaller
leaves = [rng.integers(0, 2**32, 20000, dtype=np.uint32) for _ in range(40)]
checkpoints = Checkpoints(sys.argv[1])
checkpoints.write(Snapshot(leaves[:1], []), {"step": 1})
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
try:
    checkpoints.write(Snapshot(leaves, []), {"step": 2})
except InputError as error:
    print(error)
checkpoints.close()
print(Checkpoints(sys.argv[1]).read().facts["step"])
"""


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(tmp_path):
    """By a real limit, and many arrays: tensorstore's threads print a traceback of each."""
    output = str(tmp_path / "net.safetensors")
    done = subprocess.run([sys.executable, "-P", "-c", _FULL, output], capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{tmp_path / 'net.ckpt'}: cannot be written: File too large", "1"]


def test_what_cannot_be_written_is_one_line_and_the_next_may_be(tmp_path):
    output = str(tmp_path / "folder" / "net.safetensors")
    (tmp_path / "folder").write_bytes(b"a file where the folder should be")
    checkpoints = Checkpoints(output)
    with pytest.raises(InputError, match=r"net\.ckpt: cannot be written"):
        _write(checkpoints, 1)
    (tmp_path / "folder").unlink()
    _write(checkpoints, 2)
    assert Checkpoints(output).read().facts["step"] == 2


def test_where_the_first_cannot_be_written_another_trainings_stay(tmp_path, monkeypatch):
    output = str(tmp_path / "net.safetensors")
    _write(Checkpoints(output), 8)
    checkpoints = Checkpoints(output)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "_opened", full)
    with pytest.raises(InputError, match="No space left"):
        _write(checkpoints, 1)
    monkeypatch.undo()
    assert Checkpoints(output).read().facts["step"] == 8


def test_a_folder_of_other_things_is_not_ours(tmp_path):
    folder = tmp_path / "net.ckpt"
    assert not is_ours(folder)
    folder.mkdir()
    assert is_ours(folder)
    (folder / "diary.txt").write_text("mine")
    assert not is_ours(folder)
