import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

from jnst.errors import InputError
from jnst.weights import pth
from weights import checks, formats
from weights.checks import refusal, written
from weights.formats import Storage, old_file, old_of, tensor, tensor_of, tensors, zip_file, zip_of

LAYERS = formats.network(4, 5, 6)
DICT = formats.state_dict(LAYERS)
WRITERS = {"zip": zip_file, "old": old_file}
either = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def assert_same(found, arrays):
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@either
def test_state_dict_is_read_back_bit_by_bit(tmp_path, write):
    assert_same(pth.read(written(tmp_path / "a.pth", write(tensors(DICT)))), DICT)


@pytest.mark.parametrize("write", [*WRITERS.values(), lambda thing: old_file(thing, python2=True)])
def test_checkpoint_around_it_joins_names(tmp_path, write):
    checkpoint = {"epoch": 20, "loss": 0.5, "big": 2**40, "lr": [0.1, 0.2], "none": None, "on": True, "args": ("a", 1)}
    checkpoint |= {"state_dict": {"module": tensors(DICT)}, 5: tensor(np.float32([1, 2]))}
    found = pth.read(written(tmp_path / "a.pth", write(checkpoint)))
    expected = {f"state_dict.module.{name}": array for name, array in DICT.items()}
    assert_same(found, expected | {"5": np.float32([1, 2])})


def test_the_test_writes_what_python_2_did():
    program, _ = formats.pickled({"state_dict": tensors(DICT)}, zipped=False, python2=True)
    names = [opcode.name for opcode, _, _ in pickletools.genops(program)]
    assert "BINUNICODE" not in names
    assert {"SHORT_BINSTRING", "EMPTY_LIST", "APPENDS", "BUILD"} < set(names)


@either
def test_parameters_and_tensors_of_the_first_pytorch_are_read(tmp_path, write):
    arrays = {
        name: tensor(array, parameter=i % 2 == 0, older=i % 3 == 0) for i, (name, array) in enumerate(DICT.items())
    }
    assert_same(pth.read(written(tmp_path / "a.pth", write(arrays))), DICT)


@pytest.mark.parametrize("kind", ["f8", "f2", "i8", "i4", "i2", "u1"])
@either
def test_every_type_of_number_is_read(tmp_path, write, kind):
    array = np.arange(24).reshape(2, 3, 2, 2).astype(kind)
    assert_same(pth.read(written(tmp_path / "a.pth", write({"a": tensor(array)}))), {"a": array})


@either
def test_bfloat16_becomes_the_float32_that_it_abbreviates(tmp_path, write):
    exact = np.float32([1, -2.5, 1e-30, 3e38, 0.1, np.inf, np.nan])
    found = pth.read(written(tmp_path / "a.pth", write({"a": formats.bfloat16(exact)})))["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), exact.view(np.uint32) & 0xFFFF0000)


@either
def test_strides_are_followed(tmp_path, write):
    base = np.arange(54, dtype=np.float32).reshape(3, 3, 2, 3)
    arrays = {"a": base.transpose(3, 2, 0, 1), "b": base.transpose(0, 3, 1, 2), "c": base}
    assert not arrays["a"].flags.c_contiguous
    assert_same(pth.read(written(tmp_path / "a.pth", write({name: tensor(a) for name, a in arrays.items()}))), arrays)


@either
def test_tensors_may_share_a_storage(tmp_path, write):
    run = np.arange(100, dtype=np.float32)
    storage = Storage(run)
    content = {
        "whole": tensor_of(storage, (100,)),
        "middle": tensor_of(storage, (2, 3, 2, 2), 7),
        "end": tensor_of(storage, (3,), 97),
        "third": formats.Tensor(storage, (33,), (3,), 1),
        "same": formats.Tensor(storage, (4,), (0,), 99),
        "none": tensor_of(storage, (0,), 100),  # left out
    }
    expected = {
        "whole": run,
        "middle": run[7:31].reshape(2, 3, 2, 2),
        "end": run[97:],
        "third": run[1:100:3],
        "same": run[[99] * 4],
    }
    assert_same(pth.read(written(tmp_path / "a.pth", write(content))), expected)


@either
def test_matrices_and_what_is_no_tensor_are_left_out(tmp_path, write):
    content = {"classifier.0.weight": tensor(np.ones((4, 4), np.float32)), "steps": tensor(np.array(3)), "n": 1}
    assert list(pth.read(written(tmp_path / "a.pth", write(content | tensors(DICT))))) == list(DICT)


@either
def test_files_of_machines_with_the_other_byte_order(tmp_path, write):
    # The old format's numbers are little-endian wherever they were written, whatever the file says of the machine.
    assert_same(pth.read(written(tmp_path / "a.pth", write(tensors(DICT), big=True))), DICT)


@pytest.mark.parametrize("name", ["archive", "vgg19", "a folder/b", "0"])
def test_the_name_within_the_archive_is_free(tmp_path, name):
    assert_same(pth.read(written(tmp_path / "a.pth", zip_file(tensors(DICT), name=name))), DICT)


def test_newer_pytorch_entries_and_later_zip_features_are_no_matter(tmp_path):
    data = written(tmp_path / "a.pth", zip_file(tensors(DICT)))
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("archive/.format_version", b"1")
        archive.writestr("archive/.storage_alignment", b"64")
    assert_same(pth.read(data), DICT)


def test_reading_loads_nothing_but_the_reader(tmp_path):
    path = written(tmp_path / "a.pth", zip_file(tensors(DICT)))
    code = (
        "import sys; from jnst.weights import pth; before = set(sys.modules)\n"
        f"pth.read({str(path)!r}); print(sorted(m for m in set(sys.modules) - before if 'torch' in m or 'pickle' in m))"
        "\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


# Files made to harm. An assembler of the few opcodes that they need.


def text(word):
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


def number(value):
    raw = value.to_bytes(max(1, value.bit_length() // 8 + 1), "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def parts(*codes):
    return b"(" + b"".join(codes) + b"t"


def storage(count=b"K\x6c", *, key="0", kind="FloatStorage", tag="storage", more=b""):
    return parts(text(tag), name("torch", kind), text(key), text("cpu"), count, more) + b"Q"


def view(shape, strides, offset=0, kept=None):
    lists = [parts(*(number(value) for value in values)) for values in (shape, strides)]
    arguments = (kept or storage(), number(offset), *lists, b"\x89", name("collections", "OrderedDict") + b")R")
    return name("torch._utils", "_rebuild_tensor_v2") + parts(*arguments) + b"R"


def program(*codes):
    return b"\x80\x02" + b"".join(codes) + b"."


def item(key, value):
    return b"}" + text(key) + value + b"s"


PLAIN_VIEW = view((4, 3, 3, 3), (27, 9, 3, 1))
NUMBERS = bytes(4 * 108)
WRAPPED = {
    "zip": lambda code: zip_of(code, {"0": NUMBERS}),
    "old": lambda code: old_of(code, {"0": (108, NUMBERS)}),
}
wrapped = pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)


@wrapped
def test_the_assembler_makes_files_that_are_read(tmp_path, wrap):
    found = pth.read(written(tmp_path / "a.pth", wrap(program(item("a", PLAIN_VIEW)))))
    assert_same(found, {"a": np.zeros((4, 3, 3, 3), np.float32)})


def bombs(marker):
    """Pickles that make the file `marker`, by different opcodes: what `pickle` would do with them."""
    make = text(marker) + text("w")
    shell = text(f"touch '{marker}'")
    opened = f"S{marker!r}\nS'w'\n".encode()
    mapped = name("builtins", "map") + name("builtins", "eval") + text(f"open({marker!r}, 'w')") + b"\x85\x86"
    protocol4 = b"\x80\x04\x8c\x02io\x8c\x04open\x93" + make + b"\x86R."
    return {
        "os.system": program(name("os", "system"), shell, b"\x85R"),
        "posix.system": program(name("posix", "system"), shell, b"\x85R"),
        "subprocess": program(name("subprocess", "getoutput"), shell, b"\x85R"),
        "eval": program(name("builtins", "eval"), text(f"open({marker!r}, 'w')"), b"\x85R"),
        "exec": program(name("builtins", "exec"), text(f"open({marker!r}, 'w')"), b"\x85R"),
        "python 2's eval": program(name("__builtin__", "eval"), text(f"open({marker!r}, 'w')"), b"\x85R"),
        "getattr": program(
            name("builtins", "getattr"), name("os", "path"), text("os"), b"\x860", name("os", "system"), shell, b"\x85R"
        ),
        "inst": b"(" + opened + b"iio\nopen\n.",
        "obj": program(b"(", name("io", "open"), make, b"o"),
        "newobj": program(name("builtins", "tuple"), mapped, b"\x81", b"\x85\x81"),
        "newobj_ex": b"\x80\x04" + name("builtins", "tuple") + mapped + b"}\x92\x85}\x92.",
        "stack_global": protocol4,
        "framed": b"\x80\x04\x95" + struct.pack("<Q", len(protocol4) - 2) + protocol4[2:],
        "within a state dict": program(item("features.0.weight", name("io", "open") + make + b"\x86R")),
        "as a key": program(b"}", name("io", "open"), make, b"\x86R", text("a"), b"s"),
        "after tensors": program(b"}", name("io", "open"), make, b"\x86R0", text("a"), b"Ns"),
        "build": program(
            name("collections", "OrderedDict"), b")R", text("state"), name("io", "open"), make, b"\x86R\x86sb"
        ),
        "dotted": b"\x80\x04\x8c\x02os\x8c\x0cpath.os.open\x93" + text(marker) + number(os.O_CREAT) + b"\x86R.",
        "alone": program(name("io", "open"), make, b"\x86R"),
    }


KINDS = list(bombs(""))


@wrapped
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "build"])
def test_malicious_pickle_does_nothing_but_fail(tmp_path, kind, wrap):
    marker = tmp_path / "executed"
    code = bombs(str(marker))[kind]
    path = written(tmp_path / "a.pth", wrap(code))
    line = refusal(path, match=r"a\.pth: its pickle (names|uses the opcode) .*: refused")
    assert not marker.exists()
    if kind == "framed":
        assert "FRAME" in line
    pickle.loads(code)  # the bomb is live
    assert marker.exists()


@wrapped
def test_the_second_and_the_last_pickle_of_the_old_format_are_no_way_in_either(tmp_path, wrap):
    marker = tmp_path / "executed"
    bomb = bombs(str(marker))["os.system"]
    good = old_of(program(item("a", PLAIN_VIEW)), {"0": (108, NUMBERS)})
    first, second = pickle._dumps(formats.PROTOCOL, 2), pickle._dumps(["0"], 2)
    for part in (first, second):
        assert good.count(part) == 1
        refusal(written(tmp_path / "a.pth", good.replace(part, bomb)), match="names 'os.system'")
    assert not marker.exists()


GLOBALS = [
    *("os system", "builtins eval", "builtins getattr", "collections Counter", "collections defaultdict"),
    *("torch load", "torch._utils _rebuild_qtensor", "torch.storage _load_from_bytes", "torch Tensor", "torch Size"),
    *("numpy.core.multiarray _reconstruct", "numpy load", "jnst.weights.pth read", "torch.cuda.x FloatStorage"),
    *("torch floatstorage", "torch  FloatStorage", "torch FloatStorage ", "collections OrderedDict.fromkeys"),
    *(
        "collections.abc OrderedDict",
        "torch QUInt8Storage",
        "_codecs encode",
        "copyreg _reconstructor",
        " ",
        "a b\x1b[2J",
    ),
]


@pytest.mark.parametrize("pair", GLOBALS)
def test_any_name_outside_the_table_is_refused_by_itself(tmp_path, pair):
    module, _, attribute = pair.partition(" ")
    path = written(tmp_path / "a.pth", zip_of(program(b"}", text("a"), name(module, attribute), b"s")))
    refusal(path, match=r"its pickle names '.*', which no plain state dict needs: refused")


OPCODES = {
    **{"INT": b"I1\n", "LONG": b"L1L\n", "STRING": b"S'a'\n", "UNICODE": b"Va\n", "FLOAT": b"F1\n"},
    **{"POP": b"N0", "DUP": b"2", "POP_MARK": b"(1", "GET": b"g0\n", "PUT": b"p0\n", "PERSID": b"P0\n"},
    **{"DICT": b"(d", "LIST": b"(l", "INST": b"(ios\nsystem\n", "OBJ": b"(No", "NEWOBJ": b"N)\x81"},
    **{"EXT1": b"\x82\x01", "EXT2": b"\x83\x01\x00", "EXT4": b"\x84\x01\x00\x00\x00", "LONG4": b"\x8b\x01\0\0\0\x01"},
    **{"BINBYTES": b"B\x01\0\0\0a", "SHORT_BINBYTES": b"C\x01a", "BINUNICODE8": b"\x8d" + struct.pack("<Q", 1) + b"a"},
    **{"SHORT_BINUNICODE": b"\x8c\x01a", "EMPTY_SET": b"\x8f", "ADDITEMS": b"(\x90", "FROZENSET": b"(\x91"},
    **{"NEWOBJ_EX": b"N)}\x92", "STACK_GLOBAL": text("os") + text("system") + b"\x93", "MEMOIZE": b"\x94"},
    **{
        "FRAME": b"\x95" + bytes(8),
        "BYTEARRAY8": b"\x96" + bytes(8),
        "NEXT_BUFFER": b"\x97",
        "READONLY_BUFFER": b"\x98",
    },
    **{"BINBYTES8": b"\x8e" + bytes(8)},
}


@pytest.mark.parametrize("opcode", OPCODES)
def test_any_opcode_outside_the_list_is_refused_by_itself(tmp_path, opcode):
    path = written(tmp_path / "a.pth", zip_of(program(b"}", text("a"), OPCODES[opcode], b"s"), {"0": NUMBERS}))
    refusal(path, match=f"its pickle uses the opcode {opcode}, which no plain state dict needs: refused")


CODES = {
    "build on a tensor": item("a", PLAIN_VIEW + item("storage", b"N") + b"b"),
    "build on a name": item("a", name("collections", "OrderedDict") + b"}b"),
    "build on a list": item("a", b"]}b"),
    "build on nothing": b"}b",
    "called tensor": item("a", PLAIN_VIEW + b")R"),
    "called storage class": item("a", name("torch", "FloatStorage") + b")R"),
    "called text": item("a", text("os") + b")R"),
    "called with a dict": item("a", name("collections", "OrderedDict") + b"}R"),
    "called with a number": item("a", name("collections", "OrderedDict") + number(1) + b"\x85R"),
    "called with texts": item("a", name("collections", "OrderedDict") + b"](" + text("abc") + b"e\x85R"),
    "called with a triple": item("a", name("collections", "OrderedDict") + b"](" + parts(b"NNN") + b"e\x85R"),
    "tensor without arguments": item("a", name("torch._utils", "_rebuild_tensor_v2") + b")R"),
    "parameter without arguments": item("a", name("torch._utils", "_rebuild_parameter") + b")R"),
    "parameter of a text": item("a", name("torch._utils", "_rebuild_parameter") + parts(text("a")) + b"R"),
    "tensor of no storage": item("a", view((1,), (1,), kept=text("0"))),
    "tensor of a tensor": item("a", view((1,), (1,), kept=PLAIN_VIEW)),
    "negative offset": item("a", view((4,), (1,), -1)),
    "negative size": item("a", view((-4,), (1,))),
    "negative stride": item("a", view((4,), (-1,), 107)),
    "sizes and strides that differ in number": item("a", view((4, 3, 3, 3), (27, 9, 3))),
    "another kind of persistent id": item("a", view((1,), (1,), kept=storage(tag="module"))),
    "persistent id of text": item("a", text("storage") + b"Q"),
    "persistent id of nothing": b"Q",
    "persistent id that is short": item("a", parts(text("storage")) + b"Q"),
    "storage of no class": item("a", parts(text("storage"), text("FloatStorage"), text("0"), b"N", number(1)) + b"Q"),
    "storage with a class that is none": item(
        "a",
        view(
            (1,),
            (1,),
            kept=parts(text("storage"), name("collections", "OrderedDict"), text("0"), b"N", number(9)) + b"Q",
        ),
    ),
    "storage key that is a number": item(
        "a", parts(text("storage"), name("torch", "FloatStorage"), number(0), b"N", number(1)) + b"Q"
    ),
    "storage of a true count": item("a", storage(b"\x88")),
    "storage of a fraction": item("a", storage(b"G" + struct.pack(">d", 3.5))),
    "stack run dry": b"s",
    "mark popped too often": b"}(uu",
    "mark that was never set": b"}t",
    "mark below what is there": b"(N}u",
    "append to a dict": b"}Na",
    "set in a list": b"]NNs",
    "set in a tensor": PLAIN_VIEW + text("a") + b"Ns",
    "odd number of items": b"}(" + text("a") + b"u",
    "a dict as a key": b"}}Ns",
    "a tuple as a key": b"})Ns",
    "none as a key": b"}NNs",
    "memo that was never filled": b"}" + text("a") + b"h\x07s",
    "nothing at all": b"",
    "a list": b"]",
    "a tensor alone": PLAIN_VIEW,
    "a number": number(7),
    "text that is no text": b"X\x02\0\0\0\xff\xfe",
    "unknown opcode": b"\xff",
    "text that never ends": b"X\xff\xff\xff\x7fabc",
    "number that never ends": b"\x8a\xffabc",
    "name that never ends": b"cos",
    "name that is no text": b"c\xff\xfe\nb\n",
    "storage that is a view": item("a", view((1,), (1,), kept=storage(more=parts(text("0"), number(0), number(9))))),
}


@wrapped
@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_pickle_that_makes_no_sense_is_refused_in_one_line(tmp_path, code, wrap):
    refusal(
        written(tmp_path / "a.pth", wrap(program(code))),
        match=r"a\.pth: (its pickle|holds|a storage|no layer|.* storage)",
    )


@wrapped
@pytest.mark.parametrize("opcode", [b"\x8d", b"\x8e", b"\x96"], ids=["BINUNICODE8", "BINBYTES8", "BYTEARRAY8"])
@pytest.mark.parametrize("length", [2**62, 2**63 - 1, 2**64 - 1])
def test_text_of_astronomical_length_is_refused(tmp_path, opcode, length, wrap):
    refusal(written(tmp_path / "a.pth", wrap(program(b"}", opcode, struct.pack("<Q", length), b"abc"))))


VIEWS = {
    "one number too many": ((109,), (1,), 0),
    "past the end by its offset": ((4, 3, 3, 3), (27, 9, 3, 1), 1),
    "past the end by a stride": ((4, 3, 3, 3), (28, 9, 3, 1), 0),
    "from beyond the end": ((1,), (1,), 108),
    "huge offset": ((1,), (1,), 2**62),
    "huge offset that wraps": ((1,), (1,), 2**64 - 4),
    "huge stride": ((2,), (2**62,), 0),
    "strides that wrap to 0": ((2, 2, 1, 1), (2**63, 2**63, 1, 1), 0),
    "stride beyond 64 bits": ((2,), (2**200,), 0),
    "huge sizes": ((2**31, 2**31, 4, 1), (0, 0, 0, 0), 0),
    "sizes that wrap": ((2**32, 2**32, 1, 1), (0, 0, 0, 0), 0),
    "size beyond 64 bits": ((2**100,), (0,), 0),
    "repeated number": ((10**6, 10**3, 1, 1), (0, 0, 0, 0), 0),
}


@wrapped
@pytest.mark.parametrize(("shape", "strides", "offset"), VIEWS.values(), ids=VIEWS)
def test_tensor_that_reaches_outside_its_storage_is_refused_by_name(tmp_path, shape, strides, offset, wrap):
    path = written(tmp_path / "a.pth", wrap(program(item("features.0.weight", view(shape, strides, offset)))))
    refusal(path, match=r"a\.pth: features\.0\.weight: shape .* does not fit into 108 numbers")


HOLLOW = {
    "huge stride of one": ((1,), (2**62,), 0),
    "stride of one beyond 64 bits": ((1,), (2**200,), 0),
    "no number, huge": ((0, 2**62, 2**62, 3), (1, 1, 1, 1), 0),
    "no number, beyond 64 bits": ((0, 2**100, 1, 1), (1, 1, 1, 1), 0),
    "no number, huge offset": ((0,), (1,), 2**100),
}


@wrapped
@pytest.mark.parametrize(("shape", "strides", "offset"), HOLLOW.values(), ids=HOLLOW)
def test_numbers_that_no_machine_holds_do_no_harm_where_nothing_depends_on_them(tmp_path, shape, strides, offset, wrap):
    refusal(written(tmp_path / "a.pth", wrap(program(item("features.0.weight", view(shape, strides, offset))))))


@wrapped
@pytest.mark.parametrize("count", [-1, -(2**62), 0, 107, 109, 2**40, 2**62, 2**63, 2**200])
def test_storage_that_is_not_as_large_as_it_says_is_refused(tmp_path, count, wrap):
    code = program(item("features.0.weight", view((4, 3, 3, 3), (27, 9, 3, 1), kept=storage(number(count)))))
    path = written(tmp_path / "a.pth", wrap(code))
    refusal(path, match=r"a\.pth: features\.0\.weight: ")


@pytest.mark.parametrize("count", [-1, -(2**63), 107, 109, 2**40, 2**61, 2**62, 2**63 - 1])
def test_count_before_old_numbers_that_is_wrong_is_refused(tmp_path, count):
    code = program(item("features.0.weight", PLAIN_VIEW))
    refusal(written(tmp_path / "a.pth", old_of(code, {"0": (count, NUMBERS)})))


@pytest.mark.parametrize("key", ["../../secret", "/etc/passwd", "../data.pkl", "1", "", "0\0", "0\n1", "x" * 5000])
def test_storage_key_that_leads_elsewhere_finds_nothing(tmp_path, key):
    (tmp_path / "secret").write_bytes(NUMBERS)
    kept = storage(number(8 if "pkl" in key else 108), key=key)
    code = program(item("features.0.weight", view((8,), (1,), kept=kept)))
    for wrap in WRAPPED.values():
        refusal(written(tmp_path / "a.pth", wrap(code)), match=r"a\.pth: ")


@pytest.mark.parametrize("end", ["data.pkl", "data/0", "byteorder"])
def test_compressed_entry_is_refused(tmp_path, end):
    data = zip_of(program(item("a", PLAIN_VIEW)), {"0": NUMBERS}, compress=[end])
    refusal(written(tmp_path / "a.pth", data), match=f"entry 'archive/{end}' is compressed, which PyTorch never does")


def test_archive_with_two_programs_or_none_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    for names in (["a/data.pkl", "b/data.pkl"], ["a/data.pkl", "a/b/data.pkl"], ["data.pkl"], ["a/constants.pkl"]):
        with zipfile.ZipFile(path, "w") as archive:
            for entry in names:
                archive.writestr(entry, program(item("a", PLAIN_VIEW)))
        with pytest.raises(InputError, match=r"not a PyTorch archive: expected one entry NAME/data\.pkl"):
            pth.read(path)


@wrapped
def test_dict_within_itself_ends(tmp_path, wrap):
    itself = b"}q\x00" + text("again") + b"h\x00s"
    refusal(written(tmp_path / "a.pth", wrap(program(itself))), match="no layer found")
    refusal(written(tmp_path / "a.pth", wrap(program(b"]q\x00h\x00a"))), match="holds no state dict")


def nest(opening, closing, first=b"}", depth=60):
    """A list of things, each 25 times the one before it, and the last of them again."""
    code = first + b"q\x00"
    for level in range(1, depth):
        inner = b"h" + bytes([level - 1])
        code += opening + b"".join(
            (text(letter) if closing == b"u" else b"") + inner for letter in "abcdefghijklmnopqrstuvwxy"
        )
        code += closing + b"q" + bytes([level])
    return b"](" + code + b"e", b"h" + bytes([depth - 1])


@wrapped
@pytest.mark.parametrize(("opening", "closing"), [(b"}(", b"u"), (b"](", b"e"), (b"(", b"t")])
def test_a_few_lines_that_stand_for_more_than_there_are_atoms_are_refused_quickly(tmp_path, opening, closing, wrap):
    made, last = nest(opening, closing)
    path = written(tmp_path / "a.pth", wrap(program(b"}(", text("made"), made, text("last"), last, b"u")))
    refusal(path, match="more than 10000 entries" if closing == b"u" else "no layer found")


@wrapped
def test_shape_that_nests_is_refused_quickly(tmp_path, wrap):
    made, last = nest(b"(", b"t", number(1))
    arguments = storage() + number(0) + last + last + b"\x89N"
    rebuilt = name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tR"
    path = written(
        tmp_path / "a.pth", wrap(program(b"}(", text("made"), made, text("features.0.weight"), rebuilt, b"u"))
    )
    refusal(path, match="a tensor's shape is not made of whole numbers")


@pytest.mark.slow
@wrapped
def test_memory_stays_in_proportion_to_the_file(tmp_path, wrap):
    long = text("k" * 100_000)
    inner = b"}(" + b"".join(text(str(i)) + b"h\x01" for i in range(9000)) + b"u"
    names = b"}" + long + b"}" + long + b"}" + long + inner + b"sss"  # 2.7 GB of joined names
    many = b"}(" + b"".join(text(str(i)) + b"h\x01" for i in range(9000)) + b"u"  # 9000 times the same 400 kB
    kept = storage(number(100_000))
    for code in (names, many):
        tensors = view((100_000,), (1,), kept=kept) + b"q\x01"
        data = {"0": bytes(400_000)} if wrap is WRAPPED["zip"] else {"0": (100_000, bytes(400_000))}
        whole = program(b"}", text("first"), tensors, b"s", text("rest"), code, b"s")
        path = written(tmp_path / "a.pth", (zip_of if wrap is WRAPPED["zip"] else old_of)(whole, data))
        tracemalloc.start()
        try:
            refusal(path)
            assert tracemalloc.get_traced_memory()[1] < 100 * path.stat().st_size
        finally:
            tracemalloc.stop()


@either
def test_tensor_named_with_a_line_break_is_still_refused_in_one_line(tmp_path, write):
    for key in ("a\nb", "a\x1b[2Jb", "a\rb", "a\u2028b", "k" * 180):
        thing = tensor(np.ones(4, np.float32))
        thing.shape = (5,)
        refusal(written(tmp_path / "a.pth", write({key: thing})))


def test_damage_is_refused_by_tensor_and_file(tmp_path):
    data = bytearray(zip_file(tensors(DICT)))
    data[data.index(DICT["features.2.weight"].tobytes()[:40]) + 20] ^= 1  # the archive's checksum knows
    refusal(written(tmp_path / "a.pth", data), match=r"a\.pth: not a whole PyTorch archive \(Bad CRC-32 .*data/2")


@either
def test_truncated_file_is_refused_in_one_line(tmp_path, write):
    data = write(tensors(DICT))
    for end in (1, 5, 14, 16, 60, 200, 400, len(data) // 2, len(data) - 300, len(data) - 1):
        refusal(written(tmp_path / "a.pth", data[:end]), match=r"a\.pth: ")
    if write is old_file:
        refusal(
            written(tmp_path / "a.pth", data[:-1]), match=r"a\.pth: features\.\d\.\w+: the file ends before its numbers"
        )
        refusal(written(tmp_path / "a.pth", data[:-500]), match=r"a\.pth: features\.\d\.\w+: the file ends")


@pytest.mark.parametrize("write", [*WRITERS.values(), lambda thing: old_file(thing, python2=True)])
def test_random_damage_ends_in_one_line_or_in_a_network(tmp_path, write):
    data = write({"state_dict": tensors(formats.state_dict(formats.network(2, 2)))})
    checks.assert_survives(tmp_path / "a.pth", data, "caffe")


def test_real_slim_files_are_equal(shared):
    folder = shared / "weights"
    arrays = pth.read(folder / "vgg19_slim16x_relu5_1.pth")
    with np.load(folder / "vgg19_slim16x_relu5_1.npz") as file:
        assert_same(arrays, {f"model.{name}": file[name] for name in file.files})


@wrapped
def test_a_list_of_items_serves_once(tmp_path, wrap):
    """A long one, mentioned often, would be many more dicts than the file has bytes."""
    pair = b"](" + text("a") + PLAIN_VIEW + b"e"
    items = b"]q\x05(" + pair + b"e"
    dict_of = name("collections", "OrderedDict")
    once = dict_of + b"(" + items + b"tR"
    again = dict_of + b"(h\x05tR"
    path = written(tmp_path / "a.pth", wrap(program(b"}(", text("x"), once, text("y"), again, b"u")))
    assert list(pth.read(path)) == ["x.a"]


@wrapped
def test_many_lists_for_one_dict_and_many_axes_for_one_tensor_are_refused(tmp_path, wrap):
    twice = name("collections", "OrderedDict") + b"(]q\x05h\x05tR"
    refusal(written(tmp_path / "a.pth", wrap(program(twice))), match="pickle is damaged")
    deep = item("a", view((1,) * 9, (1,) * 9))
    refusal(written(tmp_path / "a.pth", wrap(program(deep))), match="at most 8")


def test_an_entry_larger_than_its_storage_is_refused(tmp_path):
    """It would be kept whole, as often as another storage of its key is made up."""
    path = written(tmp_path / "a.pth", zip_of(program(item("a", PLAIN_VIEW)), {"0": NUMBERS + bytes(4)}))
    refusal(path, match="its storage has 436 bytes, not 432")
