"""One process of a cluster, for tests: joins, opens a watch, works, waits. Its argument is JSON; see `main`."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from jnst.cli import cluster, command
from jnst.cli.lines import say
from jnst.errors import InputError


def _sleep(stopped):
    stopped.wait(60)


def _hold(stopped):
    """Does not hear that it should stop."""
    time.sleep(60)


def _compute(stopped):
    import jax
    import jax.numpy as jnp

    os.nice(19)  # as long as nothing else wants the core
    endless = jax.jit(lambda x: jax.lax.fori_loop(0, 2 * 10**9, lambda i, x: jnp.sin(x) + i, x))
    endless(jnp.float32(1)).block_until_ready()


def _compile(stopped):
    import jax
    import jax.numpy as jnp

    def many(x):
        return [jax.lax.fori_loop(0, n, lambda i, y: jnp.sin(y) + i, x) for n in range(1000)]

    lowered = jax.jit(many).lower(jnp.ones((8, 8)))
    say("compiling")
    os.nice(19)
    lowered.compile()


def _fail(stopped):
    raise InputError("--axis=nonsense: expected something else")


def _nothing(stopped):
    pass


WORK = {"sleep": _sleep, "hold": _hold, "compute": _compute, "compile": _compile, "fail": _fail, "nothing": _nothing}


def main(folder, mask, work, flags=None, index=0, count=1, constants=None):
    """Joins by `flags` (`[]`: by the environment), or is `index` of `count` where there are none."""
    for name, value in (constants or {}).items():
        setattr(cluster, name, value)
    found = cluster.Cluster(index, count) if flags is None else cluster.join(*flags)
    say(f"joined {found.index} of {found.count}")
    if not folder:
        return command.DONE
    stopped = threading.Event()
    with cluster.Watch(found, Path(folder), f"bin/grid --process_id={found.index}", stopped.set) as watch:
        say("opened")
        agreed = watch.agree(np.array(mask, bool))
        say(f"agreed {agreed.astype(int).tolist()}")
        WORK[work](stopped)
        if watch.lost:
            return cluster.LOST
        watch.wait()
    return command.DONE


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    sys.exit(command.guard(lambda: main(**options), lambda: "stopped"))
