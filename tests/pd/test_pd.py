"""What must hold of PolicyDistillation, beside what it learns."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import QRDQN, TRPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_distill import PolicyDistillation, load_teacher
from tests.helpers import preferences

QUICK = {"n_teacher_episodes": 0, "learning_starts": 32, "device": "cpu", "policy_kwargs": {"net_arch": [16]}}


@pytest.fixture(scope="module")
def teacher():
    """A DQN whose preferences depend on the observation; what it scores does not matter here."""
    return DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [32]}, seed=3, device="cpu", buffer_size=10)


def make(teacher, env="CartPole-v1", policy="MlpPolicy", seed=0, **kwargs):
    return PolicyDistillation(policy, env, teacher=teacher, seed=seed, **{**QUICK, **kwargs})


def state_of(model):
    parameters = model.get_parameters()
    optimizer = parameters["policy.optimizer"]["state"]
    tensors = {f"policy.{key}": value for key, value in parameters["policy"].items()}
    for index, entries in optimizer.items():
        tensors.update({f"optimizer.{index}.{key}": th.as_tensor(value) for key, value in entries.items()})
    return tensors


def assert_same_bits(first, second):
    first, second = state_of(first), state_of(second)
    assert first.keys() == second.keys()
    for key in first:
        assert th.equal(first[key], second[key]), key


@pytest.mark.parametrize("loss", ["kl", "reverse_kl", "nll", "mse"])
def test_every_loss_brings_the_student_to_the_teachers_actions(teacher, loss):
    # With a temperature of 1 the reverse divergence has a gradient everywhere.
    model = make(teacher, loss=loss, temperature=0.05, student_temperature=0.05, gradient_steps=4)
    model.learn(700)
    obs = np.concatenate([model.replay_buffer.sample(500).observations.numpy()])
    ours, _ = model.predict(obs, deterministic=True)
    theirs, _ = teacher.predict(obs, deterministic=True)
    assert (ours == theirs).mean() > 0.9


@pytest.mark.parametrize(
    ("algorithm", "rollout_policy"),
    [
        *((algorithm, "linear") for algorithm in (DQN, QRDQN, PPO, A2C, TRPO)),
        *((DQN, policy) for policy in ("teacher", "student", lambda progress: 0.5 * progress)),
    ],
)
def test_teachers_of_every_algorithm_under_every_rollout_policy(algorithm, rollout_policy):
    teacher = algorithm("MlpPolicy", "CartPole-v1", device="cpu", seed=0)
    model = make(teacher, rollout_policy=rollout_policy).learn(200)
    assert model._n_updates > 0
    samples = model.replay_buffer.sample(20)
    expected = preferences(load_teacher(teacher, device="cpu"), samples.observations)
    assert th.allclose(samples.answers.preferences, expected, atol=1e-5)


def test_same_seed_same_bits(teacher):
    runs = [make(teacher, seed=7, rollout_policy="linear").learn(400) for _ in range(2)]
    assert_same_bits(*runs)
    other = make(teacher, seed=8, rollout_policy="linear").learn(400)
    assert not th.equal(runs[0].policy.q_net.q_net[0].weight, other.policy.q_net.q_net[0].weight)


def test_who_acts(teacher):
    """Without random actions the visited states are those of whoever acts."""

    class Recorder(BaseCallback):
        def __init__(self):
            super().__init__()
            self.agreed = []

        def _on_step(self):
            actions = self.locals["actions"]
            teachers, _ = teacher.predict(self.model._last_obs, deterministic=True)
            students, _ = self.model.predict(self.model._last_obs, deterministic=True)
            self.agreed.append(((actions == teachers).all(), (actions == students).all()))
            return True

    for rollout_policy, column in (("teacher", 0), ("student", 1)):
        recorder = Recorder()
        make(teacher, rollout_policy=rollout_policy, teacher_eps=0.0, student_eps=0.0, gradient_steps=1).learn(
            200, callback=recorder
        )
        agreed = np.array(recorder.agreed)
        assert agreed[:, column].all()
        assert not agreed[:, 1 - column].all()


def test_share_of_random_actions(teacher):
    class Counter(BaseCallback):
        n_other = 0

        def _on_step(self):
            teachers, _ = teacher.predict(self.model._last_obs, deterministic=True)
            self.n_other += (self.locals["actions"] != teachers).sum()
            return True

    counter = Counter()
    make(teacher, make_vec_env("CartPole-v1", 4), teacher_eps=0.5, gradient_steps=1, learning_starts=10_000).learn(
        3_000, callback=counter
    )
    # Half of the actions are random and half of those differ from the teacher's, of two.
    assert counter.n_other / 3_000 == pytest.approx(0.25, abs=0.03)


def test_save_and_load_without_the_teacher(teacher, tmp_path):
    model = make(teacher, temperature=0.02, loss="reverse_kl").learn(300)
    model.save(tmp_path / "student")
    loaded = PolicyDistillation.load(tmp_path / "student", device="cpu")
    assert loaded.teacher is None and loaded.teacher_sha256 == load_teacher(teacher).sha256
    assert (loaded.loss, loaded.temperature) == ("reverse_kl", 0.02)
    assert_same_bits(model, loaded)
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert np.array_equal(model.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])


def test_the_zip_holds_the_student_alone(teacher, tmp_path):
    model = make(teacher).learn(100)
    model.save(tmp_path / "student")
    # 4 x 16 + 16 + 16 x 2 + 2 parameters, twice more in Adam, against 226 and more of the teacher
    assert model.policy.n_parameters == 114
    weights = PolicyDistillation.load(tmp_path / "student", device="cpu").get_parameters()["policy"]
    assert sum(value.numel() for value in weights.values()) == 114
    assert (tmp_path / "student.zip").stat().st_size < 60_000


def test_resume_with_the_teacher_given_again(teacher, tmp_path):
    model = make(teacher).learn(200)
    n_updates = model._n_updates
    model.save(tmp_path / "student")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = PolicyDistillation.load(
        tmp_path / "student", env=make_vec_env("CartPole-v1", 1), teacher=teacher, device="cpu"
    )
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer.size() == model.replay_buffer.size()
    loaded.learn(100, reset_num_timesteps=False)
    assert loaded.num_timesteps == model.num_timesteps + 100
    assert loaded._n_updates > n_updates


def test_resume_finds_the_saved_teacher_again(teacher, tmp_path):
    teacher.save(tmp_path / "teacher")
    make(tmp_path / "teacher.zip").learn(100).save(tmp_path / "student")
    loaded = PolicyDistillation.load(tmp_path / "student", env=make_vec_env("CartPole-v1", 1), device="cpu")
    loaded.learn(100)
    assert loaded._teacher.source == str(tmp_path / "teacher.zip")


def test_a_teacher_in_memory_must_be_given_again(teacher, tmp_path):
    make(teacher).learn(64).save(tmp_path / "student")
    loaded = PolicyDistillation.load(tmp_path / "student", env=make_vec_env("CartPole-v1", 1), device="cpu")
    with pytest.raises(ValueError, match=r"pass teacher=\.\.\. \(in the Zoo: -params teacher:\.\.\.\) to go on"):
        loaded.learn(64)


def test_another_teacher_is_noticed(teacher, tmp_path):
    make(teacher).learn(100).save(tmp_path / "student")
    other = DQN("MlpPolicy", "CartPole-v1", seed=4, device="cpu", buffer_size=10)
    loaded = PolicyDistillation.load(
        tmp_path / "student", env=make_vec_env("CartPole-v1", 1), teacher=other, device="cpu"
    )
    with pytest.warns(UserWarning, match="goes on with another one"):
        loaded.learn(64)


def test_learning_in_two_parts_goes_on(teacher):
    model = make(teacher).learn(100)
    model.learn(100, reset_num_timesteps=False)
    assert model.num_timesteps == 200
    assert model.replay_buffer.size() == 200


def test_get_and_set_parameters(teacher):
    model, other = make(teacher, seed=1).learn(64), make(teacher, seed=2)
    other.set_parameters(model.get_parameters())
    assert_same_bits(model, other)


@pytest.mark.parametrize("vec_env_cls", [DummyVecEnv, SubprocVecEnv])
def test_several_environments(teacher, vec_env_cls):
    processes = {"vec_env_kwargs": {"start_method": "fork"}} if vec_env_cls is SubprocVecEnv else {}
    env = make_vec_env("CartPole-v1", 3, vec_env_cls=vec_env_cls, **processes)
    model = make(teacher, env).learn(300)
    assert model.replay_buffer.size() == 100
    env.close()


def test_set_env_and_predict_shapes(teacher):
    model = make(teacher).learn(64)
    model.set_env(make_vec_env("CartPole-v1", 1))
    model.learn(64)
    obs = np.zeros((5, 4), np.float32)
    assert model.predict(obs)[0].shape == (5,)
    assert model.predict(obs[0], deterministic=True)[0].shape == ()


def test_predict_takes_random_actions_only_when_asked(teacher):
    model = make(teacher, student_eps=1.0)
    obs = np.zeros((1000, 4), np.float32)
    assert len(set(model.predict(obs, deterministic=True)[0])) == 1
    assert model.predict(obs, deterministic=False)[0].mean() == pytest.approx(0.5, abs=0.08)


def test_normalised_student_environment_gives_the_teacher_raw_observations(teacher):
    env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=0))
    model = make(teacher, env).learn(200)
    stored = model.replay_buffer.stores[""][: model.replay_buffer.pos].reshape(-1, 4)
    logits = model.replay_buffer.answers["q_values"][: model.replay_buffer.pos].reshape(-1, 2)
    expected = preferences(load_teacher(teacher), th.tensor(stored)).numpy()
    assert np.allclose(logits, expected, atol=1e-5)
    assert not np.allclose(model.replay_buffer.sample(500, env=env).observations.std(), stored.std(), rtol=0.05)


def test_a_teacher_scores_the_same_behind_normalisation(teacher):
    scores = []
    for env in (make_vec_env("CartPole-v1", 2, seed=0), VecNormalize(make_vec_env("CartPole-v1", 2, seed=0))):
        model = make(teacher, env, n_teacher_episodes=4, learning_starts=100).learn(8)
        scores.append(model._reference.mean_reward)
        assert np.abs(model.replay_buffer.stores[""][0]).max() < 0.05  # where CartPole starts
    assert scores[0] == scores[1]


def test_dict_observations():
    def make_env():
        return Monitor(SimpleMultiObsEnv(random_start=False))

    teacher = DQN("MultiInputPolicy", make_env(), device="cpu", buffer_size=10)
    model = make(teacher, make_env(), policy="MultiInputPolicy").learn(100)
    assert set(model.replay_buffer.sample(3).observations) == {"vec", "img"}


def test_callbacks_of_every_form(teacher, tmp_path):
    seen = []
    make(teacher).learn(48, callback=lambda locals_, globals_: seen.append(1) or True)
    assert len(seen) == 48
    make(teacher).learn(48, callback=[CheckpointCallback(24, str(tmp_path)), CheckpointCallback(48, str(tmp_path))])
    assert (tmp_path / "rl_model_24_steps.zip").exists()
    model = make(teacher).learn(48, callback=lambda locals_, globals_: False)
    assert model.num_timesteps == 1
    make(teacher).learn(64, progress_bar=True, log_interval=None)


def test_logs_and_percent_of_the_teacher(teacher, tmp_path, capsys):
    eval_env = make_vec_env("CartPole-v1", 1)
    model = make(teacher, n_teacher_episodes=3, verbose=1)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(400, callback=EvalCallback(eval_env, eval_freq=100, n_eval_episodes=2, verbose=0))
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert {
        "teacher/mean_reward",
        "teacher/std_reward",
        "eval/mean_reward",
        "eval/percent_of_teacher",
        "rollout/ep_rew_mean",
        "rollout/percent_of_teacher",
        "train/loss",
        "train/distill_loss",
        "train/agreement",
        "train/learning_rate",
        "train/n_updates",
        "time/fps",
    } <= set(header)
    printed = capsys.readouterr().out
    assert "Teacher (" in printed and "% of the teacher" in printed


def test_a_resumed_run_waits_for_data_again(teacher, tmp_path):
    make(teacher, learning_starts=40).learn(100).save(tmp_path / "student")
    loaded = PolicyDistillation.load(
        tmp_path / "student", env=make_vec_env("CartPole-v1", 1), teacher=teacher, device="cpu"
    )
    n_updates = loaded._n_updates
    loaded.learn(36, reset_num_timesteps=False)
    assert loaded._n_updates == n_updates


def test_rmsprop(teacher):
    kwargs = {"net_arch": [16], "optimizer_class": th.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.95}}
    model = make(teacher, policy_kwargs=kwargs).learn(100)
    assert isinstance(model.policy.optimizer, th.optim.RMSprop)


class FloatImages(gym.Env):
    observation_space = spaces.Box(0, 1, (4, 84, 84), np.float32)
    action_space = spaces.Discrete(2)


class Continuous(gym.Env):
    observation_space = spaces.Box(-1, 1, (4,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "k1"}, "Unknown loss 'k1'.*kl, reverse_kl, nll, mse"),
        ({"policy": "Net1Polcy"}, "Unknown policy.*Did you mean 'Net1Policy'"),
        ({"rollout_policy": "teecher"}, "Unknown rollout_policy.*Did you mean 'teacher'"),
        ({"temperature": 0}, "temperature must be a positive finite number"),
        ({"student_temperature": -1.0}, "student_temperature must be a positive finite number"),
        ({"teacher_eps": 1.5}, r"teacher_eps is a probability.*\[0, 1\], not 1.5"),
        ({"student_eps": -0.1}, "student_eps is a probability"),
        ({"env": "Acrobot-v1"}, "chooses among 2 actions"),
        ({"env": "MountainCar-v0"}, "chooses among 2 actions"),
        ({"policy": "CnnPolicy"}, "Use 'MlpPolicy' for vectors"),
        ({"env": FloatImages(), "policy": "CnnPolicy"}, "keep images as bytes"),
        ({"env": Continuous()}, "Discrete"),
    ],
)
def test_bad_arguments_are_named_at_construction(teacher, change, message):
    with pytest.raises((ValueError, AssertionError), match=message):
        make(**{"teacher": teacher, **change})


@pytest.mark.skipif(th.cuda.is_available(), reason="a CUDA device is there")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", th.device("cuda")])
def test_missing_cuda_device(teacher, device):
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        make(teacher, device=device)


def test_teacher_of_another_environment(teacher, tmp_path):
    class Renamed(gym.Wrapper):
        pass

    gym.register("AnotherCartPole-v0", entry_point=lambda: gym.make("CartPole-v1").unwrapped)
    try:
        with pytest.raises(ValueError, match=r"trained on CartPole-v1.*AnotherCartPole-v0.*allow_env_mismatch=True"):
            make(teacher, "AnotherCartPole-v0")
        make(teacher, "AnotherCartPole-v0", allow_env_mismatch=True).learn(64)
    finally:
        del gym.registry["AnotherCartPole-v0"]


def test_teacher_that_sees_other_observations():
    teacher = DQN("MlpPolicy", "Acrobot-v1", device="cpu", buffer_size=10)
    with pytest.raises(ValueError, match=r"differ in their observations: the shape \(6,\) against \(2,\)"):
        make(teacher, "MountainCar-v0", allow_env_mismatch=True)


def test_teacher_that_sees_another_stack():
    def images(n_channels):
        return FakeImageEnv(screen_height=40, screen_width=40, n_channels=n_channels, channel_first=True)

    teacher = DQN("CnnPolicy", images(4), device="cpu", buffer_size=10)
    with pytest.raises(ValueError, match=r"\(4, 40, 40\) against \(2, 40, 40\).*`frame_stack: 4`"):
        make(teacher, images(2), policy="CnnPolicy", policy_kwargs={})


def test_continuous_teacher():
    teacher = PPO("MlpPolicy", "Pendulum-v1", device="cpu")
    with pytest.raises(ValueError, match="needs Discrete actions"):
        make(teacher)


def test_no_teacher_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RL_TRAINED_AGENTS", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="CartPole-v1"):
        make(None)


def test_progress_bar_moves_through_long_updates(teacher, capfd):
    make(teacher, train_freq=100, gradient_steps=300).learn(200, progress_bar=True)
    assert "update 300 of 300" in "".join(capfd.readouterr())


def test_colour_images_without_a_stack_are_one_frame_each():
    env = make_vec_env(lambda: FakeImageEnv(screen_height=36, screen_width=36, n_channels=3), 1)
    teacher = PPO("CnnPolicy", env, n_steps=8, batch_size=8, seed=0, device="cpu")
    kwargs = {"buffer_size": 60, "learning_starts": 80, "n_teacher_episodes": 0, "seed": 0, "device": "cpu"}
    model = PolicyDistillation("CnnPolicy", env, teacher, **kwargs).learn(100)
    assert model.replay_buffer.size() == 60 and model._n_updates > 0
