"""`explore neighbors`, `verify`, `identify` and `tsne`: pictures by what a network makes of them."""

import math
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jnst import calibration, embedding_index, images
from jnst.cli.lines import say, warn
from jnst.cli.looks import Look, picture_path
from jnst.config import parse_threshold
from jnst.embedding_index import Entry
from jnst.errors import InputError
from jnst.images import plots

__all__ = ["identify", "neighbors", "tsne", "verify"]

_TILE = 128
_MOST_CALIBRATED = 4000  # pictures, of which all pairs are looked at
_DIMENSIONS = 50  # that t-SNE is given


def neighbors(look: Look) -> int:
    """The nearest pictures of a folder, by features and by pixels. Returns the exit code."""
    query, folder = look.pictures
    _check_folder(folder)
    own = look.describe(query)
    look.check_output()
    place = os.path.realpath(picture_path(query))
    entries = {
        name: entry
        for name, entry in look.index(folder).items()
        # The query is no neighbor of itself, under whatever name it lies there.
        if entry.sha256 != own.sha256 and os.path.realpath(os.path.join(folder, name)) != place
    }
    if not entries:
        raise InputError(f"--pictures={folder}: holds nothing but {query}; expected other pictures")
    # The order in one folder: there what its pictures have in common can be taken off. (A threshold has to hold for
    # pictures of any folder, so that verify and identify take the features as they are.)
    change = calibration.decorrelation(np.stack([entry.features for entry in entries.values()]))
    ways = {"features": _by_features(own, entries, change), "pixels": _by_pixels(own, entries)}
    sections, results = [], {}
    for way, distances in ways.items():
        nearest = sorted(distances, key=lambda name: (distances[name], name))[: look.config.count]
        results[way] = [{"path": name, "distance": round(distances[name], 6)} for name in nearest]
        heading = f"nearest by {way}" + (f" ({_space(look)}, decorrelated)" if way == "features" else "")
        say(f"{heading}:")
        for name in nearest:
            say(f"  {distances[name]:.4f}  {os.path.join(folder, name)}")
        paths = {f"{distances[name]:.3f} {Path(name).name}": Path(folder, name) for name in nearest}
        if look.config.output:
            sections.append((heading, [_tile(Path(query).name, query), *(_tile(*item) for item in paths.items())]))
    if sections:
        look.leave(plots.captioned_sheet(sections, side=_TILE, columns=look.config.count + 1), results)
    return 0


def _by_features(own, entries: Mapping[str, Entry], change=np.float64) -> dict[str, float]:
    """Between directions: 0 to 2, the root of twice the cosine distance, which orders alike and is easier to read."""
    table = change(np.stack([entry.features for entry in entries.values()]))
    distances = np.linalg.norm(table - change(own.features), axis=1)
    return dict(zip(entries, distances.tolist(), strict=True))


def _by_pixels(own, entries):
    """Root mean squared differences of thumbnails in [0, 1]."""
    table = np.stack([entry.pixels for entry in entries.values()]).astype(np.float64)
    distances = np.sqrt(((table - own.pixels) ** 2).mean((1, 2, 3))) / 255
    return dict(zip(entries, distances.tolist(), strict=True))


def _space(look):
    return f"{'+'.join(look.layers())} of {Path(look.backbone.name).name}"


def _tile(caption, path):
    return caption, embedding_index.square(images.load(path), _TILE)


def verify(look: Look) -> int:
    """Whether two pictures are of the same thing. Returns the exit code."""
    if len(look.pictures) not in (0, 2) or not (look.pictures or look.config.calibrate):
        raise InputError(f"verify: expected two pictures, found {len(look.pictures)}")
    found = [look.describe(name) for name in look.pictures]
    look.check_output()
    threshold, curve, results = _threshold(look)
    sections = []
    if found:
        distance = _by_features(found[0], {"": found[1]})[""]
        line = f"distance {distance:.4f} ({_space(look)})"
        results |= {"distance": round(distance, 6)}
        if threshold is not None:
            same = distance <= threshold
            results["same"] = bool(same)
            line = f"{'the same' if same else 'different'}: {line}, threshold {threshold:.4f}"
        else:
            line += "; no --threshold or --calibrate, so neither the same nor different"
        say(line)
        sections = [(line, [_tile(Path(name).name, name) for name in look.pictures])] if look.config.output else []
    _leave(look, sections, curve, results)
    return 0


def _leave(look, sections, curve, results):
    if look.config.output:
        drawn = [plots.captioned_sheet(sections, side=_TILE, columns=6)] if sections else []
        look.leave(plots.stacked([*drawn, *([] if curve is None else [curve])]), results)


def _threshold(look):
    """The threshold or None, a picture of the curve or None, and what to record."""
    threshold = parse_threshold(look.config)
    if not look.config.calibrate:
        return threshold, None, {} if threshold is None else {"threshold": threshold}
    flag = f"--calibrate={look.config.calibrate}"
    _check_folder(look.config.calibrate, "calibrate")
    entries = look.index(look.config.calibrate, "calibrate")
    labelled = {name: entry for name, entry in entries.items() if "/" in name}
    if len(labelled) < len(entries):
        warn(f"{flag}: {len(entries) - len(labelled)} pictures beside the subfolders are not looked at")
    names = list(labelled)[:: -(-len(labelled) // _MOST_CALIBRATED) or 1]
    if len(names) < len(labelled):
        say(f"{flag}: {len(names)} of {len(labelled)} pictures are looked at, evenly")
    labels = [_identity(name) for name in names]
    if len(set(labels)) < 2:
        raise InputError(f"{flag}: {len(set(labels))} subfolders with pictures; expected two or more, one an identity")
    features = np.stack([labelled[name].features for name in names])
    same, different = calibration.pair_distances(features, labels)
    if not len(same):
        raise InputError(f"{flag}: no subfolder with two pictures that can be read; expected at least one")
    curve = calibration.roc(same, different)
    threshold, rate = calibration.equal_error(curve)
    say(
        f"calibrated on {len(names)} pictures of {len(set(labels))} identities ({len(same)} pairs of the same, "
        f"{len(different)} of different ones): equal error rate {rate:.1%} at threshold {threshold:.4f}"
    )
    results = {
        "threshold": round(max(0.0, threshold), 6),
        "equal_error_rate": round(rate, 6),
        "pairs": {"same": len(same), "different": len(different)},
        "roc": _thinned(curve),
    }
    drawn = plots.roc_plot(curve.false_accepts, curve.false_rejects, rate) if look.config.output else None
    return threshold, drawn, results


def _thinned(curve, most=200):
    """The curve at evenly spread thresholds: of many pairs there are millions."""
    chosen = np.unique(np.linspace(0, len(curve.thresholds) - 1, most).astype(int))
    return {
        name: [round(float(value), 6) for value in getattr(curve, name)[chosen]]
        for name in ("thresholds", "false_accepts", "false_rejects")
    }


def _identity(name):
    """The subfolder that a picture lies in; its own name where it lies in none."""
    return name.split("/")[0]


def identify(look: Look) -> int:
    """Which of a folder's identities a picture is nearest to, or unknown. Returns the exit code."""
    query, folder = look.pictures
    _check_folder(folder)
    own = look.describe(query)
    look.check_output()
    threshold, curve, results = _threshold(look)
    nearest: dict[str, tuple[float, str]] = {}
    for name, distance in _by_features(own, look.index(folder)).items():
        identity = _identity(name)
        nearest[identity] = min(nearest.get(identity, (math.inf, "")), (distance, name))
    ranked = sorted(nearest, key=lambda identity: nearest[identity])
    best = nearest[ranked[0]][0]
    known = threshold is None or best <= threshold
    answer = ranked[0] if known else "unknown"
    end = f"threshold {threshold:.4f}" if threshold is not None else "no --threshold or --calibrate, so never unknown"
    line = f"{answer}: the nearest of {len(ranked)}" if known else f"unknown: {ranked[0]} is the nearest"
    say(f"{line} at distance {best:.4f} ({_space(look)}); {end}")
    shown = ranked[: look.config.count]
    for identity in shown:
        say(f"  {nearest[identity][0]:.4f}  {identity}  ({os.path.join(folder, nearest[identity][1])})")
    results |= {
        "identity": answer if known else None,
        "nearest": [{"identity": one, "distance": round(nearest[one][0], 6), "path": nearest[one][1]} for one in shown],
    }
    sections = []
    if look.config.output:
        tiles = [_tile(f"{nearest[one][0]:.3f} {one}", Path(folder, nearest[one][1])) for one in shown]
        sections = [(f"{line}; {end}", [_tile(Path(query).name, query), *tiles])]
    _leave(look, sections, curve, results)
    return 0


def tsne(look: Look) -> int:
    """A map of a folder by t-SNE (van der Maaten & Hinton 2008). Returns the exit code."""
    try:
        import sklearn.manifold  # noqa: F401 - an extra, and slow to load
    except ImportError as error:
        raise InputError(
            f"tsne: needs scikit-learn, of the extra jnst[explore]: {sys.executable} -m pip install scikit-learn"
        ) from error
    (folder,) = look.pictures
    _check_folder(folder)
    look.check_output()
    entries = look.index(folder)
    if len(entries) < 3:
        raise InputError(f"--pictures={folder}: {len(entries)} pictures that can be read; expected three or more")
    perplexity = min(look.config.perplexity, max(1.0, (len(entries) - 1) / 3))
    if perplexity < look.config.perplexity:
        say(f"perplexity {perplexity:.3g}, as {len(entries)} pictures are too few for {look.config.perplexity:g}")
    features = np.stack([entry.features for entry in entries.values()])
    places = _places(calibration.decorrelation(features)(features), perplexity, look.config.seed)
    labels = [_identity(name) if "/" in name else "" for name in entries]
    thumbnails = _thumbnails(folder, entries, max(64, look.config.side // 12))
    sheet = plots.thumbnail_map(places, thumbnails, labels, side=look.config.side)
    points = [
        {"path": name, "place": [float(f"{value:.6g}") for value in place]}
        for name, place in zip(entries, places, strict=True)
    ]
    look.leave(sheet, {"perplexity": perplexity, "points": points})
    return 0


def _places(features, perplexity, seed):
    """`[n, d]` -> `[n, 2]`."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads would add up in any order, and a map grows out of the last bits
        start = np.random.default_rng(seed).standard_normal((len(features), 2))
        found = features
        if np.ptp(features, axis=0).max() > 1e-9:  # of pictures that are all alike there are no axes
            most = min(_DIMENSIONS, *features.shape)
            found = PCA(most, svd_solver="full").fit_transform(features)
            start = np.zeros_like(start)
            start[:, : min(2, most)] = found[:, :2]
        start *= 1e-4 / start[:, 0].std()
        make = TSNE(perplexity=perplexity, init=start.astype(np.float32), random_state=seed)
        return np.asarray(make.fit_transform(found.astype(np.float32)), np.float64)


def _thumbnails(folder, entries, side):
    def one(name):
        try:
            return embedding_index.square(images.load(Path(folder, name)), side)
        except InputError:  # gone since it was looked at
            return entries[name].pixels.astype(np.float32) / 255

    with ThreadPoolExecutor(2) as readers:
        return list(readers.map(one, entries))


def _check_folder(folder, flag="pictures"):
    if not os.path.isdir(folder):
        raise InputError(f"--{flag}={folder}: no such folder")
