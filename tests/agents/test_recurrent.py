"""RecurrentPPO agents: read from their weights, they act as in SB3-contrib, and teach students that see a stack."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize

from sb3_distill import QPD, PolicyDistillation, ProximalPolicyDistillation, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.envs.views import ObservationView
from tests.base.test_resuming import Pictures

SMALL: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "seed": 0, "device": "cpu"}
QUICK: dict[str, Any] = {"n_teacher_episodes": 1, "device": "cpu", "seed": 0}
OFF_POLICY: dict[str, Any] = {**QUICK, "learning_starts": 16, "buffer_size": 200}
LSTMS: dict[str, dict[str, Any]] = {
    "own critic": {"lstm_hidden_size": 6},
    "two layers": {"lstm_hidden_size": 5, "n_lstm_layers": 2, "net_arch": {"pi": [7], "vf": []}},
    "shared": {"lstm_hidden_size": 6, "shared_lstm": True, "enable_critic_lstm": False},
    "critic without": {"lstm_hidden_size": 6, "enable_critic_lstm": False, "share_features_extractor": False},
    "without bias": {"lstm_hidden_size": 4, "lstm_kwargs": {"bias": False}},
}


def trained(env: VecEnv, policy: str = "MlpLstmPolicy", **kwargs: Any) -> RecurrentPPO:
    """A tiny agent after a few steps, with weights large enough that its memory shows."""
    model = RecurrentPPO(policy, env, policy_kwargs=kwargs, **SMALL).learn(16)
    with th.no_grad():
        for name, weight in model.policy.named_parameters():
            if "lstm" in name or "action_net.weight" in name:
                weight.mul_(5.0)
    return model


def check_plays_alike(model: RecurrentPPO, teacher: Any, env: VecEnv, n_steps: int = 40) -> None:
    """The same actions as SB3-contrib's over whole episodes, each environment with resets of its own."""
    obs: Any = env.reset()
    theirs, ours, starts = None, None, np.ones(env.num_envs, dtype=bool)
    normalize = model.get_vec_normalize_env()
    n_resets = 0
    for _ in range(n_steps):
        seen = obs if normalize is None else normalize.normalize_obs(obs)
        actions, theirs = model.predict(seen, theirs, starts, deterministic=True)
        own, ours = teacher.predict(obs, ours, starts)
        assert np.allclose(own, actions, atol=1e-5)
        # The hidden state: (n_layers, n_envs, width) there, (n_envs, n_layers, width) here
        assert theirs is not None and np.allclose(ours["actor"][0].transpose(0, 1), theirs[0], atol=1e-5)
        obs, _, starts, _ = env.step(actions)
        n_resets += starts.sum()
    assert n_resets > 0


@pytest.mark.parametrize(
    ("name", "env_id"), [*((name, "CartPole-v1") for name in LSTMS), ("two layers", "Pendulum-v1")]
)
def test_it_plays_as_in_sb3_contrib(name: str, env_id: str, tmp_path: Path) -> None:
    env = make_vec_env(env_id, 3, seed=0, env_kwargs={"max_episode_steps": 15})
    model = trained(env, **LSTMS[name])
    model.save(tmp_path / "agent")
    teacher = load_teacher(tmp_path / "agent.zip", device="cpu")
    assert teacher.algo == "ppo_lstm" and teacher.has_memory and teacher.has_critic
    check_plays_alike(model, teacher, env)
    assert load_teacher(model, device="cpu").has_memory


@pytest.mark.parametrize("name", LSTMS)
def test_it_answers_as_sb3_contrib_does(name: str) -> None:
    model = trained(make_vec_env("CartPole-v1", 2, seed=0), **LSTMS[name])
    teacher, policy = load_teacher(model, device="cpu"), model.policy
    obs, starts = th.randn(6, 2, 4), [[1, 1], [0, 0], [0, 1], [0, 0], [1, 0], [0, 0]]
    state: Any = None
    with th.no_grad():
        zeros = tuple(th.zeros(policy.lstm_hidden_state_shape).repeat(1, 2, 1) for _ in range(2))
        states = type("States", (), {"pi": zeros, "vf": zeros})
        for seen, begins in zip(obs, starts, strict=True):
            _, values, _, states = policy.forward(seen, states, th.tensor(begins).float(), deterministic=True)
            answers, state = teacher.answer(seen, state, np.array(begins, bool), with_values=True)
            assert answers.values is not None and th.allclose(answers.values, values[:, 0], atol=1e-6)
            assert th.allclose(answers.log_probs, policy.action_dist.distribution.logits, atol=1e-6)
    assert teacher.answer(obs[0])[0].values is None


def test_images_and_statistics(tmp_path: Path) -> None:
    env = make_vec_env(lambda: Pictures(), 2, seed=0)
    model = trained(env, "CnnLstmPolicy", lstm_hidden_size=4)
    model.save(tmp_path / "pictures")
    check_plays_alike(model, load_teacher(tmp_path / "pictures.zip", device="cpu"), env)
    raw = make_vec_env("CartPole-v1", 2, seed=0)
    normalized = VecNormalize(raw, norm_reward=False)
    model = trained(normalized, lstm_hidden_size=4)
    folder = tmp_path / "ppo_lstm" / "CartPole-v1_1"
    settings = folder / "CartPole-v1"
    settings.mkdir(parents=True)
    model.save(folder / "CartPole-v1")
    normalized.training = False
    normalized.save(str(settings / "vecnormalize.pkl"))
    (settings / "config.yml").write_text("normalize: true\nenv_wrapper: rl_zoo3.wrappers.MaskVelocityWrapper\n")
    (settings / "args.yml").write_text("algo: ppo_lstm\nenv: CartPole-v1\n")
    teacher = load_teacher(folder, device="cpu")
    assert teacher.normalization is not None and teacher.env_id == "CartPole-v1"
    check_plays_alike(model, teacher, raw)


def stacked(env_id: Any = "CartPole-v1", n_envs: int = 2, n_stack: int = 4) -> VecEnv:
    return VecFrameStack(make_vec_env(env_id, n_envs, seed=0), n_stack)


@pytest.mark.parametrize("algorithm", [PolicyDistillation, QPD, ProximalPolicyDistillation])
def test_the_student_sees_a_stack_and_the_teacher_the_newest(
    algorithm: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained(make_vec_env("CartPole-v1", 2, seed=0), lstm_hidden_size=6)
    own = {"n_steps": 32, "batch_size": 32, **QUICK} if algorithm is ProximalPolicyDistillation else OFF_POLICY
    student = algorithm("MlpPolicy", stacked(), model, verbose=1, **own).learn(64)
    assert "The student sees 4 stacked observations, the teacher RecurrentPPO model the newest alone" in (
        capsys.readouterr().out
    )
    assert student.observation_space.shape == (16,) and student._reference.score is not None
    if algorithm is not ProximalPolicyDistillation:
        # The answers in the memory are those to the newest observations, in the order of play.
        teacher, state = load_teacher(model, device="cpu"), None
        buffer = student.replay_buffer
        for row in range(32):
            newest = th.as_tensor(np.array(buffer.stores[""][row][:, -4:]))
            starts = (np.array(buffer.stores[""][row][:, :12]) == 0).all(axis=1)
            answers, state = teacher.answer(newest, state, starts)
            assert np.allclose(buffer.answers["log_probs"][row], answers.log_probs, atol=1e-5)


def test_what_a_teacher_sees_of_a_stack() -> None:
    one = make_vec_env("CartPole-v1", 1).observation_space
    view = ObservationView(stacked())
    assert view.show_teacher(one) == 4 and view.teacher_space == one
    obs = np.arange(32, dtype=np.float32).reshape(2, 16)
    assert view.teacher_obs(obs).tolist() == [[12, 13, 14, 15], [28, 29, 30, 31]]
    # It sees the whole stack if that is its own space, and whatever there is if it fits nothing.
    assert view.show_teacher(view.observation_space) == 1 and view.teacher_space == view.observation_space
    assert view.show_teacher(spaces.Box(-1, 1, (8,))) == 1 and view.teacher_obs(obs) is obs
    pictures = ObservationView(stacked(lambda: Pictures(), n_stack=3))
    assert pictures.observation_space.shape == (3, 36, 36)
    assert pictures.show_teacher(spaces.Box(0, 255, (1, 36, 36), np.uint8)) == 3
    frames = np.arange(3, dtype=np.uint8)[None, :, None, None].repeat(36, 2).repeat(36, 3)
    assert (pictures.teacher_obs(frames) == 2).all() and pictures.teacher_space.shape == (1, 36, 36)


def test_of_a_dict_too() -> None:
    from sb3_distill import StackedEntries

    wrapped = make_vec_env("CartPole-v1", 2, wrapper_class=StackedEntries, wrapper_kwargs={"entries": (0, 2)})
    view = ObservationView(VecFrameStack(wrapped, 2), "positions", "state")
    assert view.show_teacher(make_vec_env("CartPole-v1", 1).observation_space) == 2
    first = view.teacher_obs(view.reset())
    assert first.shape == (2, 4) and np.abs(first).max() > 0


def test_weights_that_are_no_lstm(tmp_path: Path) -> None:
    from sb3_distill.agents.rebuild.recurrent import build_recurrent

    model = trained(make_vec_env("CartPole-v1", 1), lstm_hidden_size=4)
    weights = dict(model.policy.state_dict())
    box, two = model.observation_space, model.action_space
    with pytest.raises(AgentError, match="has no LSTM in its weights"):
        build_recurrent({k: w for k, w in weights.items() if "lstm" not in k}, box, two, {})
    weights["lstm_actor.weight_ih_l0"] = th.zeros(16, 5)
    with pytest.raises(AgentError, match=r"size mismatch for lstm_actor.weight_ih_l0: \(16, 5\), not \(16, 4\)"):
        build_recurrent(weights, box, two, {})
