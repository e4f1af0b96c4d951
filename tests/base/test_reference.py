"""The teacher's score, with which its students are compared."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.base.reference import PlayRule
from tests.helpers import same

QUICK = {"learning_starts": 10_000, "buffer_size": 2_000, "n_teacher_episodes": 4, "device": "cpu", "seed": 0}
KWARGS = {**QUICK, "teacher_eps": 0.0, "student_eps": 0.0}
# Without a precision that these runs would be too short for
FULL = partial(QPD, weight_bits=None)


class FarApart(gym.Env):
    """The reward is 1 for the action that the observation asks for: 0 at 20, 1 at 30, both beyond ten deviations."""

    observation_space = spaces.Box(-100, 100, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def _observe(self):
        self.asked = int(self.np_random.integers(2))
        return np.array([20 + 10 * self.asked], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps = 0
        return self._observe(), {}

    def step(self, action):
        reward = float(action == self.asked)
        self.n_steps += 1
        return self._observe(), reward, self.n_steps == 20, False, {}


@pytest.fixture
def teacher():
    """Asks for action 1 above 25."""
    model = A2C("MlpPolicy", FarApart(), policy_kwargs={"net_arch": []}, device="cpu")
    state = model.policy.action_net.state_dict()
    state["weight"].copy_(state["weight"].new_tensor([[0.0], [1.0]]))
    state["bias"].copy_(state["bias"].new_tensor([0.0, -25.0]))
    return load_teacher(model)


@pytest.mark.parametrize("evaluates", [False, True])
def test_the_teacher_plays_on_observations_before_normalization(teacher, evaluates):
    """Those behind VecNormalize are clipped, so nothing that is computed from them tells 20 from 30."""
    env = VecNormalize(make_vec_env(FarApart, 2, seed=0), norm_reward=False)
    model = PolicyDistillation("MlpPolicy", env, teacher, **KWARGS)
    eval_env = VecNormalize(make_vec_env(FarApart, 1, seed=1), norm_reward=False, training=False)
    model.learn(10, callback=EvalCallback(eval_env, verbose=0) if evaluates else None)
    assert model._reference.score == (20.0, 0.0)


@pytest.mark.parametrize("evaluates", [False, True])
def test_the_student_notices_nothing_of_the_teachers_games(teacher, evaluates, tmp_path):
    runs = []
    for n_episodes in (0, 4):
        folder = tmp_path / str(n_episodes)
        env = VecNormalize(make_vec_env(FarApart, 2, seed=0, monitor_dir=str(folder)), norm_reward=False)
        kwargs = {**QUICK, "n_teacher_episodes": n_episodes, "learning_starts": 50}
        model = FULL("MlpPolicy", env, teacher, rollout_policy="linear", **kwargs)
        eval_env = VecNormalize(make_vec_env(FarApart, 1, seed=1, monitor_dir=str(folder / "eval")), norm_reward=False)
        scores = EvalCallback(eval_env, eval_freq=40, deterministic=False, verbose=0)
        model.learn(200, callback=scores if evaluates else None)
        files = sorted(folder.glob("**/*.monitor.csv"))
        # Without the first line, which holds the time of the start, and the column of the times
        rows = [[line.split(",")[:2] for line in file.read_text().splitlines()[1:]] for file in files]
        assert env.training and (model._references._scores != {}) == (n_episodes > 0)
        runs.append((rows, list(model.ep_info_buffer), env.obs_rms.count, scores.last_mean_reward, model.policy))
    assert runs[0][0] == runs[1][0] and len(runs[0][0]) == 3
    assert [episode["r"] for episode in runs[0][1]] == [episode["r"] for episode in runs[1][1]]
    assert runs[0][2:4] == runs[1][2:4] and same(runs[0][4], runs[1][4])


class LongEpisodes(FarApart):
    """An episode is longer than all pieces together, and the observation is the number of its steps."""

    def step(self, action):
        self.n_steps += 1
        return np.array([self.n_steps], np.float32), 1.0, self.n_steps == 100, False, {}

    def _observe(self):
        return np.zeros(1, np.float32)


@pytest.mark.parametrize("cls", [PolicyDistillation, FULL])
@pytest.mark.parametrize("evaluates", [False, True])
def test_learning_in_pieces_goes_on_in_the_same_episode(cls, evaluates, teacher, capsys):
    env = Monitor(LongEpisodes(), allow_early_resets=False)
    model = cls("MlpPolicy", env, teacher, verbose=1, **{**QUICK, "n_teacher_episodes": 2})
    eval_env = Monitor(LongEpisodes())
    for piece in range(4):
        callback = EvalCallback(eval_env, verbose=0) if evaluates else None
        model.learn(20, callback, log_interval=None, reset_num_timesteps=piece == 0)
    seen = model.replay_buffer.stores[""][: model.replay_buffer.pos, 0, 0]
    assert seen.tolist() == list(range(80)) == list(range(model.num_timesteps))
    # One reference for each rule, in the first piece
    printed = capsys.readouterr().out
    n_rules = len(set(model._rollout_rules())) + evaluates
    assert printed.count("Teacher (") == n_rules == len(model._references._scores)


def test_a_reference_is_kept_for_the_same_measurement_alone(teacher):
    model = PolicyDistillation("MlpPolicy", FarApart(), teacher, **{**KWARGS, "teacher_eps": 0.5})
    scores = []
    for changes in ({}, {"n_teacher_episodes": 9}, {"seed": 5}, {"n_teacher_episodes": 4, "seed": 0}):
        vars(model).update(changes)
        model.learn(10, reset_num_timesteps=not scores)
        scores.append(model._reference.score)
    assert len(set(scores[:3])) == 3 and scores[3] == scores[0]


@pytest.fixture
def undecided(teacher):
    """Prefers the same actions, but with 60% only."""
    model = A2C("MlpPolicy", FarApart(), policy_kwargs={"net_arch": []}, device="cpu")
    state = model.policy.action_net.state_dict()
    state["weight"].copy_(state["weight"].new_tensor([[0.0], [0.08]]))
    state["bias"].copy_(state["bias"].new_tensor([0.0, -2.0]))
    return load_teacher(model)


@pytest.mark.parametrize(
    ("cls", "deterministic", "expected", "rule"),
    [
        # The teacher's rollouts have teacher_eps, half of whose actions are right by chance.
        (PolicyDistillation, None, 15.0, "FarApart, greedy actions, 50% random"),
        (PolicyDistillation, True, 20.0, "FarApart, greedy actions"),
        (PolicyDistillation, False, 18.0, "FarApart, greedy actions, 20% random"),
        (FULL, None, 11.0, "FarApart, sampled actions, 50% random"),
        (FULL, True, 20.0, "FarApart, greedy actions"),
        (FULL, False, 12.0, "FarApart, sampled actions"),
    ],
)
def test_the_teacher_plays_by_the_rule_of_the_students_score(undecided, cls, deterministic, expected, rule):
    kwargs = {**QUICK, "n_teacher_episodes": 100, "teacher_eps": 0.5}
    kwargs |= {"student_eps": 0.2} if cls is PolicyDistillation else {}
    model = cls("MlpPolicy", make_vec_env(FarApart, 10, seed=0), undecided, rollout_policy="teacher", **kwargs)
    evaluation = EvalCallback(make_vec_env(FarApart, 10), deterministic=bool(deterministic), verbose=0)
    model.learn(10, callback=None if deterministic is None else evaluation)
    assert model._reference.rule == rule
    # The standard deviation of 20 steps is 2.2 at most, that of the mean of 100 episodes 0.22.
    assert model._reference.mean_reward == pytest.approx(expected, abs=0.7)


@pytest.mark.parametrize(
    ("cls", "kwargs", "evaluates"),
    [
        (PolicyDistillation, {"rollout_policy": "teacher", "teacher_eps": 0.5}, False),
        (PolicyDistillation, {"rollout_policy": "linear", "teacher_eps": 0.5, "student_eps": 0.5}, False),
        (FULL, {"rollout_policy": "teacher", "teacher_eps": 0.5}, True),
        (FULL, {"rollout_policy": lambda _: 1.0, "teacher_eps": 0.0}, False),
    ],
)
def test_a_student_that_plays_as_its_teacher_has_100_percent_in_rollouts(undecided, cls, kwargs, evaluates):
    kwargs = {**QUICK, "n_teacher_episodes": 100, "stats_window_size": 1_000, **kwargs}
    model = cls("MlpPolicy", make_vec_env(FarApart, 10, seed=0), undecided, **kwargs)
    rows = log_rows(model)
    if cls is PolicyDistillation and kwargs["rollout_policy"] == "linear":
        # Whoever acts, it is the same network.
        model.policy.predict = undecided.predict
    model.learn(2_000, EvalCallback(make_vec_env(FarApart, 10), verbose=0) if evaluates else None)
    assert rows[-1]["rollout/percent_of_teacher"] == pytest.approx(100.0, abs=5.0)


def test_between_teacher_and_student_the_reference_is_between(undecided):
    kwargs = {**QUICK, "n_teacher_episodes": 50, "teacher_eps": 1.0, "student_eps": 0.0}
    model = PolicyDistillation(
        "MlpPolicy", make_vec_env(FarApart, 10, seed=0), undecided, rollout_policy="linear", **kwargs
    )
    model.policy.predict = undecided.predict
    rows = log_rows(model)
    model.learn(2_000, log_interval=1)
    (student, _), (teacher, _) = model._reference.rollout_scores
    assert student == 20.0 and teacher == pytest.approx(10.0, abs=1.0)
    last = [row for row in rows if "rollout/percent_of_teacher" in row][-1]
    expected = student + (1 - last["time/total_timesteps"] / 2_000) * (teacher - student)
    assert last["rollout/percent_of_teacher"] == pytest.approx(100 * last["rollout/ep_rew_mean"] / expected, abs=0.5)


class Rows(KVWriter):
    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append(dict(key_values))


def log_rows(model):
    """The rows of the log."""
    writer = Rows()
    model.set_logger(Logger(None, [writer]))
    return writer.rows


@pytest.mark.parametrize("inside", [False, True])
def test_the_percentage_stands_in_the_row_of_its_evaluation(undecided, inside):
    model = FULL("MlpPolicy", make_vec_env(FarApart, 1, seed=0), undecided, **QUICK)
    rows = log_rows(model)
    env, kwargs = make_vec_env(FarApart, 1, seed=1), {"n_eval_episodes": 3, "verbose": 0}
    if inside:
        callbacks = [EveryNTimesteps(20, CallbackList([EvalCallback(env, eval_freq=1, **kwargs)]))]
    else:
        # Each is compared with the teacher's score by its own rule.
        callbacks = [EvalCallback(env, eval_freq=20, deterministic=rule, **kwargs) for rule in (True, False)]
    callbacks.append(EvalCallback(env, eval_freq=-1))
    for reset in (True, False):
        model.learn(100, callbacks, log_interval=None, reset_num_timesteps=reset)
    evaluations = [row for row in rows if "eval/mean_reward" in row]
    assert len(evaluations) == (10 if inside else 20)
    sampled = model._references.score(model._teacher, env, PlayRule(True, 0.0))[0] if not inside else None
    for index, row in enumerate(evaluations):
        reference = 20.0 if inside or index % 2 == 0 else sampled
        assert row["eval/percent_of_teacher"] == pytest.approx(100 * row["eval/mean_reward"] / reference)
    assert not any("eval/percent_of_teacher" in row for row in rows if "eval/mean_reward" not in row)
    assert len(model.logger.output_formats) == 1
    assert rows[0]["teacher/rule"] == "FarApart, greedy actions" and rows[0]["teacher/mean_reward"] == 20.0


def test_where_no_copy_can_be_made_one_warning_says_what_to_do(teacher):
    env = make_vec_env(FarApart, 1, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})
    model = PolicyDistillation("MlpPolicy", env, teacher, **{**KWARGS, "student_eps": 0.5})
    with pytest.warns(UserWarning, match="register the environment with Gymnasium.*n_teacher_episodes=0") as caught:
        model.learn(40).learn(40, reset_num_timesteps=False)
    env.close()
    assert len(caught) == 1 and model._reference.score is None and model.num_timesteps == 80
