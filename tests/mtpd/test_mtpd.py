"""One student of several teachers, each of another task."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill import MultiTaskDistillation, MultiTaskDQN, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.common.answers import Answers, TaskAnswers
from sb3_distill.common.losses import kl_loss
from sb3_distill.common.temperature import choose_temperature
from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.multitask import tasks_of
from sb3_distill.evaluation.play import evaluate_paired
from sb3_distill.evaluation.tasks import score_tasks
from tests.envs.tasks import IDS, make_env
from tests.helpers import preferences, run_python, same
from tests.mtpd.students import make

# --- Learning


def test_the_loss_is_that_of_each_task(teachers):
    model = make(teachers, temperature={"CartPole-v1": 0.5, "MountainCar-v0": 2.0}, task_sampling="equal").learn(400)
    samples = model.replay_buffer.sample(16)
    student = preferences(model.policy, samples.observations)
    tasks = samples.observations["task"].reshape(-1)
    expected = [
        kl_loss(samples.answers[task].preferences, student[tasks == task, :n], temperature, 1.0)
        for task, n, temperature in ((0, 2, 0.5), (1, 3, 2.0))
    ]
    assert [len(losses) for losses in expected] == [8, 8]
    losses, _ = model.student_loss(model.student, samples)
    # Task by task, in the order in which the answers stand
    assert list(samples.answers) == tasks.unique_consecutive().tolist()
    assert losses.tolist() == pytest.approx(th.cat([expected[task] for task in samples.answers]).tolist(), rel=1e-5)


def test_each_task_has_its_own_temperature_chosen(teachers, tmp_path, capsys):
    teachers = {**teachers, "MountainCar-v0": DQN("MlpPolicy", "MountainCar-v0", seed=2, device="cpu", buffer_size=10)}
    whole = make(teachers, temperature="auto", verbose=1)
    assert whole.temperature == "auto"
    whole.learn(400)
    chosen = whole.temperature
    answers = whole.replay_buffer.sample_equally(4_000).answers
    assert list(chosen) == IDS and len(set(chosen.values())) == 2
    for task, name in enumerate(IDS):
        assert chosen[name] == pytest.approx(choose_temperature(answers[task]), rel=0.2)
        assert whole.student.loss[task].temperature == chosen[name]
    lines = [line for line in capsys.readouterr().out.splitlines() if "gives the best action" in line]
    assert [line.split(": ")[0] for line in lines] == IDS and f"Temperature {chosen[IDS[0]]:.3g}" in lines[0]
    # The minibatches do not depend on it, and the numbers are kept with the student and with the state of the run.
    assert same(whole.policy, make(teachers, temperature=chosen).learn(400).policy)
    whole.save(tmp_path / "student")
    assert MultiTaskDistillation.load(tmp_path / "student", device="cpu").temperature == chosen
    whole.save_run_state(tmp_path / "state.zip")
    resumed = make(teachers, temperature="auto")
    resumed.load_run_state(tmp_path / "state.zip")
    for model in (whole, resumed):
        model.learn(100, reset_num_timesteps=False)
    assert resumed.temperature == chosen and same(whole.policy, resumed.policy)


def test_one_task_alone_can_have_its_temperature_chosen(teachers):
    model = make(teachers, temperature={"CartPole-v1": "auto", "MountainCar-v0": 2.0}).learn(400)
    assert isinstance(model.temperature["CartPole-v1"], float) and model.temperature["MountainCar-v0"] == 2.0
    # A teacher of distributions has no scale of rewards.
    assert make(teachers, temperature="auto").learn(400).temperature["MountainCar-v0"] == 1.0


def test_labels_are_those_of_each_tasks_teacher(teachers):
    model = make(teachers).learn(400)
    samples = model.replay_buffer.sample(64)
    task = int(samples.observations["task"][0])
    teacher, own = load_teacher(teachers[IDS[task]], device="cpu"), (4, 2)[task]
    expected = preferences(teacher, samples.observations["obs"][:, :own])
    assert list(samples.answers) == [task]
    assert th.allclose(samples.answers[task].preferences, expected, atol=1e-6)


def test_actions_that_a_task_does_not_have_are_never_preferred():
    own = {0: Answers(q_values=th.tensor([[-5.0, -4.0]])), 2: Answers(log_probs=th.tensor([[-2.0, -1.0, -3.0]]))}
    answers = TaskAnswers(np.array([2, 0]), own)
    assert answers.preferences.tolist() == [[-2.0, -1.0, -3.0], [-5.0, -4.0, -np.inf]]
    assert answers.of_env(0).log_probs is not None and answers.of_env(1).q_values.tolist() == [[-5.0, -4.0]]


@pytest.mark.parametrize(
    ("rollout_policy", "loss"),
    [("linear", "kl"), ("student", "reverse_kl"), ("teacher", "nll"), ("linear", "mse")],
)
def test_same_seed_same_bits(teachers, rollout_policy, loss):
    models = [make(teachers, loss=loss, rollout_policy=rollout_policy).learn(300) for _ in range(2)]
    assert models[0]._n_updates > 0 and same(models[0].policy, models[1].policy)
    assert all(parameter.isfinite().all() for parameter in models[0].policy.parameters())


def test_random_actions_are_actions_of_the_task(teachers):
    model = make(teachers, teacher_eps=1.0)
    model._setup_learn(100)
    model._last_obs = {"obs": np.zeros((2, 4), np.float32), "task": np.array([0, 1])}
    drawn = np.array([model._sample_action(0)[0] for _ in range(300)])
    assert set(drawn[:, 0]) == {0, 1} and set(drawn[:, 1]) == {0, 1, 2}


def test_save_load_resume_without_teachers_at_hand(teachers, tmp_path: Path):
    model = make(teachers).learn(300)
    model.save(tmp_path / "model")
    obs = {"obs": np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), "task": np.arange(20) % 2}
    loaded = MultiTaskDistillation.load(tmp_path / "model", device="cpu")
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    resumed = MultiTaskDistillation.load(tmp_path / "model", env=make_env(), device="cpu")
    resumed.learn(200, reset_num_timesteps=False)
    assert resumed._n_updates > model._n_updates and resumed.num_timesteps == model.num_timesteps + 200


def test_nothing_is_learned_before_all_tasks_have_been_seen(teachers):
    env = make_env(1)
    # CartPole's first episode ends; MountainCar has 200 steps.
    model = make(teachers, env, learning_starts=0, rollout_policy="student", student_eps=1.0)
    updates = []
    model.learn(100, callback=lambda *_: updates.append((model.replay_buffer.has_all_tasks, model._n_updates)) or True)
    assert updates[0] == (False, 0) and updates[-1][0] and updates[-1][1] > 0
    assert all(n_updates == 0 for has_all, n_updates in updates if not has_all)


class FourActions(gym.Env):
    """A task with more actions than the others have."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, True, False, {}


def test_a_student_plays_while_the_task_with_the_most_actions_is_not_played(teachers):
    gym.register("FourActions-v0", FourActions)
    try:
        four = DQN("MlpPolicy", "FourActions-v0", seed=0, device="cpu", buffer_size=10)
        # The first two tasks are played at first.
        env = make_env(2, env_ids=[*IDS, "FourActions-v0"])
        model = make({**teachers, "FourActions-v0": four}, env, learning_starts=0, rollout_policy="student")
        model.learn(600)
        assert model.replay_buffer.has_all_tasks and model._n_updates > 0
    finally:
        gym.registry.pop("FourActions-v0")


def test_updates_begin_although_the_memories_hold_less_than_learning_starts(teachers):
    env = make_env(4)
    model = make(teachers, env, buffer_size=100, learning_starts=300).learn(600)
    assert model._n_updates > 0 and model.replay_buffer.size() * 4 < 300


@pytest.mark.parametrize("cls", [MultiTaskDistillation, MultiTaskDQN])
def test_tasks_keep_their_order(teachers, tmp_path: Path, cls):
    model = make(teachers) if cls is MultiTaskDistillation else cls("MultiTaskMlpPolicy", make_env(), device="cpu")
    model.save(tmp_path / "model")
    other = make_env(env_ids=IDS[::-1])
    message = "made for the tasks CartPole-v1, MountainCar-v0, but the environment's are MountainCar-v0, CartPole-v1"
    with pytest.raises(ValueError, match=message):
        cls.load(tmp_path / "model", env=other)
    with pytest.raises(ValueError, match=message):
        model.set_env(other)
    model.set_env(make_env())


# --- Evaluation


def test_scores_are_taken_in_the_tasks_own_environments(teachers):
    model = make(teachers).learn(200)
    scores = score_tasks(tasks_of(model.env), model.policy, 4)
    assert list(scores) == IDS
    single = model.task("CartPole-v1")
    assert len(scores["CartPole-v1"].returns) == 4 and scores["MountainCar-v0"].mean < 0
    expected = evaluate_paired(single.policy, lambda n: make_eval_env("CartPole-v1", n), 4)
    assert scores["CartPole-v1"].returns == expected.returns


def test_evaluations_are_logged(teachers, capsys):
    model = make(teachers, n_eval_episodes=2, eval_freq=200, verbose=1).learn(400)
    assert [entry["task"] for entry in model.evaluations[:2]] == IDS
    assert [entry["n_timesteps"] for entry in model.evaluations] == [200, 200, 400, 400]
    assert "geometric mean" in capsys.readouterr().out


def test_the_teachers_play_once(teachers):
    rows = []

    class Rows(KVWriter):
        def write(self, key_values, key_excluded, step=0):
            rows.append(dict(key_values))

    model = make(teachers, n_eval_episodes=2)
    model.set_logger(Logger(None, [Rows()]))
    model.learn(200)
    (scores,) = model._task_references.values()
    model.learn(200, reset_num_timesteps=False)
    (again,) = model._task_references.values()
    assert again is scores
    told = [[row[f"teacher/{name}"] for name in IDS] for row in rows if f"teacher/{IDS[0]}" in row]
    assert len(told) == 2 and told[0] == told[1] == [score.mean for score in scores[0].values()]


def test_references_are_those_of_the_evaluation(teachers):
    model = make(teachers, n_eval_episodes=1).learn(100)
    for changes in ({"n_eval_episodes": 2}, {"student_eps": 1.0}, {"seed": 5}, {"seed": 0}):
        vars(model).update(changes)
        model.learn(100, reset_num_timesteps=False)
    counts = [len(scores[0][IDS[0]].returns) for scores in model._task_references.values()]
    assert counts == [1, 2, 2, 2]


def test_a_teacher_that_was_replaced_is_named_with_its_task(teachers, tmp_path):
    sources = {name: tmp_path / path.name for name, path in teachers.items()}
    for name, path in sources.items():
        path.write_bytes(teachers[name].read_bytes())
    make(sources).learn(100).save(tmp_path / "model")
    before = {name: load_teacher(path, device="cpu").sha256 for name, path in sources.items()}
    # Tasks that are cut out know their own, also where the teachers are not at hand.
    for name in IDS:
        MultiTaskDistillation.load(tmp_path / "model", device="cpu").task(name).save(tmp_path / "task")
        facts = load_teacher(tmp_path / "task.zip", device="cpu").facts
        assert (facts.taught_by, facts.teacher_sha256) == (str(sources[name]), before[name])
    DQN("MlpPolicy", "CartPole-v1", seed=9, device="cpu").save(sources["CartPole-v1"])
    resumed = MultiTaskDistillation.load(tmp_path / "model", env=make_env(), device="cpu")
    with pytest.warns(UserWarning, match="goes on with another one") as caught:
        resumed.learn(100, reset_num_timesteps=False)
    (text,) = [str(warning.message) for warning in caught if "goes on with" in str(warning.message)]
    assert f"learned CartPole-v1 from a teacher with sha256 {before['CartPole-v1']}" in text


# --- Bad input


def test_bad_input_is_refused_at_construction(teachers):
    cases = [
        ({"teachers": {"CartPole-v1": teachers["CartPole-v1"]}}, "teachers has no teacher for MountainCar-v0"),
        ({"teachers": {**teachers, "Pong": "x"}}, "teachers: Unknown task 'Pong': choose one of CartPole-v1"),
        ({"teachers": str(teachers["CartPole-v1"])}, "teachers must be a dictionary from the names of tasks"),
        (
            {"teachers": {name: teachers["CartPole-v1"] for name in IDS}},
            r"teacher of MountainCar-v0.* the task has Discrete\(3\)",
        ),
        ({"temperature": {"CartPole-v1": 1.0}}, "temperature has no value for MountainCar-v0"),
        ({"temperature": {"CartPole": 1.0}}, "temperature: Unknown task 'CartPole'"),
        ({"temperature": {"CartPole-v1": 0.0, "MountainCar-v0": 1.0}}, "temperature must be a positive finite number"),
        ({"temperature": -1.0}, "temperature must be a positive finite number"),
        ({"n_eval_episodes": "few"}, "n_eval_episodes must be a whole number, at least 0.*not 'few'"),
        ({"task_sampling": "both"}, "Unknown task_sampling 'both': choose one of random, equal"),
        ({"loss": "kll"}, "Unknown loss 'kll'"),
        ({"env": make_vec_env("CartPole-v1")}, "The environment has no tasks"),
        ({"env": VecNormalize(make_env(), norm_obs_keys=["obs"])}, "VecNormalize mixes the statistics"),
        ({"policy_kwargs": {"task_actions": [3, 3]}}, r"made for tasks with \[3, 3\] actions, but .* have \[2, 3\]"),
    ]
    for kwargs, message in cases:
        with pytest.raises(ValueError, match=message):
            make(**{"teachers": teachers, **kwargs})
    for other in ("teacher", "n_teacher_episodes", "recording"):
        with pytest.raises(TypeError, match=rf"MultiTaskDistillation.* unexpected keyword argument '{other}'"):
            make(teachers, **{other: 1})
    with pytest.raises(ValueError, match="VecNormalize mixes the statistics"):
        make(teachers).set_env(VecNormalize(make_env(), norm_obs_keys=["obs"]))


def test_agents_of_several_tasks_are_no_teachers(teachers, tmp_path: Path):
    model = make(teachers)
    model.save(tmp_path / "model")
    for source in (model, tmp_path / "model.zip", MultiTaskDQN("MultiTaskMlpPolicy", make_env(), buffer_size=10)):
        with pytest.raises(AgentError, match="plays several tasks: cut one out"):
            load_teacher(source)


def test_teachers_of_other_environments_are_refused(teachers):
    model = DQN("MlpPolicy", "MountainCar-v0", device="cpu")
    env = make_vec_env("MultiTask-v0", env_kwargs={"env_ids": ["MountainCar-v0"]})
    other = load_teacher(model, env_id="MountainCarContinuous-v0")
    with pytest.raises(ValueError, match=r"was trained on MountainCarContinuous-v0.*allow_env_mismatch=True"):
        make({"MountainCar-v0": other}, env)
    make({"MountainCar-v0": other}, env, allow_env_mismatch=True)


# --- The Zoo


@pytest.mark.ci
def test_zoo_trains_and_enjoys(teachers, zoo, tmp_path: Path):
    env_kwargs = ["--env-kwargs", "env_ids:['CartPole-v1','MountainCar-v0']", "pad:True"]
    sources = "dict([" + ",".join(f"('{name}',r'{path}')" for name, path in teachers.items()) + "])"
    run = ["--env", "MultiTask-v0", "-f", "logs"]
    mtpd = ["--algo", "mtpd", *run]
    train = ["train", *mtpd, *env_kwargs, "-n", 600]
    params = ["-params", f"teachers:{sources}", "learning_starts:100", "n_eval_episodes:2"]
    assert "geometric mean" in zoo(tmp_path, *train, "--eval-freq", 200, *params)
    # Whoever enjoys it has imported nothing of ours.
    run_python(tmp_path, "-m", "rl_zoo3.enjoy", *mtpd, "-n", "30", "--no-render")
    zoo(tmp_path, "record_video", *mtpd, "-n", 60, "--deterministic")
    folder = tmp_path / "logs" / "mtpd" / "MultiTask-v0_1"
    assert list((folder / "videos").glob("*.mp4"))
    params = ["-params", "learning_starts:100", "n_eval_episodes:0"]
    zoo(tmp_path, *train, "--eval-freq", -1, "-i", folder / "MultiTask-v0.zip", *params)


@pytest.mark.ci
def test_zoo_trains_and_enjoys_mtdqn(zoo, tmp_path: Path):
    run = ["--algo", "mtdqn", "--env", "MultiTask-v0", "-f", "logs"]
    env_kwargs = ["--env-kwargs", "env_ids:['CartPole-v1','MountainCar-v0']", "pad:True"]
    options = ["-n", "600", "--eval-freq", "-1", "--vec-env", "subproc", "-params", "learning_starts:100"]
    run_python(tmp_path, "-m", "rl_zoo3.train", *run, *env_kwargs, *options)
    zoo(tmp_path, "enjoy", *run, "-n", 30, "--no-render")


def test_tasks_whose_names_agree_in_their_first_letters():
    ids = ["ATaskWhoseNameIsLongEnoughToBeCutInTables" + letter + "-v0" for letter in "AB"]
    for env_id in ids:
        gym.register(env_id, entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=10)
    try:
        teacher = DQN("MlpPolicy", "CartPole-v1", buffer_size=10, device="cpu")
        env = make_vec_env("MultiTask-v0", 2, env_kwargs={"env_ids": ids})
        model = make(dict.fromkeys(ids, teacher), env, n_eval_episodes=1, verbose=1, allow_env_mismatch=True)
        assert [entry["task"] for entry in model.learn(200).evaluations] == ids
    finally:
        for env_id in ids:
            del gym.registry[env_id]
