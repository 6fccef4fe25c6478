import types

import jax
import pytest

from jnst import memory

GIB = 2**30


def _group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_version_2_counts_every_group_around_and_what_files_hold(tmp_path):
    own = tmp_path / "self"
    own.write_text("0::/a/b\n")
    root = tmp_path / "root"
    assert memory._cgroup(root, own) is None  # no such group: no limit is known
    _group(root / "a", memory__max=8 * GIB, memory__current=3 * GIB, memory__stat=f"anon 5\ninactive_file {GIB}")
    _group(root / "a/b", memory__max="max", memory__current=GIB, memory__stat="inactive_file 0")
    assert memory._cgroup(root, own) == 6 * GIB
    _group(root / "a/b", memory__max=2 * GIB)
    assert memory._cgroup(root, own) == GIB
    _group(root / "a/b", memory__max=GIB // 2)  # a limit that was lowered under what is used
    assert memory._cgroup(root, own) == 0


def test_version_1_has_a_hierarchy_of_its_own(tmp_path):
    own = tmp_path / "self"
    own.write_text("9:name=systemd:/\n4:cpu,memory:/job\n0::/\n")
    _group(
        tmp_path / "memory" / "job",
        memory__limit_in_bytes=4 * GIB,
        memory__usage_in_bytes=GIB,
        memory__stat=f"total_inactive_file {GIB // 2}",
    )
    assert memory._cgroup(tmp_path, own) == 3.5 * GIB


def test_a_host_gives_a_share_of_the_smaller_limit_to_each_fake_device(monkeypatch):
    monkeypatch.setattr(memory, "_free", lambda: 10 * GIB)
    monkeypatch.setattr(memory, "_cgroup", lambda: 4 * GIB)
    cpu = jax.local_devices(backend="cpu")[0]
    assert memory.available([cpu]) == int(0.8 * 4 * GIB)
    assert memory.available([cpu] * 8) == int(0.8 * 4 * GIB / 8)
    monkeypatch.setattr(memory, "_cgroup", lambda: None)
    assert memory.available([cpu]) == 8 * GIB


def test_a_device_that_says_what_it_has_is_believed():
    stats = {"bytes_limit": 16 * GIB, "bytes_in_use": GIB}
    device = types.SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    assert memory.available([device]) == 15 * GIB
    assert memory.available([types.SimpleNamespace(platform="tpu", memory_stats=lambda: None)]) is None


def test_here_and_now_there_is_some():
    assert memory.available(jax.local_devices(backend="cpu")) > 2**24


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes."), True),
        (jax.errors.JaxRuntimeError("INTERNAL: Failed to allocate; out of memory"), True),
        (jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_what_is_out_of_memory(error, expected):
    assert memory.is_out_of_memory(error) is expected
