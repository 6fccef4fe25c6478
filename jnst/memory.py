"""How much memory there is, and what is said where it is not enough."""

import os
import re
from pathlib import Path

import jax

__all__ = ["available", "is_out_of_memory"]

_SHARE = 0.8  # of a host's memory: files, pictures and other programs need some, too


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there is too little memory, here or on a device."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    return isinstance(error, jax.errors.JaxRuntimeError) and bool(
        re.search("out of memory|RESOURCE_EXHAUSTED", text, re.I)
    )


def available(devices: list[jax.Device]) -> int | None:
    """Bytes that a program may use on each of the devices, or None where nobody knows.

    Of a CPU it is a share of what the host can still give: Linux kills a process that takes more.
    """
    stats = [device.memory_stats() or {} for device in devices]
    if all("bytes_limit" in each for each in stats):
        return min(int(each["bytes_limit"]) - int(each.get("bytes_in_use", 0)) for each in stats)
    if devices[0].platform != "cpu":
        return None
    limits = [limit for limit in (_free(), _cgroup()) if limit is not None]
    return int(_SHARE * min(limits) / len(devices)) if limits else None


def _free():
    """What the kernel could give without swapping (Linux); elsewhere half of all memory."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
        if found:
            return int(found[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return None


def _cgroup(root=Path("/sys/fs/cgroup"), own=Path("/proc/self/cgroup")):
    """What the control groups of this process leave it, those around its own too; None where they set no limit."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return None
    left = []
    for _, controllers, path in lines:
        if not controllers:  # version 2
            base, limit, usage, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            left.append(_room(folder, limit, usage, cache))
            if folder == base:
                break
    return min((room for room in left if room is not None), default=None)


def _room(folder, limit, usage, cache):
    """A group's limit minus what it uses; files that it could drop do not count."""
    try:
        most = int((folder / limit).read_text())  # "max" is no number
        used = int((folder / usage).read_text())
        found = re.search(rf"^{cache} (\d+)", (folder / "memory.stat").read_text(), re.M)
    except (OSError, ValueError):
        return None
    return max(0, most - used + (int(found[1]) if found else 0))
