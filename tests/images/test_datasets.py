import io
import pickle
import struct

import numpy as np
import pytest

from jnst import images
from jnst.errors import InputError
from jnst.images import Picture, datasets

PLANES = 3 * 32 * 32


def _numbers(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, PLANES), np.uint8), rng.integers(0, 10, count)


def _upright(planes):
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _python_2(data, labels, *, kind=b"u1", columns=b"\x89", rows=None):
    """A batch as Python 2's cPickle wrote the official ones, opcode by opcode."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def number(value):
        return b"M" + struct.pack("<H", value)

    shape = number(len(data) if rows is None else rows) + number(PLANES) + b"\x86"
    values = data.tobytes()
    dtype = b"cnumpy\ndtype\nq\x0a" + text(kind) + b"K\x00K\x01\x87Rq\x0b"
    dtype += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85" + text(b"b") + b"\x87Rq\x09"
    array += b"(K\x01" + shape + dtype + columns + b"T" + struct.pack("<i", len(values)) + values + b"tb"
    listed = b"]q\x05(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (
        b"\x80\x02}q\x01("
        + text(b"batch_label")
        + text(b"training batch 1 of 5")
        + text(b"labels")
        + listed
        + text(b"data")
        + array
        + text(b"filenames")
        + b"]q\x0c("
        + text(b"a.png")
        + b"eu."
    )


def _python_3(data, labels):
    return pickle.dumps({b"data": data, b"labels": labels.tolist()}, 2)


def _records(data, labels):
    return np.concatenate([labels[:, None].astype(np.uint8), data], 1).tobytes()


@pytest.mark.parametrize(
    ("write", "ending", "kind"), [(_python_2, "", "pickles"), (_python_3, "", "pickles"), (_records, ".bin", "records")]
)
def test_cifar_is_read_with_its_test_batch_held_out(tmp_path, write, ending, kind):
    folder = tmp_path / "somewhere" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "readme.html").write_text("about")
    batches = [_numbers(3, seed) for seed in range(3)]
    for name, batch in zip(("data_batch_1", "data_batch_2", "test_batch"), batches, strict=True):
        (folder / (name + ending)).write_bytes(write(*batch))
    found = images.read_dataset(tmp_path / "somewhere", 32)
    np.testing.assert_array_equal(found.train, _upright(np.concatenate([batches[0][0], batches[1][0]])))
    np.testing.assert_array_equal(found.labels, np.concatenate([batches[0][1], batches[1][1]]))
    np.testing.assert_array_equal(found.held_out, _upright(batches[2][0]))
    assert (found.kind, found.train.dtype) == (kind, np.uint8)
    assert [path.name for path in found.files] == [
        name + ending for name in ("data_batch_1", "data_batch_2", "test_batch")
    ]


def test_without_a_test_batch_every_twentieth_is_held_out(tmp_path):
    data, labels = _numbers(41)
    (tmp_path / "data_batch_1.bin").write_bytes(_records(data, labels))
    found = images.read_dataset(tmp_path, 32)
    np.testing.assert_array_equal(found.held_out, _upright(data[::20]))
    assert len(found.train) == len(found.labels) == 38


@pytest.mark.parametrize("size", [28, 64])
def test_cifar_comes_in_other_sizes(tmp_path, size):
    data = np.repeat(np.array([10, 120, 240], np.uint8), 1024)[None]
    (tmp_path / "data_batch_1.bin").write_bytes(_records(np.repeat(data, 2, 0), np.zeros(2, int)))
    found = images.read_dataset(tmp_path, size)
    assert found.train.shape == (1, size, size, 3)
    assert np.abs(found.train.astype(int) - [10, 120, 240]).max() <= 1


class _Evil:
    def __reduce__(self):
        return (print, ("run!",))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (pickle.dumps({"data": _Evil()}, 2), r"names '.*print', which no batch of CIFAR-10 needs: refused"),
        (
            pickle.dumps({"data": np.zeros((2, PLANES), np.float32), "labels": [1, 2]}, 2),
            "of type 'f4'; expected bytes",
        ),
        (pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [1, 2]}, 2), "pictures of 3072 bytes"),
        (pickle.dumps({"data": np.zeros((2, PLANES), np.uint8), "labels": [1]}, 2), "as many labels"),
        (pickle.dumps({"labels": [1]}, 2), "a dict with data and labels"),
        (pickle.dumps([1], 2), "a dict with data and labels"),
        (pickle.dumps({"data": np.asfortranarray(np.zeros((2, PLANES), np.uint8)), "labels": [1, 2]}, 2), "damaged"),
        (_python_2(*_numbers(2), rows=3), "damaged"),
        (_python_2(*_numbers(2))[:-100], "damaged|no end"),
        (b"", "damaged|no end"),
    ],
)
def test_a_batch_that_is_none_is_refused_in_one_line_and_nothing_runs(tmp_path, capsys, content, match):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(InputError, match=match) as error:
        images.read_dataset(tmp_path, 32)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("size", [0, 100, PLANES + 2])
def test_records_that_are_cut_off_are_refused(tmp_path, size):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(size))
    with pytest.raises(InputError, match=f"data_batch_1.bin: {size} bytes; expected records of 3073"):
        images.read_dataset(tmp_path, 32)


def _save(path, shade, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.save(path, Picture(np.full((size[1], size[0], 3), shade, np.float32)))


def test_a_folder_of_pictures_is_read_square_and_the_broken_are_named(tmp_path):
    for number in range(22):
        _save(tmp_path / f"class{number % 2}" / f"{number:02}.png", number / 25)
    wide = np.zeros((8, 16, 3), np.float32)
    wide[:, 4:12] = 1
    images.save(tmp_path / "class0" / "wide.png", Picture(wide))
    (tmp_path / "class1" / "broken.png").write_bytes(b"no picture")
    told = []
    found = images.read_dataset(tmp_path, 8, warn=told.append)
    # In the order of names: 0, 2, ..., 20, wide; 1, 3, ..., 21, broken. Of 24, the first and the twenty-first.
    assert [round(float(picture.mean()) / 255 * 25) for picture in found.held_out] == [0, 17]
    assert len(found.train) == 21
    np.testing.assert_array_equal(found.train[10], 255)  # the middle of the wide one
    assert told == [f"skipped: {tmp_path}/class1/broken.png: not a picture that can be read"]
    assert found.labels is None


@pytest.mark.parametrize("beside", ["test", "val", None])
def test_a_folder_with_train_in_it_is_trained_on_that(tmp_path, beside):
    for number in range(3):
        _save(tmp_path / "train" / f"{number}.png", 0.2)
    if beside:
        _save(tmp_path / beside / "a.png", 0.8)
    found = images.read_dataset(tmp_path, 4)
    assert len(found.train) == (3 if beside else 2)
    assert found.train.mean() == 51
    np.testing.assert_array_equal(found.held_out, 204 if beside else 51)


def test_one_picture_is_trained_on_and_held_out(tmp_path):
    _save(tmp_path / "a.png", 0.5)
    found = images.read_dataset(tmp_path, 8)
    assert found.train.shape == found.held_out.shape == (1, 8, 8, 3)


def test_what_has_no_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="--data=.*: no such folder"):
        images.read_dataset(tmp_path / "missing", 32)
    with pytest.raises(InputError, match="--photos=: no such folder"):
        images.read_dataset("", 32, flag="photos")
    with pytest.raises(InputError, match="--data=.*: no picture in this folder"):
        images.read_dataset(tmp_path, 32)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="--data=.*: none of its pictures can be read"):
        images.read_dataset(tmp_path, 32, warn=lambda text: None)


def test_batches_are_of_each_picture_once_an_epoch_in_new_orders():
    batches = images.Batches(10, 3, 4)
    assert batches.an_epoch == 3
    epochs = [[batches.indices(step).tolist() for step in range(3 * epoch, 3 * epoch + 3)] for epoch in range(3)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [4, 4, 2]
        assert sorted(sum(epoch, [])) == list(range(10))
    assert epochs[0] != epochs[1] != epochs[2]
    # A function of the number alone, and of the seed.
    assert images.Batches(10, 3, 4).indices(7).tolist() == epochs[2][1]
    assert batches.indices(1).tolist() == epochs[0][1]
    assert images.Batches(10, 4, 4).indices(0).tolist() != epochs[0][0]
    assert images.Batches(3, 0, 64).an_epoch == 1


def test_half_of_the_pictures_are_mirrored_and_the_set_stays_as_it_is():
    batches = images.Batches(1000, 0, 500)
    mirrored = batches.mirrored(0)
    assert 200 < mirrored.sum() < 300
    assert not np.array_equal(mirrored, batches.mirrored(1))
    assert np.array_equal(mirrored, images.Batches(1000, 0, 500).mirrored(0))
    train = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    kept = train.copy()
    found = datasets.Dataset(train=train, held_out=train, files=()).batch(np.array([2, 0]), np.array([True, False]))
    np.testing.assert_array_equal(found[0], kept[2][:, ::-1])
    np.testing.assert_array_equal(found[1], kept[0])
    np.testing.assert_array_equal(train, kept)


def test_a_real_folder_of_cifar(shared, tmp_path):
    import tarfile

    archive = shared / "data" / "cifar10_jpg_60k.tar.gz"
    if not archive.is_file():
        pytest.skip("no CIFAR-10 here")
    with tarfile.open(archive) as file:
        for member in file:
            if member.isfile() and member.name.endswith(".jpg"):
                place = tmp_path / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(io.BytesIO(file.extractfile(member).read()).getvalue())
                if sum(1 for _ in tmp_path.rglob("*.jpg")) == 30:
                    break
    found = images.read_dataset(tmp_path, 32)
    assert len(found.train) + len(found.held_out) >= 30
    assert found.train.std() > 20
