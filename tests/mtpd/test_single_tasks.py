"""Students of one task that are cut out of those of several."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from sb3_distill import MultiTaskDistillation, PolicyDistillation, RealTimeDistillDQN, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.base.students import student_model
from sb3_distill.cli import main
from sb3_distill.envs.multitask import pad_last_axis
from sb3_distill.evaluation.tasks import score_tasks
from sb3_distill.visualize.tsne import activations_of, choose_layer
from tests.envs.tasks import IDS
from tests.helpers import preferences
from tests.mtpd.students import make


def test_a_single_task_is_cut_out(teachers, tmp_path: Path):
    model = make(teachers).learn(300)
    for index, (name, length) in enumerate(zip(IDS, (4, 2), strict=True)):
        model.task(name).save(tmp_path / name)
        obs = np.random.default_rng(0).normal(size=(50, length)).astype(np.float32)
        padded = {"obs": np.pad(obs, ((0, 0), (0, 4 - length))), "task": np.full(50, index)}
        expected = model.predict(padded, deterministic=True)[0]
        single = PolicyDistillation.load(tmp_path / name, device="cpu")
        assert np.array_equal(single.predict(obs, deterministic=True)[0], expected)
        assert np.array_equal(load_teacher(tmp_path / f"{name}.zip", device="cpu").predict(obs)[0], expected)
    with pytest.raises(ValueError, match=r"Unknown task 'CartPole'.*Did you mean 'CartPole-v1'"):
        model.task("CartPole")


def test_a_single_task_knows_its_environment(teachers, tmp_path: Path, capsys):
    """Also in the run folder of the Zoo, where the settings are those of all tasks."""
    settings = tmp_path / "mtpd" / "MultiTask-v0_1" / "MultiTask-v0"
    settings.mkdir(parents=True)
    (settings / "args.yml").write_text("algo: mtpd\nenv: MultiTask-v0\nenv_kwargs: {env_ids: [A, B], pad: true}\n")
    (settings / "config.yml").write_text("policy: MultiTaskMlpPolicy\nframe_stack: 3\n")
    model = make(teachers).learn(300)
    model.save(settings.parent / "MultiTask-v0")
    for folder in (tmp_path, settings.parent):
        for name in IDS:
            model.task(name).save(folder / name[:4])
        tasks = [str(folder / f"{name[:4]}.zip") for name in IDS]
        for name, path in zip(IDS, tasks, strict=True):
            facts = load_teacher(path, device="cpu").facts
            assert (facts.env_id, facts.recipe, facts.recorded_score) == (name, None, None)
    assert main(["evaluate", tasks[0], "-n", "1"]) == 0
    pytest.importorskip("sklearn")
    options = ["--points", "30", "--max-steps", "40", "-o", str(tmp_path / "tsne.png")]
    assert main(["visualize", "tsne", *tasks, *options]) == 0
    assert (tmp_path / "tsne.png").is_file()
    assert main(["visualize", "tsne", *tasks, "--layers", "first", "shared", "last", *options]) == 0
    # Files of earlier versions do not say it.
    older = [model.task(name) for name in IDS]
    for name, own in zip(IDS, older, strict=True):
        own.env_id = None
        own.save(tmp_path / name[:4])
    tasks = [str(tmp_path / f"{name[:4]}.zip") for name in IDS]
    assert main(["visualize", "tsne", *tasks, *options]) == 1
    assert "name it with --env" in capsys.readouterr().err
    assert main(["visualize", "tsne", *tasks, "--env", *IDS, *options]) == 0
    assert main(["visualize", "tsne", *tasks, "--env", IDS[0], *options]) == 1
    assert "--env names 1 environment for 2 agents: name one for each" in capsys.readouterr().err


def test_students_know_their_environment(cartpole_teacher, tmp_path: Path):
    model = PolicyDistillation("MlpPolicy", "CartPole-v1", cartpole_teacher, n_teacher_episodes=0, device="cpu")
    model.learn(10).save(tmp_path / "student")
    students = RealTimeDistillDQN("MlpPolicy", "CartPole-v1", ["MlpPolicy"], buffer_size=10, device="cpu")
    students.student_model("mlp").save(tmp_path / "beside")
    for name in ("student", "beside"):
        assert load_teacher(tmp_path / f"{name}.zip", device="cpu").env_id == "CartPole-v1"


def test_grids_are_padded_and_cut_out(tmp_path: Path):
    pytest.importorskip("minatar")
    ids = ["MinAtar/Breakout-v1", "MinAtar/SpaceInvaders-v1"]
    env = make_vec_env("MultiTask-v0", 2, seed=0, env_kwargs={"env_ids": ids, "pad": True})
    assert env.observation_space["obs"] == spaces.Box(0, 1, (10, 10, 6), np.bool_)
    assert not env.reset()["obs"][..., 4:].any()
    sources = {}
    for env_id in ids:
        teacher = RealTimeDistillDQN("GridCnnPolicy", env_id, buffer_size=100, seed=0, device="cpu")
        teacher.save(tmp_path / env_id.split("/")[1])
        sources[env_id] = tmp_path / f"{env_id.split('/')[1]}.zip"
    kwargs = {"learning_starts": 50, "buffer_size": 200, "n_eval_episodes": 0, "seed": 0, "device": "cpu"}
    model = MultiTaskDistillation("MultiTaskGridCnnPolicy", env, sources, **kwargs).learn(200)
    rng = np.random.default_rng(0)
    for index, (env_id, channels) in enumerate(zip(ids, (4, 6), strict=True)):
        obs = rng.random((30, 10, 10, channels)) < 0.2
        padded = {"obs": pad_last_axis(obs, 6), "task": np.full(30, index)}
        expected = model.predict(padded, deterministic=True)[0]
        assert np.array_equal(model.task(env_id).predict(obs, deterministic=True)[0], expected)
    assert set(score_tasks(model._teacher.tasks, model.policy, 1)) == set(ids)
    # Flattened, the padding lies between the entries.
    flat = MultiTaskDistillation("MultiTaskMlpPolicy", env, sources, **kwargs)
    obs = rng.random((30, 10, 10, 4)) < 0.2
    padded = {"obs": th.as_tensor(pad_last_axis(obs, 6)), "task": th.zeros(30)}
    own = preferences(flat.task(ids[0]).policy, th.as_tensor(obs))
    assert th.allclose(own, preferences(flat.policy, padded)[:, : own.shape[1]], atol=1e-5)
    with pytest.raises(ValueError, match="of one type can be padded"):
        gym.make("MultiTask-v0", env_ids=["MinAtar/Breakout-v1", "CartPole-v1"], pad=True)


def test_image_students_standardise_over_all_games(tmp_path: Path):
    games = {"Pong": 6, "Freeway": 3}
    sources = {}
    for game in games:
        env = make_vec_env("MultiTaskAtari-v0", env_kwargs={"games": [game]})
        space, actions = env.observation_space["obs"], env.action_space
        student = student_model("Net5Policy", {}, space, actions, "cpu")
        student.save(tmp_path / game)
        sources[game] = tmp_path / f"{game}.zip"
    env = make_vec_env("MultiTaskAtari-v0", 2, env_kwargs={"games": list(games)})
    model = MultiTaskDistillation(
        "MultiTaskCnnPolicy",
        env,
        sources,
        policy_kwargs={"features_extractor_kwargs": {"channels": (8, 8, 8), "features_dim": 16}, "net_arch": [8]},
        learning_starts=20,
        buffer_size=100,
        n_eval_episodes=0,
        device="cpu",
        seed=0,
    ).learn(60)
    assert bool(model.policy.q_net.features_extractor.scaler.fitted) and model._n_updates > 0
    assert model.replay_buffer.has_all_tasks
    model.task("Pong").save(tmp_path / "single")
    frames = np.random.default_rng(0).integers(0, 255, size=(4, 4, 84, 84), dtype=np.uint8)
    expected = model.predict({"obs": frames, "task": np.zeros(4, int)}, deterministic=True)[0]
    assert np.array_equal(load_teacher(tmp_path / "single.zip", device="cpu").predict(frames)[0], expected)


@pytest.mark.parametrize(("trunk", "n_shared"), [([16], 1), ([16, 12], 2)])
def test_the_shared_layer_of_tasks_is_the_last_of_the_trunk(teachers, trunk, n_shared):
    """The controllers' hidden layers are each task's own. MountainCar's observations are shorter than CartPole's."""
    kwargs = {"policy_kwargs": {"trunk_arch": trunk, "net_arch": [8]}}
    model = make(teachers, **kwargs).learn(300)
    tasks = [load_teacher(model.task(name), device="cpu") for name in IDS]
    assert choose_layer(tasks, "shared") == n_shared - 1
    obs = np.zeros((5, 4), np.float32)
    (shared,) = activations_of(tasks[0], obs, [n_shared - 1])
    padded = {"obs": th.as_tensor(obs), "task": th.zeros(5, dtype=th.long)}
    assert np.allclose(shared, model.policy.q_net.features(padded).detach().numpy(), atol=1e-6)
    strangers = [tasks[0], load_teacher(make(teachers, seed=1, **kwargs).learn(300).task(IDS[0]), device="cpu")]
    with pytest.raises(AgentError, match=r"no layer in common: name tasks of one student.*--layers first last"):
        choose_layer(strangers, "shared")
