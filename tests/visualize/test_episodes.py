"""Episodes that are played to be drawn."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from PIL import Image
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_distill import PolicyDistillation, load_teacher
from sb3_distill.base.students import student_model
from sb3_distill.visualize.activations import feature_maps
from sb3_distill.visualize.cli import main
from sb3_distill.visualize.episodes import play_episodes, see_again


def test_environments_without_pictures(monkeypatch):
    """They are closed all the same."""
    closed = []
    monkeypatch.setattr(CartPoleEnv, "close", lambda env: closed.append(env))
    gym.register("Blind-v0", entry_point=lambda render_mode=None: gym.make("CartPole-v1").unwrapped)
    try:
        agent = load_teacher(DQN("MlpPolicy", "Blind-v0", buffer_size=10), device="cpu")
        closed.clear()
        with pytest.raises(ValueError, match="Blind-v0 cannot be drawn: with render_mode='rgb_array' it renders no"):
            play_episodes(agent, "Blind-v0")
        assert len(closed) == 1
    finally:
        del gym.registry["Blind-v0"]


class Drawn(CartPoleEnv):
    """Renders what it is given."""

    frame = np.zeros((1, 1))

    def render(self):
        return self.frame


@pytest.mark.parametrize(
    "frame, first",
    [
        (np.full((10, 20, 3), 0.2), 51),
        (np.full((10, 20), 0.2), 51),
        (np.ones((10, 20, 3), bool), 255),
        (np.full((10, 20, 3), 51, np.int64), 51),
        (np.full((10, 20, 3), 51, np.uint8), 51),
    ],
)
def test_pictures_are_bytes_that_one_can_see(monkeypatch, frame, first):
    monkeypatch.setattr(Drawn, "frame", frame)
    gym.register("Drawn-v0", entry_point=Drawn)
    try:
        agent = load_teacher(DQN("MlpPolicy", "Drawn-v0", buffer_size=10), device="cpu")
        (episode,) = play_episodes(agent, "Drawn-v0", max_steps=2)
    finally:
        del gym.registry["Drawn-v0"]
    for picture in episode.frames:
        assert picture.dtype == np.uint8 and picture.shape == (160, 320, 3) and (picture == first).all()


def test_maps_of_grids(tmp_path):
    pytest.importorskip("minatar")
    with gym.make("MinAtar/Breakout-v1") as env:
        spaces = env.observation_space, env.action_space
    student_model("GridCnnPolicy", {}, *spaces, env_id="MinAtar/Breakout-v1").save(tmp_path / "student")
    outputs = [tmp_path / "maps.png", tmp_path / "maps.gif"]
    assert main(["maps", str(tmp_path / "student.zip"), "--max-steps", "5", "-o", *map(str, outputs)]) == 0
    for path in outputs:
        with Image.open(path) as picture:
            # The frame, four maps and their maximum, and the colour bar, side by side
            assert picture.width == 6 * (160 + 4) + 28
    assert main(["q-values", str(tmp_path / "student.zip"), "--max-steps", "9", "-o", str(tmp_path / "q.png")]) == 0


class DictCartPole(gym.ObservationWrapper):
    observation_space = gym.spaces.Dict({"state": CartPoleEnv().observation_space})

    def observation(self, observation):
        return {"state": observation}


@pytest.mark.parametrize("what", ["q-values", "tsne"])
def test_dict_observations_are_refused(what, tmp_path, capsys):
    gym.register("Dict-v0", lambda **kwargs: DictCartPole(CartPoleEnv(**kwargs)))
    try:
        DQN("MultiInputPolicy", "Dict-v0", buffer_size=10, device="cpu").save(tmp_path / "Dict-v0")
        assert main([what, str(tmp_path / "Dict-v0.zip"), "-o", str(tmp_path / "picture.png")]) == 1
    finally:
        del gym.registry["Dict-v0"]
    assert "Only agents that see one vector, grid or image can be drawn; Dict-v0 has" in capsys.readouterr().err


def test_maps_of_normalised_observations(tmp_path):
    class Grid(gym.Env):
        observation_space, action_space = gym.spaces.Box(-9, 9, (6, 6, 2)), gym.spaces.Discrete(3)

    env = VecNormalize(DummyVecEnv([Grid]))
    env.obs_rms.mean, env.obs_rms.var = np.full((6, 6, 2), 3.0), np.full((6, 6, 2), 4.0)
    student_model("GridCnnPolicy", {}, Grid.observation_space, Grid.action_space).save(tmp_path / "agent")
    raw = load_teacher(tmp_path / "agent.zip", device="cpu")
    env.save(str(tmp_path / "vecnormalize.pkl"))
    agent = load_teacher(tmp_path / "agent.zip", device="cpu")
    observations = np.random.default_rng(0).uniform(-9, 9, (5, 6, 6, 2)).astype(np.float32)
    expected = feature_maps(raw, env.normalize_obs(observations))
    for found, own in zip(feature_maps(agent, observations), expected, strict=True):
        assert np.allclose(found, own, atol=1e-5)


def test_help_of_the_verb(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0 and "in % of the teacher" in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def stacked_run(tmp_path):
    """A teacher with a memory, and the run of a student that sees four observations at once."""
    policy = {"lstm_hidden_size": 4, "net_arch": [4]}
    teacher = RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=8, policy_kwargs=policy, device="cpu")
    teacher.save(tmp_path / "CartPole-v1.zip")
    env = VecFrameStack(make_vec_env("CartPole-v1"), 4)
    kwargs = {"learning_starts": 10, "n_teacher_episodes": 0, "device": "cpu"}
    run = tmp_path / "pd" / "CartPole-v1_1"
    PolicyDistillation("MlpPolicy", env, tmp_path / "CartPole-v1.zip", **kwargs).learn(30).save(run / "CartPole-v1")
    (run / "CartPole-v1").mkdir()
    (run / "CartPole-v1" / "config.yml").write_text("frame_stack: 4\n")
    (run / "CartPole-v1" / "args.yml").write_text("algo: pd\nenv: CartPole-v1\n")
    return tmp_path / "CartPole-v1.zip", run


def test_a_student_sees_the_episode_in_its_own_way(stacked_run):
    teacher, student = (load_teacher(source, device="cpu") for source in stacked_run)
    (episode,) = play_episodes(teacher, "CartPole-v1", epsilon=0.5, seed=3)
    seen = see_again(student, teacher, "CartPole-v1", episode, seed=3)
    assert len(seen.observations) == len(episode.observations) > 4
    for step, observation in enumerate(seen.observations):
        newest = episode.observations[max(step - 3, 0) : step + 1]
        expected = np.concatenate([np.zeros(16 - 4 * len(newest), np.float32), *newest])
        assert np.array_equal(observation, expected)
    with pytest.raises(ValueError, match="is another one than that of the first agent: from the same start, the same"):
        see_again(student, teacher, "CartPole-v1", episode, seed=4)
    # A zip alone does not say otherwise, and one of a run that was made alike sees the same.
    assert see_again(load_teacher(stacked_run[0]), teacher, "CartPole-v1", episode) is episode
    assert see_again(student, student, "CartPole-v1", episode) is episode


def test_values_of_a_teacher_with_a_memory_beside_its_student(stacked_run, tmp_path):
    teacher, run = map(str, stacked_run)
    assert main(["q-values", teacher, run, "--max-steps", "9", "-o", str(tmp_path / "q.png")]) == 0
    assert (tmp_path / "q.png").is_file()
