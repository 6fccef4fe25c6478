from concurrent import futures

import numpy as np
import pytest

from jnst import images
from jnst.errors import InputError
from jnst.images import Ahead, Pairs, Picture, Unpaired, pairs


def _save(path, rgb):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.save(path, Picture(np.asarray(rgb, np.float32)))


def _shade(path, level, size=(12, 12)):
    _save(path, np.full((size[1], size[0], 3), level / 255))


def _pair(path, level, size=(12, 12)):
    """A of one level, B of the level one above."""
    a = np.full((size[1], size[0], 3), level / 255)
    _save(path, np.concatenate([a, a + 1 / 255], 1))


def _noise_pair(path, height=20, width=26, seed=0):
    """A, and in B the same with its colors in another order, so that B says where A was cut."""
    a = np.random.default_rng(seed).integers(0, 256, (height, width, 3)) / 255
    _save(path, np.concatenate([a, a[..., ::-1]], 1))


def _levels(pictures):
    assert all(picture.min() == picture.max() for picture in pictures)
    return [int(picture.flat[0]) for picture in pictures]


def _pairs(folder, **options):
    return Pairs(folder, **{"size": 8, "batch": 2, "seed": 0, **options})


def _unpaired(a, b, **options):
    return Unpaired(a, b, **{"size": 8, "batch": 2, "seed": 0, **options})


@pytest.mark.parametrize("beside", [("val", "test"), ("test",), ()])
def test_train_is_trained_on_and_val_or_test_held_out(tmp_path, beside):
    for number in range(3):
        _pair(tmp_path / "set" / "train" / "deep" / f"{number}.png", 10 * number)
    for number, name in enumerate(beside):
        _pair(tmp_path / "set" / name / "x.png", 100 + 10 * number)
    _pair(tmp_path / "set" / "other" / "y.png", 200)
    for folder in (tmp_path, tmp_path / "set" / "train") if beside else (tmp_path,):
        found = _pairs(folder)
        held_out = [(_levels([a])[0], _levels([b])[0]) for a, b in found.held_out(9)]
        assert held_out == ([(100, 101)] if beside else [(0, 1)])
        seen = [level for step in range(found.an_epoch) for level in _levels(found.batch(step)[0])]
        assert sorted(seen) == ([0, 10, 20] if beside else [10, 20])
        assert found.counts == {"train": len(seen), "held_out": 1}


def test_an_epoch_has_each_pair_once_in_new_orders_and_a_last_smaller_batch(tmp_path):
    for number in range(1, 7):
        _pair(tmp_path / f"{number}.png", 10 * number)
    found = _pairs(tmp_path)  # of six, the first is held out
    epochs = []
    for epoch in range(3):
        batches = [found.batch(step) for step in range(3 * epoch, 3 * epoch + 3)]
        assert [len(a) for a, _ in batches] == [2, 2, 1]
        epochs.append([level for a, _ in batches for level in _levels(a)])
        assert [level for _, b in batches for level in _levels(b)] == [level + 1 for level in epochs[-1]]
        assert sorted(epochs[-1]) == [20, 30, 40, 50, 60]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [_levels(_pairs(tmp_path).batch(4)[0])] == [epochs[1][2:4]]
    many = _pairs(tmp_path, batch=99)
    assert (many.an_epoch, len(many.batch(7)[0])) == (1, 5)


def test_a_pair_is_cut_and_mirrored_alike_at_random_places(tmp_path):
    _noise_pair(tmp_path / "a.png")
    found = _pairs(tmp_path, size=64, batch=1)
    firsts = []
    for step in range(24):
        a, b = found.batch(step)
        assert (a.shape, a.dtype) == ((1, 64, 64, 3), np.uint8)
        np.testing.assert_array_equal(b, a[..., ::-1])
        firsts.append(a.tobytes())
    assert len(set(firsts)) > 12


def _places(found, steps, whole):
    """Where in `whole` the crops of a batch lie, and which are mirrored."""
    windows = np.lib.stride_tricks.sliding_window_view(whole, (8, 8, 3))[:, :, 0]
    for step in range(steps):
        for crop in found.batch(step)[0]:
            for mirrored in (False, True):
                at = np.argwhere((windows == (crop[:, ::-1] if mirrored else crop)).all((2, 3, 4)))
                yield from ((*place, mirrored) for place in at.tolist())


def test_crops_are_everywhere_in_a_picture_of_the_load_size_and_half_are_mirrored(tmp_path):
    # 9 is round(8 * 286 / 256): nothing is resized.
    _noise_pair(tmp_path / "a.png", 9, 11)
    whole = np.round(images.load(tmp_path / "a.png").rgb[:, :11] * 255).astype(np.uint8)
    places = list(_places(_pairs(tmp_path, batch=1), 200, whole))
    assert len(places) == 200
    assert {place[:2] for place in places} == {(top, left) for top in range(2) for left in range(4)}
    assert 70 < sum(mirrored for *_, mirrored in places) < 130
    plain = list(_places(_pairs(tmp_path, batch=1, flips=False), 50, whole))
    assert plain == [(top, left, False) for top, left, _ in places[:50]]


@pytest.mark.parametrize(("size", "short"), [(256, 286), (64, 72), (28, 31), (8, 9), (1, 1)])
def test_the_load_size_is_286_to_256(size, short):
    assert pairs._Cut(size, 0, True, True).load == short


def test_without_jitter_it_is_the_middle_of_the_picture_at_its_size(tmp_path):
    _noise_pair(tmp_path / "a.png", 8, 13)
    whole = np.round(images.load(tmp_path / "a.png").rgb[:, :13] * 255).astype(np.uint8)
    found = _pairs(tmp_path, jitter=False, flips=False)
    for middle in (found.batch(3)[0][0], found.held_out(1)[0][0]):
        np.testing.assert_array_equal(middle, whole[:, 2:10])


def test_held_out_pictures_are_resized_in_their_shape(tmp_path):
    wide = np.zeros((16, 48, 3))
    wide[:, 16:32] = 1  # a square in the middle
    _save(tmp_path / "a.png", np.concatenate([wide, 1 - wide], 1))
    a, b = _pairs(tmp_path).held_out(1)[0]
    assert a.shape == b.shape == (8, 8, 3)
    assert a[:, 1:-1].min() >= 254  # but where the filter reaches over the edge
    assert a.mean() > 250 > 5 > b.mean()


@pytest.mark.parametrize("memory", [0, 300, 1500])
def test_what_does_not_fit_in_memory_is_read_again_to_the_same_bytes(tmp_path, memory):
    for number in range(4):
        _noise_pair(tmp_path / f"{number}.png", 12, 12 + number, seed=number)
    whole, part = _pairs(tmp_path), _pairs(tmp_path, memory=memory)
    assert part._train.bytes + part._held_out.bytes <= memory < whole._train.bytes
    assert bool(part._train.bytes) == (memory > 1000)
    for step in range(5):
        for one, other in zip(whole.batch(step), part.batch(step), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole.held_out(3), part.held_out(3))
    assert whole.sha256 == part.sha256


def test_two_folders_share_the_memory(tmp_path):
    _shade(tmp_path / "a.png", 1)
    for memory, kept in ((0, 0), (300, 243), (500, 435), (700, 678), (900, 870)):  # 9 x 9 and 8 x 8 pixels of each
        found = _unpaired(tmp_path, tmp_path, memory=memory)
        assert sum(store.bytes for store in (*found._train, *found._held_out)) == kept


def test_threads_make_the_same_batches(tmp_path):
    for number in range(5):
        _pair(tmp_path / "a" / f"{number}.png", 20 * number)
        _shade(tmp_path / "b" / f"{number}.png", 20 * number)
    for make in (lambda: _pairs(tmp_path / "a"), lambda: _unpaired(tmp_path / "a", tmp_path / "b")):
        one, other = make(), make()
        expected = [one.batch(step) for step in range(40)]
        with futures.ThreadPoolExecutor(4) as pool:
            found = list(pool.map(other.batch, reversed(range(40))))[::-1]
        for left, right in zip(expected, found, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(left, right, strict=True))
        with Ahead(other.batch, stop=3) as source:
            assert np.array_equal(source(2)[1], expected[2][1])


def test_the_broken_are_named_once_and_left_out(tmp_path):
    for number in range(4):
        _pair(tmp_path / "train" / f"{number}.png", 10 * number)
    _shade(tmp_path / "train" / "odd.png", 50, (13, 12))
    (tmp_path / "train" / "cut.png").write_bytes((tmp_path / "train" / "0.png").read_bytes()[:60])
    _pair(tmp_path / "val" / "a.png", 90)
    (tmp_path / "val" / "none.jpg").write_bytes(b"no picture")
    told = []
    found = _pairs(tmp_path, warn=told.append, memory=500)
    found.batch(0), found.batch(1), found.held_out(5)
    assert found.counts == {"train": 4, "held_out": 1}
    assert len(told) == 3
    assert told[0].startswith(f"skipped: {tmp_path}/train/cut.png: damaged or truncated")
    assert told[1].startswith(f"skipped: {tmp_path}/train/odd.png: 13 pixels wide; expected A and B side by side")
    assert told[2] == f"skipped: {tmp_path}/val/none.jpg: not a picture that can be read"


def test_a_picture_too_narrow_to_be_enlarged_is_left_out(tmp_path):
    _shade(tmp_path / "long.png", 10, (60000, 1))
    for name in "ab":
        _pair(tmp_path / f"{name}.png", 10)
    told = []
    assert _pairs(tmp_path, size=256, warn=told.append).counts["train"] == 1
    assert "long.png: 30000x1 pixels are too narrow" in told[0]


def test_no_usable_picture_names_the_flag_and_the_folder(tmp_path):
    with pytest.raises(InputError, match="--data=.*none: no such folder"):
        _pairs(tmp_path / "none")
    _shade(tmp_path / "a" / "a.png", 1)
    with pytest.raises(InputError, match="--b=: no such folder"):
        _unpaired(tmp_path / "a", "")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match="--data=.*empty.*: no picture in this folder"):
        _pairs(tmp_path / "empty")
    (tmp_path / "empty" / "train" / "x.png").write_bytes(b"none")
    told = []
    with pytest.raises(InputError, match="--pictures=.*empty: none of its pictures can be used"):
        _pairs(tmp_path / "empty", flag="pictures", warn=told.append)
    assert len(told) == 1
    _pair(tmp_path / "half" / "train" / "x.png", 1)
    (tmp_path / "half" / "val").mkdir()
    (tmp_path / "half" / "val" / "x.png").write_bytes(b"none")
    with pytest.raises(InputError, match="--data=.*half: none of the pictures that are held out can be used"):
        _pairs(tmp_path / "half", warn=told.append)


def test_the_digest_is_of_all_that_decides_the_batches(tmp_path):
    for number in range(3):
        _noise_pair(tmp_path / "one" / f"{number}.png", seed=number)
        _noise_pair(tmp_path / "moved" / "deep" / f"{number}.png", seed=number)
    same = _pairs(tmp_path / "one").sha256
    assert len(same) == 64
    assert _pairs(tmp_path / "moved").sha256 == same
    changes = [{"seed": 1}, {"size": 9}, {"batch": 1}, {"jitter": False}, {"flips": False}]
    assert len({same, *(_pairs(tmp_path / "one", **change).sha256 for change in changes)}) == 6
    _noise_pair(tmp_path / "moved" / "deep" / "2.png", seed=7)
    assert _pairs(tmp_path / "moved").sha256 != same


def test_two_folders_go_round_each_in_its_own_order(tmp_path):
    for number in range(8):
        _shade(tmp_path / "a" / f"{number}.png", 10 * number)
        _shade(tmp_path / "b" / f"{number}.png", 100 + 10 * number)
    for number in range(5, 8):
        (tmp_path / "a" / f"{number}.png").unlink()
    found = _unpaired(tmp_path / "a", tmp_path / "b")
    assert found.counts == {"train_a": 4, "train_b": 7, "held_out_a": 1, "held_out_b": 1}
    assert found.an_epoch == 4
    a, b = ([_levels(batch) for batch in side] for side in zip(*map(found.batch, range(16)), strict=True))
    for epoch in range(4):
        assert [len(batch) for batch in b[4 * epoch : 4 * epoch + 4]] == [2, 2, 2, 1]
        assert [len(batch) for batch in a[4 * epoch : 4 * epoch + 4]] == [2, 2, 2, 1]
    a, b = sum(a, []), sum(b, [])
    assert all(sorted(a[at : at + 4]) == [10, 20, 30, 40] for at in range(0, 28, 4))
    assert all(sorted(b[at : at + 7]) == list(range(110, 180, 10)) for at in range(0, 28, 7))
    assert len({tuple(a[at : at + 4]) for at in range(0, 28, 4)}) > 2
    assert len({tuple(b[at : at + 7]) for at in range(0, 28, 7)}) == 4
    other = _unpaired(tmp_path / "a", tmp_path / "b", seed=1)
    assert [_levels(other.batch(step)[0]) for step in range(4)] != [a[0:2], a[2:4], a[4:6], a[6:7]]


def test_folders_that_are_alike_are_not_shuffled_alike(tmp_path):
    for number in range(21):
        _shade(tmp_path / "a" / f"{number}.png", number)
    a, b = map(_levels, _unpaired(tmp_path / "a", tmp_path / "a", batch=20).batch(0))
    assert sum(one == other for one, other in zip(a, b, strict=True)) < 6  # of 20, one by chance


def test_folders_that_are_alike_are_not_cut_or_mirrored_alike(tmp_path):
    _noise_pair(tmp_path / "a" / "a.png", 8, 8)
    a, b = zip(
        *map(_unpaired(tmp_path / "a", tmp_path / "a", size=8, batch=1, jitter=False).batch, range(40)), strict=True
    )
    assert (
        8 < sum(np.array_equal(one, other) for one, other in zip(a, b, strict=True)) < 32
    )  # both mirrored, or neither
    source = _unpaired(tmp_path / "a", tmp_path / "a", size=32, batch=1, flips=False)
    a, b = zip(*map(source.batch, range(20)), strict=True)
    assert sum(np.array_equal(one, other) for one, other in zip(a, b, strict=True)) < 6


@pytest.mark.parametrize("layout", ["beside", "inside", "neither"])
def test_what_is_held_out_of_two_folders(tmp_path, layout):
    names = {"beside": ("train{}", "test{}"), "inside": ("{}/train", "{}/val"), "neither": ("{}", None)}[layout]
    for side, level in (("A", 0), ("B", 100)):
        for number in range(1, 4):
            _shade(tmp_path / names[0].format(side) / f"{number}.png", level + number)
        if names[1]:
            _shade(tmp_path / names[1].format(side) / "x.png", level + 50)
    folders = [tmp_path / (f"train{side}" if layout == "beside" else side) for side in "AB"]
    a, b = _unpaired(*folders).held_out(4)
    assert (_levels(a), _levels(b)) == (([1], [101]) if layout == "neither" else ([50], [150]))


def test_the_working_folder_may_be_the_one(tmp_path, monkeypatch):
    for name, level in (("trainA", 1), ("testA", 2)):
        _shade(tmp_path / name / "x.png", level)
    monkeypatch.chdir(tmp_path / "trainA")
    a, b = _unpaired(".", tmp_path / "trainA").held_out(4)
    assert _levels(a) == _levels(b) == [2]


def test_the_real_pairs(shared, tmp_path):
    import tarfile

    archive = shared / "data" / "facades.tar.gz"
    if not archive.is_file():
        pytest.skip("no facades here")
    with tarfile.open(archive) as file:
        for member in file:
            if member.isfile() and "/test/" in member.name:
                (tmp_path / member.name.replace("/", "_")).write_bytes(file.extractfile(member).read())
            if sum(1 for _ in tmp_path.iterdir()) == 3:
                break
    a, b = Pairs(tmp_path, size=64, batch=2, seed=0).batch(0)
    assert a.shape == b.shape == (2, 64, 64, 3)
    # The labels, on the right, are full colors: much blue, little red.
    assert b[..., 2].mean() > 120 > b[..., 0].mean()
