"""A run that is stopped and goes on from its state ends with the same bits as one that was never stopped."""

import os
from enum import IntEnum
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from sb3_distill import MultiTaskDQN, PolicyDistillation
from sb3_distill.base.resume.resuming import RUN_STATE
from sb3_distill.buffers.recordings import Recording
from sb3_distill.common.files import partial_path
from sb3_distill.common.locks import InUseError, locked
from sb3_distill.envs.minatar import register_minatar
from sb3_distill.networks.frozen import hash_weights
from sb3_distill.state.file import StateFileError, read_state
from tests.mtpd.students import KWARGS as MTPD_KWARGS
from tests.mtpd.students import make as make_mtpd
from tests.ppd.students import make as make_ppd
from tests.qpd.students import KWARGS as QPD_KWARGS
from tests.qpd.students import make as make_qpd
from tests.rtpd.students import make as make_rtpd

TOTAL = 600
KWARGS = {
    "buffer_size": 300,
    "learning_starts": 100,
    "batch_size": 16,
    "n_teacher_episodes": 2,
    "device": "cpu",
    "seed": 0,
}
register_minatar()


class Stop(BaseCallback):
    """Ends a run as a power cut would: the run gets no chance to save anything."""

    def __init__(self, n_calls) -> None:
        super().__init__()
        self.calls = iter(range(n_calls - 1))

    def _on_step(self) -> bool:
        if next(self.calls, None) is None:
            raise SystemError("stopped")
        return True


def teacher_of(env, cls=DQN, **kwargs):
    return cls("MlpPolicy", env, seed=1, device="cpu", policy_kwargs={"net_arch": [16]}, **kwargs)


def cnn_teacher(env):
    return DQN("CnnPolicy", env, seed=1, device="cpu", buffer_size=10)


def pd(make_env, policy="MlpPolicy", teacher=teacher_of, **kwargs):
    return lambda: PolicyDistillation(policy, make_env(), teacher(make_env()), **{**KWARGS, **kwargs})


def cartpole(n_envs=2, vec_env_cls=DummyVecEnv):
    return lambda: make_vec_env("CartPole-v1", n_envs, seed=0, vec_env_cls=vec_env_cls)


def normalized():
    return VecNormalize(make_vec_env("CartPole-v1", 2, seed=0), norm_reward=False)


def pong():
    return VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=2, seed=0), 4)


def pong_in_processes():
    """These are not stepped natively."""
    return VecFrameStack(make_atari_env("ale_py:PongNoFrameskip-v4", 2, seed=0, vec_env_cls=SubprocVecEnv), 4)


def pendulum_qpd():
    env = make_vec_env("Pendulum-v1", 2, seed=0)
    return make_qpd(A2C("MlpPolicy", env, seed=1, device="cpu"), env, weight_bits=4, activation_bits=4)


def hopper_qpd():
    env = make_vec_env("Hopper-v5", 1, seed=0)
    return make_qpd(PPO("MlpPolicy", env, seed=1, device="cpu"), env)


def cartpole_qpd(**kwargs):
    return lambda: make_qpd(
        PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=1, device="cpu"),
        cartpole()(),
        **{**QPD_KWARGS, "weight_bits": 4, "activation_bits": 4, **kwargs},
    )


def ppd():
    teacher = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=1, device="cpu")
    return make_ppd(teacher, distill_coef="lin_1.0", n_teacher_episodes=2, n_steps=12, batch_size=8, weight_bits=4)


def pendulum_ppd():
    env = VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0))
    return make_ppd(A2C("MlpPolicy", "Pendulum-v1", seed=1, device="cpu"), env, n_steps=50, batch_size=20)


def mtpd():
    teachers = {task: teacher_of(task) for task in ("CartPole-v1", "Acrobot-v1")}
    env = make_vec_env("MultiTask-v0", 2, seed=0, env_kwargs={"env_ids": list(teachers), "pad": True})
    return make_mtpd(teachers, env, n_eval_episodes=2, eval_freq=250)


def mtdqn():
    env = make_vec_env("MultiTask-v0", 2, seed=0, env_kwargs={"env_ids": ["CartPole-v1", "Acrobot-v1"], "pad": True})
    return MultiTaskDQN(
        "MultiTaskMlpPolicy", env, learning_starts=100, seed=0, device="cpu", policy_kwargs=MTPD_KWARGS["policy_kwargs"]
    )


RUNS = {
    "pd": pd(cartpole()),
    "pd, one environment": pd(cartpole(1)),
    "pd, the student plays": pd(cartpole(), rollout_policy="linear", learning_rate=lambda progress: 1e-3 * progress),
    "pd, subprocesses": pd(cartpole(vec_env_cls=SubprocVecEnv)),
    "pd, VecNormalize": pd(normalized, rollout_policy="student"),
    "pd, MinAtar": pd(
        lambda: make_vec_env("MinAtar/Breakout-v1", 2, seed=0), "GridCnnPolicy", rollout_policy="student"
    ),
    "qpd": cartpole_qpd(),
    "qpd, Pendulum": pendulum_qpd,
    "ppd": ppd,
    "ppd, Pendulum, VecNormalize": pendulum_ppd,
    "rtpd": lambda: make_rtpd(env=cartpole(1)(), eval_freq=50, n_eval_episodes=2),
    "mtpd": mtpd,
    "mtdqn": mtdqn,
}
FAST = ("pd", "qpd", "ppd", "rtpd")
SLOW = {
    "pd, LunarLander": pd(lambda: make_vec_env("LunarLander-v3", 2, seed=0)),
    "pd, Pong": pd(pong, "Net3Policy", cnn_teacher),
    "pd, Pong in Python": pd(pong_in_processes, "Net3Policy", lambda env: cnn_teacher(pong())),
    "qpd, Hopper": hopper_qpd,
}


def weights_of(model):
    """The hash of all parameters, and of the optimizers' state."""
    return hash_weights(model.policy), repr(model.get_parameters()["policy.optimizer"])


def run(make, folder, stop=10_000):
    """Make a model, and let it learn or go on from the state in the folder; stop it before its end, if asked."""
    model = make()
    state = folder / RUN_STATE
    if state.exists():
        model.load_run_state(state)
    eval_env = make_vec_env("CartPole-v1", 2, seed=3)
    if model.get_vec_normalize_env() is not None:
        eval_env = VecNormalize(eval_env, training=False, norm_reward=False)
    evaluation = EvalCallback(eval_env, eval_freq=55, n_eval_episodes=3, verbose=0, log_path=str(folder))
    # Of other environments, the evaluations alone are not comparable.
    own = [evaluation] if model.get_env().observation_space == evaluation.eval_env.observation_space else []
    callbacks = [CheckpointCallback(70, folder), Stop(stop), *own]
    try:
        model.learn(TOTAL - model.num_timesteps, callbacks)
    except SystemError:
        pass
    finally:
        model.env.close()
        evaluation.eval_env.close()
    return model, evaluation.evaluations_results


@pytest.mark.parametrize("name", FAST)
def test_it_ends_with_the_same_bits(name, tmp_path):
    check_run(RUNS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(name for name in RUNS if name not in FAST), *SLOW])
def test_every_run_ends_with_the_same_bits(name, tmp_path):
    check_run({**RUNS, **SLOW}[name], tmp_path)


def check_run(make, folder):
    whole, evaluations = run(make, folder / "whole")
    # Twice, the second time soon after the first
    run(make, folder / "stopped", stop=130)
    run(make, folder / "stopped", stop=95)
    resumed, same_evaluations = run(make, folder / "stopped")
    assert resumed.num_timesteps == whole.num_timesteps == TOTAL
    assert weights_of(resumed) == weights_of(whole)
    assert resumed._n_updates == whole._n_updates
    assert np.array_equal(same_evaluations, evaluations)
    # As text, because a percentage can be NaN
    assert repr(getattr(resumed, "evaluations", None)) == repr(getattr(whole, "evaluations", None))


class Pictures(gym.Env):
    """Images of one bright pixel, which walks at random."""

    observation_space = gym.spaces.Box(0, 255, (1, 36, 36), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.show(), {}

    def step(self, action):
        self.steps += 1
        return self.show(), float(action), self.np_random.random() < 0.1, self.steps == 15, {}

    def show(self):
        image = np.zeros((1, 36, 36), np.uint8)
        row, column = self.np_random.integers(0, 36, 2)
        image[0, row, column] = 255
        return image


def with_angle():
    """The pictures and a number, under a key that is no name of a file."""
    space = spaces.Dict({"picture": Pictures.observation_space, "joint/angle": spaces.Box(0, 255, (1,))})
    return TransformObservation(Pictures(), lambda obs: {"picture": obs, "joint/angle": obs[0, :1, 0] / 1}, space)


def recorded(folder, shown):
    def make_env():
        if shown == "vectors":
            return cartpole()()
        return VecFrameStack(make_vec_env(Pictures if shown == "images" else with_angle, 2, seed=0), 2)

    kwargs = {**KWARGS, "n_teacher_episodes": 0, "recording": folder / "recording"}
    policy = {"vectors": "MlpPolicy", "images": "CnnPolicy", "Dict": "MultiInputPolicy"}[shown]
    teacher = DQN(policy, make_env(), seed=1, device="cpu", buffer_size=10)
    return lambda: PolicyDistillation(policy.replace("Cnn", "Net3"), make_env(), teacher, **kwargs)


@pytest.mark.parametrize("shown", ["vectors", "images", "Dict"])
def test_a_recording_is_finished_and_read(shown, tmp_path):
    whole, _ = run(recorded(tmp_path / "whole", shown), tmp_path / "whole")
    make = recorded(tmp_path / "stopped", shown)
    run(make, tmp_path / "stopped", stop=130)
    # The second time before another state is written
    run(make, tmp_path / "stopped", stop=20)
    resumed, _ = run(make, tmp_path / "stopped")
    assert weights_of(resumed) == weights_of(whole)
    first, second = (Recording(tmp_path / name / "recording") for name in ("whole", "stopped"))
    assert first.n_rows == second.n_rows == TOTAL // 2
    for row in range(first.n_rows):
        assert repr(first.observations(row)) == repr(second.observations(row))
    assert not list(tmp_path.rglob("*.partial"))
    # What a killed run had recorded, before another one finished, is removed by the next one.
    (tmp_path / "stopped" / partial_path(Path("recording")).name.replace(str(os.getpid()), "99999999")).mkdir()
    # Readers go on, too.
    (tmp_path / "stopped" / RUN_STATE).unlink()
    run(make, tmp_path / "stopped", stop=130)
    reader, _ = run(make, tmp_path / "stopped")
    assert weights_of(reader) == weights_of(whole)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_state_goes_with_its_checkpoint(tmp_path):
    model = RUNS["pd"]()
    best = tmp_path / "best"
    evaluation = EvalCallback(make_vec_env("CartPole-v1", 1, seed=3), best_model_save_path=str(best), eval_freq=50)
    model.learn(200, [CheckpointCallback(40, tmp_path), evaluation])
    # The best model is none from which one goes on.
    assert (best / "best_model.zip").exists() and not (best / RUN_STATE).exists()
    # The last checkpoint is that of the end, and has no rollout after it.
    state = read_state(tmp_path / RUN_STATE)
    assert state["attributes"]["num_timesteps"] == 160 and state["total_timesteps"] == 200
    # Elsewhere, the last model says nothing of this folder.
    model.save(tmp_path / "elsewhere" / "model")
    assert (tmp_path / RUN_STATE).exists()
    model.save(tmp_path / "model")
    assert not (tmp_path / RUN_STATE).exists()
    assert sorted(path.suffix for path in tmp_path.glob("*")) == ["", "", ".zip", ".zip", ".zip"]


def test_runs_go_on_after_their_end(tmp_path):
    """As learn() after learn() does, in another process."""
    whole = RUNS["pd"]()
    whole.learn(300).save_run_state(tmp_path / "state.zip")
    whole.learn(300, reset_num_timesteps=False)
    resumed = RUNS["pd"]()
    resumed.load_run_state(tmp_path / "state.zip")
    resumed.learn(300, reset_num_timesteps=False)
    assert weights_of(resumed) == weights_of(whole)


def test_a_state_of_another_run_is_refused(tmp_path):
    RUNS["pd"]().learn(120).save_run_state(tmp_path / "state.zip")
    with pytest.raises(StateFileError, match="its n envs is 2, and that of this model is 1"):
        RUNS["pd, one environment"]().load_run_state(tmp_path / "state.zip")
    with pytest.raises(StateFileError, match="its algorithm is PolicyDistillation, and that of this model is QPD"):
        RUNS["qpd"]().load_run_state(tmp_path / "state.zip")
    with pytest.raises(StateFileError, match="does not fit this model"):
        pd(cartpole(), policy_kwargs={"net_arch": [3]})().load_run_state(tmp_path / "state.zip")
    with pytest.raises(FileNotFoundError):
        RUNS["pd"]().load_run_state(tmp_path / "nothing.zip")
    (tmp_path / "damaged.zip").write_bytes((tmp_path / "state.zip").read_bytes()[:5000])
    with pytest.raises(StateFileError, match="damaged"):
        RUNS["pd"]().load_run_state(tmp_path / "damaged.zip")


class Moody(gym.Wrapper):
    """Depends on something that no generator of its own says."""

    moods = iter(range(10**6))

    def step(self, action):
        obs, *rest = self.env.step(action)
        return obs + next(self.moods) % 97, *rest


def test_episodes_that_cannot_be_restored_are_said_to_be_lost(tmp_path):
    make = pd(lambda: make_vec_env("CartPole-v1", 2, seed=0, wrapper_class=Moody))
    run(make, tmp_path, stop=130)
    model = make()
    model.load_run_state(tmp_path / RUN_STATE)
    with pytest.warns(UserWarning, match="could not be restored .* the episodes under way are lost"):
        model.learn(TOTAL - model.num_timesteps)
    assert model.num_timesteps == TOTAL and model._n_updates == 63


def test_a_model_that_is_only_looked_at_leaves_its_state_there(tmp_path):
    run(RUNS["pd"], tmp_path, stop=130)
    model = RUNS["pd"]()
    model.load_run_state(tmp_path / RUN_STATE)
    model.save(tmp_path / "peek")
    assert (tmp_path / RUN_STATE).exists()


def test_a_run_that_is_refused_has_not_lost_its_state(tmp_path):
    run(RUNS["pd"], tmp_path, stop=130)
    model = RUNS["pd"]()
    model.load_run_state(tmp_path / RUN_STATE)
    with locked(tmp_path, "saves its models"), pytest.raises(InUseError):
        model.learn(TOTAL - model.num_timesteps, CheckpointCallback(70, tmp_path))
    model.learn(TOTAL - model.num_timesteps, CheckpointCallback(70, tmp_path))
    assert model.num_timesteps == TOTAL


class Mode(IntEnum):
    """A number that is an object, too."""

    FAST = 1


class TwoImages(gym.Env):
    """Images of two sizes, and an attribute that no state file holds."""

    observation_space = gym.spaces.Dict(
        {size: gym.spaces.Box(0, 255, (1, int(size), int(size)), np.uint8) for size in ("36", "40")}
    )
    action_space = gym.spaces.Discrete(2)
    mode = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.mode = Mode.FAST
        return self.show(), {}

    def step(self, action):
        return self.show(), 1.0, self.np_random.random() < 0.1, False, {}

    def show(self):
        return {
            key: self.np_random.integers(0, 255, space.shape, np.uint8)
            for key, space in self.observation_space.spaces.items()
        }


def test_images_of_two_sizes_and_numbers_that_are_objects(tmp_path):
    def make():
        env, other = (make_vec_env(TwoImages, 1, seed=0) for _ in range(2))
        teacher = DQN("MultiInputPolicy", other, seed=1, device="cpu", buffer_size=10)
        return PolicyDistillation("MultiInputPolicy", env, teacher, **{**KWARGS, "n_teacher_episodes": 0})

    whole = make()
    whole.learn(150).save_run_state(tmp_path / "state.zip")
    whole.learn(50, reset_num_timesteps=False)
    resumed = make()
    resumed.load_run_state(tmp_path / "state.zip")
    rows, envs = np.arange(150), np.zeros(150, int)
    for key, store in whole.replay_buffer.stores.items():
        assert np.array_equal(store[rows, envs], resumed.replay_buffer.stores[key][rows, envs])
    resumed.learn(50, reset_num_timesteps=False)
    assert weights_of(resumed) == weights_of(whole)
