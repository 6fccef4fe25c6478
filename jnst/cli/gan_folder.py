"""Which network of a folder that a training of generative networks left."""

import os
from pathlib import Path

from jnst.cli import gan_results, report
from jnst.errors import InputError

__all__ = ["network_of"]


def network_of(source: str, net: str, name: str, command: str) -> Path:
    """A network's file.

    Args:
        source: The folder, or already a network's file.
        net: `--net`: of several networks which, by name or by number from 1; empty: the first.
        name: Of the file, in the network's folder.
        command: That trains such networks, for messages.

    Raises:
        InputError: there is none.
    """
    path = Path(source)
    if not path.is_dir():
        if net:
            raise InputError(f"--net={net}: {source} is no folder of several networks")
        return path
    record = report.read_record(gan_results.base_of(source))
    names = [one for one in record.get("networks", []) if _is_plain(one)] if record else _folders(path, name)
    several = len(names) > 1 or (not record and names)
    if several:
        chosen = _chosen(net, names)
        file = path / chosen / name
    elif net:
        raise InputError(f"--net={net}: {source} holds one network")
    else:
        chosen, file = (names or [""])[0], path / name
    if record and chosen not in record.get("saved", []):
        raise InputError(f"{source}: the training of {chosen} diverged and left no generator")
    if not file.is_file():
        raise InputError(f"{source}: no {name} in this folder; expected one that {command} train left")
    return file


def _chosen(net, names):
    if not net:
        return names[0]
    if net in names:
        return net
    if net.isdecimal() and 1 <= int(net) <= len(names):
        return names[int(net) - 1]
    raise InputError(f"--net={net}: expected a number from 1 to {len(names)}, or one of {', '.join(names[:20])}")


def _is_plain(name):
    """Whether a name out of a file stays within the folder."""
    return isinstance(name, str) and name == os.path.basename(name) and name not in ("", ".", "..")


def _folders(path, name):
    """Of several networks whose training has not come to its end, those that are there."""
    return sorted(entry.name for entry in path.iterdir() if (entry / name).is_file())
