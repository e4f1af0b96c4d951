"""What falls back says so; words of messages."""

import pytest
import torch as th

from sb3_distill.common import utils


def test_functions_that_cannot_be_compiled(monkeypatch):
    def refuse(function):
        def call(*args):
            raise RuntimeError("No working C++ compiler found\nand much more")

        return call

    monkeypatch.setattr(th, "compile", refuse)
    double = utils.compile_or_same(lambda x: 2 * x)
    with pytest.warns(UserWarning, match=r"torch.compile failed \(RuntimeError: No working C\+\+ compiler found\): tr"):
        assert double(th.tensor(1)) == 2
    assert double(th.tensor(2)) == 4
    # An error of the function itself stays what it is.
    with pytest.raises(ZeroDivisionError):
        utils.compile_or_same(lambda x: 1 // 0)(th.tensor(1))


def test_one_is_said_in_the_singular():
    said = [utils.counted(number, "held-out step") for number in (0, 1, 2, 2_000)]
    assert said == ["0 held-out steps", "1 held-out step", "2 held-out steps", "2,000 held-out steps"]


def test_settings_are_said_as_in_python_and_as_in_the_zoo():
    assert utils.setting("temperature", "0.1") == "temperature=0.1 (in the Zoo: -params temperature:0.1)"
    assert utils.setting("loss", "'kl'") == "loss='kl' (in the Zoo: -params loss:\"'kl'\")"
    said = utils.setting("policy_kwargs", "dict(squash_output=True)")
    assert said.endswith('-params policy_kwargs:"dict(squash_output=True)")')
