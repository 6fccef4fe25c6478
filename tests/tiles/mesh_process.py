"""One process of a mesh, for tests: evaluates problems in tiles, and writes down what it holds of the results.

Its argument is JSON; see `main`.
"""

import json
import pickle
import sys
from pathlib import Path

import jax
import numpy as np

from jnst import tiles
from tiles import problem as problems

WORDS = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "collective-broadcast", "reduce-scatter")
PROGRAMS = ("target", "first", "middle", "second", "last")


def main(folder, cases, devices, cluster=None):
    """Each of `cases` is a file in `folder`; with so many devices in this process, which is one of a `cluster`
    (address, count and number) or alone."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", devices)
    if cluster:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(*cluster, cluster_detection_method="deactivate", initialization_timeout=60)
    mesh = tiles.make_mesh(jax.devices())
    assert mesh.size == devices * (cluster[1] if cluster else 1)
    found = {case: _one(Path(folder) / case, mesh) for case in cases}
    (Path(folder) / f"found-{jax.process_index()}").write_bytes(pickle.dumps(found))


def _one(path, mesh):
    """Terms, (place in the mesh, part of the image, numbers) of each part of the gradient that is here, and the words
    for an exchange that each program has."""
    problem, tile, styles = pickle.loads(path.read_bytes())
    programs = problems.passes(problem, tile, mesh=mesh)
    solution = problems.in_tiles(programs, problem, styles)
    places = list(mesh.devices)
    parts = [
        (places.index(each.device), each.index, np.asarray(each.data)) for each in solution.gradient.addressable_shards
    ]
    texts = {name: getattr(programs, name).as_text() for name in PROGRAMS}
    words = {name: {word for word in WORDS if word in text} for name, text in texts.items()}
    return jax.tree.map(np.asarray, solution.terms), parts, words


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
