"""A run that is stopped and goes on from its state ends with the same bits as one that was never stopped."""

import numpy as np
import pytest
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from sb3_distill import MultiTaskDQN, PolicyDistillation
from sb3_distill.base.resuming import RUN_STATE
from sb3_distill.envs.minatar import register_minatar
from sb3_distill.networks.frozen import hash_weights
from tests.mtpd.students import KWARGS as MTPD_KWARGS
from tests.mtpd.students import make as make_mtpd
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
    "rtpd": lambda: make_rtpd(env=cartpole(1)(), eval_freq=50, n_eval_episodes=2),
    "mtpd": mtpd,
    "mtdqn": mtdqn,
}
SLOW = {
    "pd, LunarLander": pd(lambda: make_vec_env("LunarLander-v3", 2, seed=0)),
    "pd, Pong": pd(pong, "Net3Policy", cnn_teacher),
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
    evaluation = EvalCallback(make_vec_env("CartPole-v1", 2, seed=3), eval_freq=55, n_eval_episodes=3, verbose=0)
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


@pytest.mark.parametrize("name", ["pd", "qpd", "rtpd"])
def test_it_ends_with_the_same_bits(name, tmp_path):
    check_run(RUNS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(name for name in RUNS if name not in ("pd", "qpd", "rtpd")), *SLOW])
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
