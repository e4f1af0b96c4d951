"""The loss of PPD: PPO's, and one more term."""

import copy

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from torch.distributions import Categorical, Normal, kl_divergence

from sb3_distill import load_teacher
from sb3_distill.common.losses import proximal_loss
from sb3_distill.networks.actor_critic_policies import ActorCriticMlpPolicy
from tests.helpers import same
from tests.ppd.students import KWARGS, make

PPO_KWARGS = {name: value for name, value in KWARGS.items() if name != "n_teacher_episodes"}
COEF, CLIP, RATE, VF = 3.0, 0.05, 0.3, 0.01


def test_the_ratio_is_clipped_from_below_alone():
    losses = proximal_loss(th.tensor([1.0, 2.0, 3.0]), th.tensor([0.5, 1.0, 2.0]), 0.2)
    assert losses.tolist() == pytest.approx([0.8, 2.0, 6.0])


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_without_its_term_it_is_ppo_bit_for_bit(env_id, ppo_teacher, gaussian_teacher):
    teacher = ppo_teacher if env_id == "CartPole-v1" else gaussian_teacher
    kwargs = {"ent_coef": 0.01, "clip_range_vf": 0.5, "target_kl": 0.05}
    student = make(teacher, env_id, distill_coef=0.0, **kwargs).learn(128)
    ppo = PPO(ActorCriticMlpPolicy, make_vec_env(env_id, 2, seed=0), **PPO_KWARGS, **kwargs).learn(128)
    assert student._n_updates == ppo._n_updates > 0 and same(student.policy, ppo.policy)
    assert not same(make(teacher, env_id, distill_coef=1.0, **kwargs).learn(128).policy, ppo.policy)


def in_float64(policy, teacher, buffer, env_id, log):
    """Two updates with the whole rollout, as the formulas say it, in float64; ``policy`` is changed."""
    obs = th.tensor(buffer.observations).double()
    actions = th.tensor(buffer.actions).double()
    old, returns, advantages = (
        th.tensor(getattr(buffer, name)).double().flatten() for name in ("log_probs", "returns", "advantages")
    )
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    for _ in range(2):
        latent_pi, latent_vf = policy.mlp_extractor(obs)
        outputs = policy.action_net(latent_pi), teacher.action_net(teacher.mlp_extractor(obs)[0]).detach()
        if env_id == "CartPole-v1":
            mine, theirs = (Categorical(logits=each) for each in outputs)
            log_prob, divergence = mine.log_prob(actions.flatten()), kl_divergence(theirs, mine)
        else:
            deviations = policy.log_std.exp(), teacher.log_std.detach().exp()
            mine, theirs = (Normal(*each) for each in zip(outputs, deviations, strict=True))
            log_prob, divergence = mine.log_prob(actions).sum(1), kl_divergence(theirs, mine).sum(1)
        ratio = (log_prob - old).exp()
        surrogate = th.min(advantages * ratio, advantages * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
        value_loss = (policy.value_net(latent_vf).flatten() - returns).square().mean()
        # max(rho, 1 - epsilon), with its gradient
        distill_loss = (th.where(ratio > 1 - CLIP, ratio, 1 - CLIP) * divergence).mean()
        loss = -surrogate + VF * value_loss + COEF * distill_loss
        log.append((loss.item(), distill_loss.item(), ratio.detach()))
        policy.zero_grad()
        loss.backward()
        with th.no_grad():
            for parameter in policy.parameters():
                parameter -= RATE * parameter.grad


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_updates_are_those_of_the_formula(env_id):
    env = make_vec_env(env_id, 2, seed=0)
    ppo = PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=1, device="cpu")
    with th.no_grad():
        # A teacher with opinions
        ppo.policy.action_net.weight.mul_(100.0)
    kwargs = {"policy_kwargs": {**KWARGS["policy_kwargs"], "optimizer_class": th.optim.SGD, "optimizer_kwargs": {}}}
    # The other terms get a share of the gradient.
    kwargs |= {
        "max_grad_norm": 1e9,
        "learning_rate": RATE,
        "batch_size": 64,
        "gamma": 0.0,
        "clip_range": CLIP,
        "vf_coef": VF,
    }
    model = make(ppo, make_vec_env(env_id, 2, seed=0), distill_coef=COEF, **kwargs)
    model.set_logger(Logger(None, []))
    before = copy.deepcopy(model.policy).double()
    teacher, log = copy.deepcopy(ppo.policy).double(), []
    model.learn(64)
    in_float64(before, teacher, model.rollout_buffer, env_id, log)
    logged = model.logger.name_to_value
    assert logged["train/loss"] == pytest.approx(np.mean([entry[0] for entry in log]), rel=1e-4)
    assert logged["train/distill_loss"] == pytest.approx(np.mean([entry[1] for entry in log]), rel=1e-4)
    # Both sides of the clipping were there.
    assert (log[1][2] < 1 - CLIP).any() and (log[1][2] > 1 + CLIP).any()
    for mine, expected in zip(model.policy.parameters(), before.parameters(), strict=True):
        assert th.allclose(mine.double(), expected, rtol=1e-3, atol=1e-5)


def test_squashed_gaussians_meet_before_the_squashing():
    sac = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    with th.no_grad():
        sac.actor.mu.bias += 1.0
    kwargs = {"policy_kwargs": {**KWARGS["policy_kwargs"], "squash_output": True}, "vf_coef": 0.0}
    model = make(sac, "Pendulum-v1", distill_coef=10.0, n_epochs=10, learning_rate=0.01, **kwargs)
    teacher = load_teacher(sac, device="cpu")
    obs = th.tensor(model.env.reset())
    mine, theirs = model.policy.answer(obs).gaussian, teacher.answer(obs)[0].gaussian
    before = kl_divergence(Normal(theirs.mean, theirs.std), Normal(mine.mean, mine.std)).mean().item()
    mine = model.learn(256).policy.answer(obs).gaussian
    after = kl_divergence(Normal(theirs.mean, theirs.std), Normal(mine.mean, mine.std)).mean().item()
    assert after < before / 2
    assert (np.abs(model.predict(obs.numpy())[0]) <= 2).all()
