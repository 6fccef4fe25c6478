"""Games that are trained: what is wrong with one. How one is played is in tests/tasks/test_dcgan.py."""

import numpy as np

from jnst import games


def _row(step, sure, net=0, loss=0.1):
    share = 1.0 if sure else 0.7
    return {
        "step": step,
        "epoch": 0.0,
        "net": net,
        "generator": loss,
        "discriminator": 0.1,
        "real": share,
        "fake": share,
    }


def test_trouble_is_told():
    fine = [_row(100, True), _row(900, True), _row(1000, False), _row(1900, True)]
    assert games.trouble(fine, 0) == ""
    assert games.trouble([], 0) == ""
    assert games.trouble([*fine, _row(2000, True)], 0) == "the discriminator tells all pictures apart, for 1000 steps"
    assert games.trouble([*fine, _row(2000, True)], 1) == ""
    assert games.trouble([_row(10, False), _row(20, False, loss=np.nan)], 0) == "a loss is not finite, at step 20"
