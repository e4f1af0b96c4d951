"""What the Zoo's search samples, and that it is what students have."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from gymnasium import spaces

from sb3_distill.networks.actor_critic_policies import ActorCriticMlpPolicy
from sb3_distill.quantization.layers import quantizers
from sb3_distill.quantization.precision import BITS, quantize_student
from sb3_distill.zoo import samplers


@pytest.mark.parametrize(("policy", "has_width"), [("MlpPolicy", True), ("Net1Policy", False)])
def test_sampled_trials_convert_back(policy: str, has_width: bool) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.set_user_attr("policy", policy)
    losses = set()
    for _ in range(30):
        trial = study.ask()
        hyperparams = samplers.sample_pd_params(trial, 0, 1, {})
        assert samplers.convert_pd_params(trial.params) == hyperparams
        assert ("temperature" in hyperparams) == (hyperparams["loss"] in ("kl", "reverse_kl"))
        assert ("policy_kwargs" in hyperparams) == has_width
        losses.add(hyperparams["loss"])
    assert losses == {"kl", "reverse_kl", "nll", "mse"}


@pytest.mark.parametrize("sample", [samplers.sample_qpd_params, samplers.sample_ppd_params], ids=["qpd", "ppd"])
@pytest.mark.parametrize("net_arch", [[], [8], [8, 8]])
@pytest.mark.parametrize("space", [None, spaces.Discrete(3)], ids=["vectors", "one-hot"])
def test_sampled_bits_are_those_of_every_layer(
    net_arch: list[int], space: spaces.Space | None, sample: Callable[..., dict[str, Any]]
) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.set_user_attr("weight_bits", "4")
    space = space or spaces.Box(-1, 1, (3,))
    for _ in range(8):
        trial = study.ask()
        hyperparams = sample(trial, 0, 1, {})
        assert samplers.convert_qpd_params(trial.params) == hyperparams
        policy = ActorCriticMlpPolicy(space, spaces.Discrete(2), lambda _: 1e-3, net_arch=net_arch)
        quantize_student(policy, **{name: hyperparams[name] for name in BITS})
        assert {int(quantizer.bits) for quantizer in quantizers(policy)} == {trial.params["bits"]}


def test_search_leaves_students_of_full_precision_as_they_are() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.set_user_attr("weight_bits", "None")
    assert set(samplers.sample_qpd_params(study.ask(), 0, 1, {})) == {"learning_rate", "temperature", "value_coef"}
    sampled = samplers.sample_ppd_params(study.ask(), 0, 1, {})
    assert "distill_coef" in sampled and not sampled.keys() & {*BITS, "quantization_schedule", "policy_kwargs"}


SEARCHED = {"loss", "temperature", "self_learning", "imitation"}


@pytest.mark.parametrize(
    ("settings", "scored", "searched"),
    [
        ({"students": "{'small': 'MlpPolicy', 'large': 'MlpPolicy'}"}, "small", SEARCHED),
        ({"students": "['Net1Policy', 'MlpPolicy']"}, "net1", SEARCHED),
        ({"students": "{'small': {'policy': 'MlpPolicy', 'temperature': 0.1}}"}, "small", SEARCHED - {"temperature"}),
        ({"students": "{'small': {'policy': 'MlpPolicy', 'loss': 'mse', 'self_learning': 0.0}}"}, "small", set()),
        (
            {"students": "{'a': {'policy': 'MlpPolicy', 'loss': 'kl'}, 'b': 'MlpPolicy'}", "act_with": "b"},
            "b",
            SEARCHED,
        ),
        # Text that is no literal
        ({"students": "{'a': {'policy_kwargs': {'activation_fn': <class 'ReLU'>}}}", "act_with": "a"}, "a", SEARCHED),
    ],
)
def test_search_of_rtpd_changes_the_student_that_is_scored(settings: dict, scored: str, searched: set) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for name, value in settings.items():
        study.set_user_attr(name, value)
    seen = set()
    for _ in range(20):
        hyperparams = samplers.sample_rtpd_params(study.ask(), 0, 1, {})
        assert hyperparams.pop("act_with") == scored
        # The choice of its target does not matter without self-learning.
        assert hyperparams.get("self_learning") != 0.0 or "imitation" not in hyperparams
        seen |= set(hyperparams)
    assert seen == searched


@pytest.mark.parametrize(
    ("students", "message"),
    [("None", "no students whose hyperparameters"), ("{'a': <class 'Own'>}", "cannot read it .*-params act_with")],
)
def test_search_of_rtpd_needs_a_student(students: str, message: str) -> None:
    study = optuna.create_study()
    study.set_user_attr("students", students)
    with pytest.raises(ValueError, match=message):
        samplers.sample_rtpd_params(study.ask(), 0, 1, {})
