import io
import pickle

import pytest

from jnst.pickles import Refused, expect, fill, interpret


def _read(program, names=None, build=None, **more):
    return interpret(io.BytesIO(program), names=names or {}, build=build or expect, needed_by="example", **more)


def test_plain_things_come_out_as_they_went_in():
    thing = {"a": [1, -2, 300, 70000, 2**40, 2.5, None, True, False], "b": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))}
    assert _read(pickle.dumps(thing, 2)) == thing


def test_several_pickles_stand_one_after_the_other():
    file = io.BytesIO(pickle.dumps(1, 2) + pickle.dumps([2], 2) + b"rest")
    found = [interpret(file, names={}, build=expect, needed_by="example") for _ in range(2)]
    assert found == [1, [2]]
    assert file.read() == b"rest"


class _Evil:
    def __reduce__(self):
        return (print, ("run!",))


def test_nothing_is_run(capsys):
    with pytest.raises(Refused, match=r"names '.*print', which no example needs: refused"):
        _read(pickle.dumps(_Evil(), 2))
    assert capsys.readouterr().out == ""


def test_a_name_is_called_only_with_what_the_caller_has_for_it():
    program = pickle.dumps(_Evil(), 2)
    (name,) = [
        text for text in ("__builtin__ print", "builtins print") if text.encode().replace(b" ", b"\n") in program
    ]
    assert _read(program, {name: lambda arguments: ["called", *arguments]}) == ["called", "run!"]
    with pytest.raises(Refused, match="damaged"):
        _read(program, {name: None})


@pytest.mark.parametrize(
    ("program", "match"),
    [
        (b"\x80\x02K\x01", "no end|damaged"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02a.", "damaged"),
        (b"\x80\x02K\x01K\x02a.", "damaged"),  # appends to a number
        (b"\x80\x02Q.", "opcode BINPERSID"),
        (b"\x80\x02)\x81.", "opcode NEWOBJ"),
        (b"\x80\x02}]K\x01s.", "damaged"),  # a list as a key
        (b"\x80\x02h\x05.", "damaged"),  # memory that nothing was put into
        (b"", "no end|damaged"),
    ],
)
def test_damaged_and_strange_pickles_are_refused(program, match):
    with pytest.raises(Refused, match=match):
        _read(program)


def test_fill_and_expect_are_strict():
    with pytest.raises(TypeError, match="found float as a key"):
        fill({}, [(1.0, 2)])
    with pytest.raises(TypeError, match="found bool where int"):
        expect(int, True)
