"""Which students compile their updates: a rule of the processor and of the planned updates."""

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from sb3_distill.networks.actor_critic_policies import ActorCriticMlpPolicy, actor_critic_answers
from sb3_distill.networks.computing import BREAK_EVEN, break_even, planned_updates
from sb3_distill.networks.extractors import set_train_dtype
from sb3_distill.networks.policies import MlpPolicy, Net1Policy

CPU, CUDA = th.device("cpu"), th.device("cuda")
FRAMES = spaces.Box(0, 255, (4, 84, 84), "uint8")


def net1() -> Net1Policy:
    return Net1Policy(FRAMES, spaces.Discrete(2), lambda _: 1e-3)


@pytest.mark.parametrize(("capability", "expected"), [*BREAK_EVEN.items(), ("DEFAULT", None)])
def test_the_break_even_is_that_of_the_processor(capability, expected, monkeypatch):
    monkeypatch.setattr(th.backends.cpu, "get_cpu_capability", lambda: capability)
    assert break_even(net1(), CPU) == expected
    # What was not measured is not compiled.
    assert break_even(net1(), CUDA) is None
    assert break_even(MlpPolicy(spaces.Box(-1, 1, (3,)), spaces.Discrete(2), lambda _: 1e-3), CPU) is None


STEPS, EPISODES = TrainFrequencyUnit.STEP, TrainFrequencyUnit.EPISODE


@pytest.mark.parametrize(
    ("n_timesteps", "n_envs", "train_freq", "gradient_steps", "expected"),
    [
        # PD's Pong: 40 updates after 27 steps of 8 games
        (270_000 - 10_800, 8, TrainFreq(27, STEPS), 40, 48_000),
        (1_000, 2, TrainFreq(4, STEPS), 3, 375),
        (1_000, 1, TrainFreq(4, STEPS), -1, 1_000),
        (1_000, 1, TrainFreq(1, EPISODES), -1, 1_000),
        (1_000, 1, TrainFreq(1, EPISODES), 10, 0),
        (-5, 1, TrainFreq(1, STEPS), 1, 0),
    ],
)
def test_planned_updates(n_timesteps, n_envs, train_freq, gradient_steps, expected):
    assert planned_updates(n_timesteps, n_envs, train_freq, gradient_steps) == expected


@pytest.mark.parametrize(
    ("device", "bf16", "layout"),
    [
        (CPU, False, th.channels_last),
        (CPU, True, th.contiguous_format),
        (CUDA, False, th.channels_last),
        (CUDA, True, th.channels_last),
    ],
)
def test_layout_and_precision_go_together(device, bf16, layout):
    policy = net1()
    set_train_dtype(policy, device, bf16)
    extractor = policy.q_net.features_extractor
    assert extractor.train_dtype == (th.bfloat16 if bf16 else th.float32)
    assert extractor.cnn[2].weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("actions", [spaces.Discrete(3), spaces.Box(-1, 1, (2,))])
def test_answers_are_those_of_the_distribution_of_sb3(actions):
    policy = ActorCriticMlpPolicy(spaces.Box(-1, 1, (4,)), actions, lambda _: 1e-3)
    obs = th.randn(7, 4)
    answers, theirs = actor_critic_answers(policy, obs), policy.get_distribution(obs).distribution
    if answers.gaussian is None:
        assert th.equal(answers.log_probs, theirs.logits)
    else:
        assert th.equal(answers.gaussian.mean, theirs.mean) and th.equal(answers.gaussian.std, theirs.stddev)
