import sys

import pytest

from jnst.cli.progress import Progress
from jnst.tasks.stylize import Record


def record(step, steps):
    terms = {"total": 3.25, "content": 0.5, "style": 1.5, "tv": 1.25}
    return Record(step, steps, terms, lambda: None, lambda: None)


@pytest.mark.parametrize(
    ("steps", "every", "shown"), [(7, 3, [0, 3, 6, 7]), (6, 3, [0, 3, 6]), (3, 0, [0, 3]), (2, 20, [0, 2])]
)
def test_log_has_a_line_at_the_start_each_print_every_and_the_end(capsys, steps, every, shown):
    progress = Progress(steps, every)
    for step in range(steps + 1):
        progress.show(record(step, steps))
    progress.close()
    out, err = capsys.readouterr()
    costs = "total 3.25  content 0.5  style 1.5  tv 1.25"
    assert out.splitlines() == [f"step {step}/{steps}  {costs}" for step in shown]
    assert err == ""


def test_terminal_has_a_bar_with_losses_and_no_lines(capsys, monkeypatch):
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    progress = Progress(4, 1)
    for step in range(5):
        progress.show(record(step, 4))
    progress.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert "4/4" in err
    assert "total=3.25" in err
    assert "tv=1.25" in err
