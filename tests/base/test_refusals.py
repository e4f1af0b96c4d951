"""What cannot be learned from is refused by its own name."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_distill import (
    QPD,
    MultiTaskDistillation,
    MultiTaskDQN,
    PolicyDistillation,
    ProximalPolicyDistillation,
    RealTimeDistillDQN,
    load_teacher,
)
from sb3_distill.algorithms import resolve
from sb3_distill.evaluation.play import evaluate_paired
from tests.helpers import status_of

QUICK = {"learning_starts": 20, "buffer_size": 500, "device": "cpu", "seed": 0, "policy_kwargs": {"net_arch": [8]}}
ALGORITHMS = [
    *(PolicyDistillation, QPD, ProximalPolicyDistillation, RealTimeDistillDQN, MultiTaskDistillation, MultiTaskDQN),
]
VECTOR = spaces.Box(-1, 1, (3,))


class Broken(gym.Env):
    """Episodes of ten steps, of which one observation or one reward can be no number."""

    def __init__(self, space=VECTOR, actions=None, obs_at=None, reward_at=None, number=np.nan):
        self.observation_space = space
        self.action_space = spaces.Discrete(3) if actions is None else actions
        self.obs_at, self.reward_at, self.number = obs_at, reward_at, number
        self.n_steps = 0

    def observe(self):
        obs = self.observation_space.sample()
        if self.n_steps == self.obs_at:
            (obs["vector"] if isinstance(obs, dict) else obs)[1] = self.number
        return obs

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_left = 10
        return self.observation_space.sample(), {}

    def step(self, action):
        self.n_steps += 1
        self.n_left -= 1
        reward = float(self.number) if self.n_steps == self.reward_at else 1.0
        return self.observe(), reward, self.n_left == 0, False, {}


def dqn(env, policy="MlpPolicy"):
    return DQN(policy, env, policy_kwargs={"net_arch": [8]}, buffer_size=10, seed=0, device="cpu")


def make(algo, n_envs=1, policy="MlpPolicy", n_teacher_episodes=0, **broken):
    """A student in environments of which only the last is broken."""
    fine = {key: value for key, value in broken.items() if key in ("space", "actions")}
    made = iter([{}] * (n_envs - 1) + [broken])
    env = make_vec_env(lambda: Broken(**{**fine, **next(made)}), n_envs, seed=0)
    if algo == "rtpd":
        return RealTimeDistillDQN(policy, env, {"small": policy}, eval_freq=-1, train_freq=1, **QUICK)
    if algo == "pd":
        return PolicyDistillation(
            policy, env, dqn(Broken(**fine), policy), n_teacher_episodes=n_teacher_episodes, **QUICK
        )
    teacher = PPO(policy, Broken(**fine), n_steps=8, batch_size=8, seed=0, device="cpu")
    if algo == "ppd":
        kwargs = {"n_steps": 16, "batch_size": 16, "seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [8]}}
        return ProximalPolicyDistillation(policy, env, teacher, n_teacher_episodes=n_teacher_episodes, **kwargs)
    return QPD(policy, env, teacher, n_teacher_episodes=n_teacher_episodes, **QUICK)


@pytest.mark.parametrize("algo", ["pd", "qpd", "ppd", "rtpd"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_observations_that_are_no_numbers(algo, number):
    model = make(algo, n_envs=2, obs_at=33, number=number)
    with pytest.raises(ValueError, match=rf"observation\[1\] is {number}, in sub-environment 1 after 66 timesteps"):
        model.learn(200)


@pytest.mark.parametrize("algo", ["pd", "ppd", "rtpd"])
def test_observations_of_a_key_that_are_no_numbers(algo):
    space = spaces.Dict({"vector": VECTOR, "one": spaces.Discrete(2)})
    model = make(algo, policy="MultiInputPolicy", space=space, obs_at=33)
    with pytest.raises(ValueError, match=r"observation\['vector'\]\[1\] is nan, in sub-environment 0 after 33 timest"):
        model.learn(200)


def test_last_observations_that_are_no_numbers():
    """DQN multiplies their values by zero, and NaN stays NaN; PPO takes their values where time is up; the other
    algorithms do not look at them."""
    for algo in ("ppd", "rtpd"):
        with pytest.raises(
            ValueError, match=r"terminal_observation\[1\] is nan, in sub-environment 1 after 60 timestep"
        ):
            make(algo, n_envs=2, obs_at=30).learn(200)
    for algo in ("pd", "qpd"):
        assert make(algo, obs_at=30).learn(100)._n_updates > 0


@pytest.mark.parametrize("algo", ["pd", "qpd", "ppd", "rtpd"])
def test_rewards_that_are_no_numbers(algo):
    with pytest.raises(ValueError, match=r"reward is nan, in sub-environment 1 after 6\d timesteps"):
        make(algo, n_envs=2, reward_at=33).learn(200)


@pytest.mark.parametrize("algo", ["pd", "qpd", "ppd"])
def test_scores_of_teachers_that_are_no_numbers(algo):
    with pytest.raises(ValueError, match=r"mean reward over 5 episodes is nan: a reward of the environment"):
        make(algo, reward_at=33, n_teacher_episodes=5).learn(200)


def test_scores_that_are_no_numbers():
    def make_env(n_envs):
        return make_vec_env(lambda: Broken(reward_at=5), n_envs)

    with pytest.raises(ValueError, match="a reward of the environment is not a finite number"):
        evaluate_paired(dqn(Broken()), make_env, 2)


@pytest.mark.parametrize("torch_checks", [True, False])
def test_teachers_that_cannot_act_on_what_they_see(torch_checks, monkeypatch):
    # As after torch.compile, which switches the checks of all distributions off
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", torch_checks)
    teacher = load_teacher(PPO("MlpPolicy", Broken(), n_steps=8, batch_size=8, device="cpu"), device="cpu")
    with pytest.raises(ValueError, match=r"cannot act, because observation\[1\] is nan"):
        teacher.predict(np.array([[0.0, np.nan, 0.0]], np.float32))


@pytest.mark.parametrize("algo", ["pd", "qpd", "ppd", "rtpd"])
@pytest.mark.parametrize("start", [-1, 1])
def test_numbers_that_do_not_count_from_zero(algo, start):
    shifted = spaces.Discrete(3, start=start)
    with pytest.raises(ValueError, match=rf"The environment's action_space is Discrete\(3, start={start}\), which"):
        make(algo, actions=shifted)
    with pytest.raises(ValueError, match=r"The environment's observation_space is Discrete.*TransformObservation"):
        make(algo, space=shifted)
    keys = spaces.Dict({"several": spaces.MultiDiscrete([3, 2], start=[start, 0])})
    with pytest.raises(ValueError, match=r"observation_space\['several'\] is MultiDiscrete.*does not count from 0"):
        make(algo, policy="MultiInputPolicy", space=keys)


def test_tasks_that_do_not_count_from_zero():
    gym.register("Shifted-v0", entry_point=lambda: Broken(actions=spaces.Discrete(3, start=1)))
    try:
        with pytest.raises(ValueError, match=r"The action_space of task 'Shifted-v0' is Discrete\(3, start=1\)"):
            gym.make("sb3_distill:MultiTask-v0", env_ids=["Shifted-v0"])
    finally:
        del gym.registry["Shifted-v0"]


PAIR = spaces.Tuple((VECTOR, spaces.Discrete(2)))


@pytest.mark.parametrize("space", [PAIR, spaces.Text(5), spaces.Dict(a=PAIR), spaces.Dict(a=spaces.Dict(b=VECTOR))])
@pytest.mark.parametrize("cls", ALGORITHMS[:4])
def test_observations_of_an_unknown_kind(cls, space):
    with pytest.raises(ValueError, match=r"observations are .*: Stable-Baselines3 takes Box, .*FlattenObservation"):
        cls("MlpPolicy", Broken(space))


def test_observations_of_an_unknown_kind_in_the_zoo(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [])
    gym.register("Pair-v0", entry_point=lambda: Broken(PAIR))
    try:
        assert status_of(["zoo", "train", "--algo", "pd", "--env", "Pair-v0", "-n", "10"]) == 2
    finally:
        del gym.registry["Pair-v0"]
    assert "FlattenObservation (env_wrapper in the Zoo)" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("cls", ALGORITHMS)
def test_without_an_environment(cls, tmp_path):
    policy = "MultiTaskMlpPolicy" if cls in (MultiTaskDistillation, MultiTaskDQN) else "MlpPolicy"
    with pytest.raises(ValueError, match=rf"{cls.__name__} needs an environment.*pass env="):
        cls(policy, None)
    with pytest.raises(ValueError, match=r"no environment to learn in: pass env= to load\(\), or call set_env\(env\)"):
        cls(policy, None, _init_setup_model=False).learn(10)


@pytest.mark.parametrize("algo", ["pd", "qpd", "ppd", "rtpd"])
def test_learning_on_without_an_environment(algo, tmp_path):
    make(algo).learn(30).save(tmp_path / "student")
    model = resolve(algo).load(tmp_path / "student")
    with pytest.raises(ValueError, match="no environment to learn in"):
        model.learn(10)
    model.set_env(Broken())
    if algo != "rtpd":
        model.teacher = dqn(Broken()) if algo == "pd" else PPO("MlpPolicy", Broken(), n_steps=8, batch_size=8)
    model.learn(10)


def test_environments_in_other_processes_that_have_no_tasks():
    env = make_vec_env("CartPole-v1", 1, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})
    with pytest.raises(ValueError, match="The environment has no tasks"):
        MultiTaskDistillation("MultiTaskMlpPolicy", env)
    env.close()


def test_actions_of_other_bounds():
    wide = spaces.Box(-2, 2, (1,))
    teacher = A2C("MlpPolicy", Broken(actions=spaces.Box(-1, 1, (1,))), seed=0, device="cpu")
    kwargs = {**QUICK, "n_teacher_episodes": 0}
    with pytest.raises(
        ValueError, match=r"actions from \[-1.0\] to \[1.0\], but .* from \[-2.0\] to \[2.0\].*mismatch"
    ):
        QPD("MlpPolicy", Broken(actions=wide), teacher, **kwargs)
    with pytest.warns(UserWarning, match=r"actions from \[-1.0\] to \[1.0\], but .* from \[-2.0\] to \[2.0\]"):
        QPD("MlpPolicy", Broken(actions=wide), teacher, allow_env_mismatch=True, **kwargs)


@pytest.mark.parametrize(
    "algorithm, actions, message",
    [
        (PolicyDistillation, spaces.Box(-1, 1, (1,)), r"PolicyDistillation needs Discrete actions.*QPD \(--algo qpd\)"),
        (PolicyDistillation, spaces.MultiBinary(2), "PolicyDistillation needs Discrete actions, .* or algorithm.$"),
        (QPD, spaces.MultiBinary(2), "QPD needs Discrete or Box actions, .*MultiBinary"),
    ],
)
def test_actions_for_which_there_are_no_students_are_named(algorithm, actions, message):
    with pytest.raises(ValueError, match=message):
        algorithm("MlpPolicy", Broken(actions=actions), "zoo:never/Read-v0", **QUICK)


@pytest.mark.parametrize("env", ["Pendulum-v1", gym.make("Pendulum-v1")])
def test_a_dqn_needs_discrete_actions(env):
    with pytest.raises(ValueError, match=r"RealTimeDistillDQN needs Discrete actions.*QPD \(--algo qpd\)"):
        RealTimeDistillDQN("MlpPolicy", env, {"small": "MlpPolicy"})
