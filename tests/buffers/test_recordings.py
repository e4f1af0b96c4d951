"""A recording gives back exactly what was played, and a student cannot tell it from the game."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.buffers.recording_meta import RecordedScore, RecordingError, RecordingSettings
from sb3_distill.buffers.recording_writer import RecordingWriter
from sb3_distill.buffers.recordings import Recording
from sb3_distill.common.files import partial_path
from tests.buffers.images import images
from tests.buffers.records import step_record

KWARGS = {"learning_starts": 32, "buffer_size": 600, "train_freq": 8, "gradient_steps": 4, "device": "cpu", "seed": 0}


def weights_of(model):
    return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


def distil(teacher, recording, env="CartPole-v1", n_envs=2, cls=PolicyDistillation, steps=400, **changes):
    venv = make_vec_env(env, n_envs, seed=0)
    model = cls("MlpPolicy", venv, teacher, recording=recording, n_teacher_episodes=2, **{**KWARGS, **changes})
    return model.learn(steps)


def test_student_of_a_recording_is_bit_equal_to_one_of_the_game(cartpole_teacher, tmp_path):
    played = distil(cartpole_teacher, None)
    recorder = distil(cartpole_teacher, tmp_path / "play")
    assert not list(tmp_path.glob("*.partial"))
    reader = distil(cartpole_teacher, tmp_path / "play")
    assert th.equal(weights_of(played), weights_of(recorder)) and th.equal(weights_of(played), weights_of(reader))
    assert list(reader.ep_info_buffer)[-1]["r"] == list(played.ep_info_buffer)[-1]["r"]
    # The teacher did not play again.
    assert reader._reference.score == recorder._reference.score is not None
    assert reader.env.num_envs == 2 and not hasattr(reader.env, "recording")
    # Another student of the same play
    other = distil(cartpole_teacher, tmp_path / "play", loss="nll", seed=5)
    assert not th.equal(weights_of(other), weights_of(played))


@pytest.mark.parametrize("evaluates", [(True, False), (False, True), (True, True)])
def test_the_recorded_score_is_that_of_the_training_environment(cartpole_teacher, tmp_path, evaluates):
    """Evaluations can be in another environment of the same name: their teacher plays there, in every run."""
    for evaluate in evaluates:
        venv = make_vec_env("CartPole-v1", 2, seed=0)
        kwargs = {**KWARGS, "recording": tmp_path / "play", "n_teacher_episodes": 2, "teacher_eps": 0.0}
        model = PolicyDistillation("MlpPolicy", venv, cartpole_teacher, **kwargs)
        short = make_vec_env("CartPole-v1", 1, env_kwargs={"max_episode_steps": 7})
        model.learn(400, EvalCallback(short, eval_freq=400, verbose=0) if evaluate else None)
        assert len(set(model._reference.rollout_scores)) == 1 and model._reference.rollout_scores[0][0] > 7
        assert (model._reference.score == (7.0, 0.0)) == evaluate
    recorded = Recording(tmp_path / "play").teacher_score
    assert (recorded.mean, recorded.std) == model._reference.rollout_scores[0]


def test_a_recorded_score_is_for_those_who_ask_for_the_same(cartpole_teacher, tmp_path):
    """What it is beside the score that they would have measured: nothing is played for the first, all else is."""
    distil(cartpole_teacher, tmp_path / "play")
    file = tmp_path / "play" / "recording.json"
    meta = json.loads(file.read_text())
    asked = {"n_episodes": 2, "seed": 1_000_000, "sampled": False, "epsilon": 0.05}
    assert {name: meta["teacher_score"][name] for name in asked} == asked
    measured = meta["teacher_score"]["mean"]

    def score(score, **changes):
        file.write_text(json.dumps({**meta, "teacher_score": score}))
        return distil(cartpole_teacher, tmp_path / "play", **changes)._reference.rollout_scores[1][0]

    told = {**meta["teacher_score"], "mean": -1.0}
    assert score(told) == -1.0
    for other in ({"n_episodes": 3}, {"seed": 7}, {"sampled": True}, {"epsilon": 0.1}):
        assert score({**told, **other}) == measured
    # Another seed of the student is another seed of its reference.
    assert score(told, seed=5) > 0
    # Earlier versions did not write how it was measured.
    assert score([-1.0, 0.0]) == measured


def test_a_reader_that_measures_nothing_is_told_nothing(cartpole_teacher, tmp_path):
    recorder = distil(cartpole_teacher, tmp_path / "play")
    venv = make_vec_env("CartPole-v1", 2, seed=0)
    reader = PolicyDistillation(
        "MlpPolicy", venv, cartpole_teacher, recording=tmp_path / "play", n_teacher_episodes=0, **KWARGS
    ).learn(400)
    assert recorder._reference.score is not None and reader._reference.score is None


def test_subclasses_of_users_read_recordings_of_their_parents(cartpole_teacher, tmp_path):
    class Mine(PolicyDistillation):
        pass

    students = [distil(cartpole_teacher, tmp_path / "play", cls=cls) for cls in (PolicyDistillation, Mine)]
    assert th.equal(*map(weights_of, students))


def test_resumed_readers_go_on_where_they_were(cartpole_teacher, tmp_path):
    distil(cartpole_teacher, tmp_path / "play")
    model = distil(cartpole_teacher, tmp_path / "play", steps=208)
    model.learn(192, reset_num_timesteps=False)
    recording = Recording(tmp_path / "play")
    rows = [recording.observations(row) for row in (0, 99, 100, 199)]
    stored = [model.replay_buffer.stores[""][np.full(2, row), np.arange(2)] for row in (0, 99, 100, 199)]
    assert all(np.array_equal(*pair) for pair in zip(rows, stored, strict=True))


@pytest.mark.parametrize("train_freq", [7, 64, 1_000])
def test_readers_may_train_at_another_frequency(cartpole_teacher, tmp_path, train_freq):
    """Also where their last rollout would be longer than what was played."""
    distil(cartpole_teacher, tmp_path / "play")
    reader = distil(cartpole_teacher, tmp_path / "play", train_freq=train_freq)
    assert reader.num_timesteps == 400 == reader._n_collected
    assert reader._n_updates > 0


def test_atari_frames_are_stored_once_and_come_back(tmp_path):
    venv = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", 2, seed=0), 4)
    teacher = A2C("CnnPolicy", venv, device="cpu", seed=0)
    kwargs = {"buffer_size": 400, "learning_starts": 64, "n_teacher_episodes": 0, "device": "cpu", "seed": 0}
    models = []
    for _ in range(2):
        venv = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", 2, seed=0), 4)
        model = PolicyDistillation(
            "Net5Policy", venv, teacher, teacher_eps=1.0, recording=tmp_path / "play", train_freq=50, **kwargs
        )
        models.append(model.learn(400))
    assert th.equal(*map(weights_of, models))
    recording = Recording(tmp_path / "play")
    assert recording.n_rows == 200 and recording.parts[""].images
    size = sum(path.stat().st_size for path in (tmp_path / "play").iterdir())
    assert size < 0.05 * 400 * 4 * 84 * 84
    store = models[1].replay_buffer.stores[""]
    for row in (0, 1, 77, 199):
        assert np.array_equal(recording.observations(row), store[np.full(2, row), np.arange(2)])
    episodes = list(recording.finished_episodes())
    assert len(episodes) == len(recording.episodes) > 0
    for episode in episodes:
        assert len(episode.observations) == len(episode.actions) + 1 == len(episode.rewards) + 1
        # The last stack is the one before, moved on.
        assert np.array_equal(episode.observations[-1][:3], episode.observations[-2][1:])
        assert episode.terminated != episode.truncated


def test_actor_critic_students_share_recordings_of_their_own_kind(tmp_path):
    teacher = load_teacher(A2C("MlpPolicy", "CartPole-v1", device="cpu", seed=0))
    kwargs = {"cls": QPD, "rollout_policy": "teacher"}
    models = [distil(teacher, tmp_path / "play", weight_bits=bits, **kwargs) for bits in (None, 4, None)]
    assert th.equal(weights_of(models[0]), weights_of(models[2]))
    with pytest.raises(RecordingError, match="algorithm='QPD', not 'PolicyDistillation'"):
        distil(teacher, tmp_path / "play")


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_play_comes_back(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("recordings") / "play"
    n_envs, n_rows = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 200))
    images = data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    space = spaces.Box(0, 255, (3, 6, 6), np.uint8) if images else spaces.Box(-9, 9, (3,), np.float32)
    told = RecordingSettings(
        algorithm="PolicyDistillation", teacher="0", env_id=None, observation_space=str(space), teacher_eps=0.0
    )
    writer = RecordingWriter(folder, told, space, n_envs)
    stacks = np.zeros((n_envs, *space.shape), dtype=space.dtype)
    rows, answers, previous = [], [], None
    for _ in range(n_rows):
        dones = rng.random(n_envs) < 0.1
        rows.append(stacks.copy())
        fresh = rng.integers(0, 3, size=(n_envs, 6, 6)) if images else rng.normal(size=(n_envs, 3))
        following = np.concatenate([stacks[:, 1:], fresh[:, None]], axis=1) if images else fresh
        following = following.astype(space.dtype)
        infos = [{"terminal_observation": following[env]} if dones[env] else {} for env in range(n_envs)]
        answers.append(rng.normal(size=(n_envs, 2)).astype(np.float32))
        starts = np.ones(n_envs, bool) if previous is None else previous
        writer.add(step_record(stacks, answers[-1], episode_starts=starts, dones=dones, infos=infos))
        previous = dones
        stacks = following.copy()
        if images:
            stacks[dones, :-1] = 0
    score = RecordedScore(1.0, 2.0, n_episodes=3, seed=4, sampled=True, epsilon=0.5)
    writer.close(score)
    recording = Recording(folder)
    assert (recording.n_rows, recording.n_envs, recording.teacher_score) == (n_rows, n_envs, score)
    assert recording.settings == told and recording.episodes == writer.episodes
    for row in rng.permutation(n_rows):
        assert np.array_equal(recording.observations(row), rows[row])
        assert np.array_equal(recording.answers(row).q_values, answers[row])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rollout_policy": "student"}, "needs rollout_policy='teacher'"),
        ({"teacher_eps": 0.5}, "made with teacher_eps=0.05, not 0.5"),
        ({"n_envs": 1}, "made with n_envs=2, not 1"),
        ({"steps": 4_000}, "has 400 steps, fewer than 4,000"),
    ],
)
def test_runs_that_would_have_played_otherwise(cartpole_teacher, tmp_path, changes, message):
    distil(cartpole_teacher, tmp_path / "play")
    with pytest.raises(RecordingError, match=message):
        distil(cartpole_teacher, tmp_path / "play", **changes)


def test_arguments_of_the_environment(cartpole_teacher, tmp_path):
    def learn(**env_kwargs):
        venv = make_vec_env("CartPole-v1", 1, seed=0, env_kwargs={"render_mode": "rgb_array", **env_kwargs})
        kwargs = {"recording": tmp_path / "play", "n_teacher_episodes": 0, **KWARGS}
        PolicyDistillation("MlpPolicy", venv, cartpole_teacher, **kwargs).learn(64)

    learn()
    # As recorded before they were written down
    path = tmp_path / "play" / "recording.json"
    meta = json.loads(path.read_text())
    assert meta["settings"].pop("env_kwargs") == {}
    path.write_text(json.dumps(meta))
    learn()
    for env_kwargs in ({"sutton_barto_reward": True}, {"max_episode_steps": 7}):
        with pytest.raises(RecordingError, match=r"was made with env_kwargs=\{\}, not \{'"):
            learn(**env_kwargs)


def test_other_teachers_damage_and_normalised_environments(cartpole_teacher, tmp_path):
    distil(cartpole_teacher, tmp_path / "play")
    with pytest.raises(RecordingError, match="made with teacher="):
        distil(A2C("MlpPolicy", "CartPole-v1", device="cpu", seed=1), tmp_path / "play")
    (tmp_path / "play" / "actions.npy").write_bytes(b"")
    with pytest.raises(RecordingError, match="holds no whole recording"):
        Recording(tmp_path / "play")
    (tmp_path / "play" / "actions.npy").unlink()
    with pytest.raises(RecordingError, match=r"holds no whole recording: it has no actions.npy. Delete it to record"):
        Recording(tmp_path / "play")
    with pytest.raises(RecordingError, match=r"holds no whole recording: it has no recording.json. Name the folder"):
        Recording(tmp_path / "nowhere")
    venv = VecNormalize(make_vec_env("CartPole-v1", 1))
    model = PolicyDistillation("MlpPolicy", venv, cartpole_teacher, recording=tmp_path / "other", device="cpu")
    with pytest.raises(RecordingError, match="VecNormalize"):
        model.learn(50)


def test_an_interrupted_recording_is_none(cartpole_teacher, tmp_path):
    venv = make_vec_env("CartPole-v1", 1, seed=0)
    model = PolicyDistillation("MlpPolicy", venv, cartpole_teacher, recording=tmp_path / "play", **KWARGS)

    def stop(local, global_):
        if local["self"].num_timesteps > 100:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        model.learn(400, callback=stop)
    assert not list(tmp_path.iterdir())
    model.learn(400, callback=lambda local, global_: local["self"].num_timesteps < 100)
    assert not list(tmp_path.iterdir())
    # After its first step, before its last, and before any
    for n_steps in (2, 400):
        model.learn(n_steps, callback=lambda local, global_, last=n_steps - 1: local["self"].num_timesteps < last)
    model.learn(0)
    assert not list(tmp_path.iterdir())
    # After its last step, it is whole.
    model.learn(400, callback=lambda local, global_: local["self"].num_timesteps < 400)
    assert Recording(tmp_path / "play").n_rows == 400


def test_a_recording_that_is_being_written_is_left_alone(tmp_path):
    space = spaces.Box(-9, 9, (3,), np.float32)
    told = RecordingSettings(
        algorithm="PolicyDistillation", teacher="0", env_id=None, observation_space=str(space), teacher_eps=0.0
    )
    writer = RecordingWriter(tmp_path / "play", told, space, n_envs=2)
    with pytest.raises(RecordingError, match="is being written already, by a run in this process"):
        RecordingWriter(tmp_path / "play", told, space, n_envs=2)
    # As from a container, where the number of the process is another one
    elsewhere = writer.partial.with_name(writer.partial.name.replace(f"-{os.getpid()}.", "-99999999."))
    writer.partial.rename(elsewhere)
    other = RecordingWriter(tmp_path / "play", told, space, n_envs=2)
    assert elsewhere.exists()
    for each in (writer, other):
        each.abort()
    RecordingWriter(tmp_path / "play", told, space, n_envs=2).abort()
    assert not list(tmp_path.iterdir())


def test_a_recording_that_another_run_has_finished_first_stays(tmp_path):
    space = spaces.Box(-9, 9, (3,), np.float32)
    told = RecordingSettings(
        algorithm="PolicyDistillation", teacher="0", env_id=None, observation_space=str(space), teacher_eps=0.0
    )
    for n_rows in (3, 5):
        writer = RecordingWriter(tmp_path / "play", told, space, n_envs=2)
        for _ in range(n_rows):
            writer.add(step_record(np.zeros((2, 3), np.float32)))
        writer.close()
    assert Recording(tmp_path / "play").n_rows == 3
    assert [path.name for path in tmp_path.iterdir()] == ["play"]
    # That of another teacher is another one: it is not dropped without a word.
    writer = RecordingWriter(tmp_path / "play", replace(told, teacher="1"), space, n_envs=2)
    writer.add(step_record(np.zeros((2, 3), np.float32)))
    with pytest.raises(RecordingError, match="with other settings, of another run"):
        writer.close()
    (kept,) = tmp_path.glob("play.*/play")
    assert Recording(kept).settings.teacher == "1" and Recording(tmp_path / "play").settings.teacher == "0"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_recording_whose_name_is_taken_is_kept(cartpole_teacher, tmp_path, kind):
    folder = tmp_path / "play"

    def take_the_name(local, global_):
        if kind == "file":
            folder.write_text("mine")
        else:
            folder.mkdir(exist_ok=True)
            (folder / "mine").write_text("mine")
        return True

    venv = make_vec_env("CartPole-v1", 2, seed=0)
    model = PolicyDistillation("MlpPolicy", venv, cartpole_teacher, recording=folder, n_teacher_episodes=0, **KWARGS)
    with pytest.raises(RecordingError, match="what is there is no recording") as error:
        model.learn(64, callback=take_the_name)
    (kept,) = tmp_path.glob("play.*/play")
    assert f"was left in {kept}" in str(error.value) and Recording(kept).n_rows == 32
    assert (folder if kind == "file" else folder / "mine").read_text() == "mine"


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.float64])
def test_bounds_of_a_recording_are_those_of_its_type(dtype, tmp_path):
    space = spaces.Box(0, 1, (3,), dtype)
    told = RecordingSettings(
        algorithm="PolicyDistillation", teacher="0", env_id=None, observation_space=str(space), teacher_eps=0.0
    )
    writer = RecordingWriter(tmp_path / "play", told, space, n_envs=1)
    writer.add(step_record(np.ones((1, 3), dtype)))
    writer.close()
    recording = Recording(tmp_path / "play")
    assert recording.observation_space.dtype == dtype
    assert recording.observation_space.contains(recording.observations(0)[0])


def test_an_unfinished_recording_is_known_by_its_lock(tmp_path):
    """After a restart, another process may have the number of the one that was killed."""
    told = RecordingSettings(
        algorithm="PolicyDistillation", teacher="0", env_id=None, observation_space="images", teacher_eps=0.0
    )
    folder = tmp_path / "play"
    writer = RecordingWriter(folder, told, images(), 1)
    with pytest.raises(RecordingError, match="still being written"):
        RecordingWriter(folder, told, images(), 1, writer.token)
    writer.abort(keep=True)
    foreign = partial_path(folder).name.replace(f"-{os.getpid()}.", f"-{os.getppid()}.")
    writer.partial.rename(tmp_path / foreign)
    RecordingWriter(folder, told, images(), 1, writer.token).abort()
    assert not list(tmp_path.iterdir())
