"""What a run needs is said before it starts, and refused where it is not there."""

import re
import shutil
import tracemalloc
import warnings

import gymnasium as gym
import numpy as np
import psutil
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import CallbackList, CheckpointCallback, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_distill import NativeAtari, RealTimeDistillDQN
from sb3_distill.base import cost
from sb3_distill.base.cost import TimeToGo, check_memory, check_room, in_words
from sb3_distill.buffers.distillation import DistillationBuffer
from sb3_distill.buffers.recording_meta import RecordingSettings
from sb3_distill.buffers.recording_writer import RecordingWriter
from sb3_distill.buffers.replay import FrameReplayBuffer
from sb3_distill.buffers.state import step_bytes
from sb3_distill.buffers.tasks import MultiTaskReplayBuffer
from sb3_distill.envs.inspection import frame_stack_of
from tests.base.test_resuming import RUNS, cartpole, cnn_teacher, pd, teacher_of
from tests.buffers.records import step_record

TWO = spaces.Discrete(2)
FRAMES = spaces.Box(0, 255, (4, 84, 84), np.uint8)


@pytest.fixture
def memory(monkeypatch):
    """Sets how much memory the machine has, and how much of it is free."""
    known = psutil.virtual_memory()

    def has(total, free):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: known._replace(total=total, available=free))
        monkeypatch.setattr(cost, "_GROUPS", ())

    return has


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1120, "1.12 KB"),
        (999_900, "1 MB"),
        (3.2e9, "3.2 GB"),
        (7.65e15, "7,650 TB"),
    ],
)
def test_sizes_in_words(n_bytes, words):
    assert in_words(n_bytes) == words


def stacks(n_steps, n_new):
    """Stacks of four planes, of which so many are new each time."""
    rng = np.random.default_rng(0)
    stack = np.zeros((1, 4, 84, 84), np.uint8)
    for _ in range(n_steps):
        fresh = rng.integers(1, 255, (1, n_new, 84, 84), dtype=np.uint8)
        stack = np.concatenate([stack[:, n_new:], fresh], axis=1)
        yield stack


@pytest.mark.parametrize("n_stack", [1, 4])
@pytest.mark.parametrize("transitions", [False, True])
def test_the_memory_of_frames_is_what_python_needs(n_stack, transitions):
    n_steps = 400
    tracemalloc.start()
    if transitions:
        buffer = FrameReplayBuffer(n_steps, FRAMES, TWO, "cpu")
        last = np.zeros((1, 4, 84, 84), np.uint8)
        for stack in stacks(n_steps, 4 // n_stack):
            buffer.add(last, stack, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
            last = stack
    else:
        buffer = DistillationBuffer(n_steps, FRAMES, TWO, "cpu")
        for stack in stacks(n_steps, 4 // n_stack):
            buffer.add(step_record(stack))
    measured = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert step_bytes(buffer, n_stack, in_memory=True) * n_steps == pytest.approx(measured, rel=0.03)


def test_the_memory_of_vectors_and_of_dicts_is_that_of_their_arrays():
    vector = spaces.Box(-1, 1, (7,), np.float32)
    both = spaces.Dict({"vector": vector, "frames": FRAMES})
    buffer = DistillationBuffer(10, both, TWO, "cpu")
    buffer.add(step_record({"vector": np.zeros((1, 7), np.float32), "frames": np.zeros((1, *FRAMES.shape), np.uint8)}))
    in_arrays = buffer.stores["vector"].nbytes + sum(array.nbytes for array in buffer.answers.values())
    frame = step_bytes(DistillationBuffer(10, FRAMES, TWO, "cpu"), 4, in_memory=True)
    answers = step_bytes(DistillationBuffer(10, vector, TWO, "cpu"), 4, in_memory=True) - 7 * 4
    # The answers of a critic are counted, too, whether it is asked or not.
    assert 10 * (step_bytes(buffer, 4, in_memory=True) - (frame - answers)) == in_arrays + 10 * 4
    # SB3's own buffers keep images whole, and twice.
    for owned in (ReplayBuffer(10, FRAMES, TWO, "cpu"), DictReplayBuffer(10, both, TWO, "cpu")):
        arrays = [part for own in vars(owned).values() for part in (own.values() if isinstance(own, dict) else [own])]
        in_arrays = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
        assert step_bytes(owned, 4, in_memory=True) * 10 == in_arrays
    assert step_bytes(ReplayBuffer(10, FRAMES, TWO, "cpu", 1, True, False), 4, in_memory=True) == 4 * 84 * 84 + 20


class Screen(gym.Env):
    """A black screen."""

    action_space = TWO

    def __init__(self, shape):
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


class Poker(Screen):
    stack_size = None


@pytest.mark.parametrize(
    ("make_env", "n_stack"),
    [
        (lambda: make_vec_env(lambda: Screen((36, 36, 1)), 2), None),
        (lambda: VecFrameStack(make_vec_env(lambda: Screen((36, 36, 1)), 2), 3), 3),
        (
            lambda: VecFrameStack(
                NativeAtari(make_atari_env("PongNoFrameskip-v4", env_kwargs={"render_mode": None})), 4
            ),
            4,
        ),
        (lambda: make_vec_env(lambda: gym.wrappers.FrameStackObservation(Screen((36, 36)), 4), 2), 4),
        # An attribute of an environment that has nothing to do with it
        (lambda: make_vec_env(lambda: Poker((36, 36, 1)), 2), None),
    ],
)
def test_stacks_are_known(make_env, n_stack):
    env = make_env()
    assert frame_stack_of(env) == n_stack
    env.close()


@pytest.mark.parametrize(
    ("n_planes", "n_stack", "n_new"), [(3, None, 3), (1, None, 1), (4, None, 1), (12, 4, 3), (4, 1, 4)]
)
def test_planes_that_are_new_in_an_image(n_planes, n_stack, n_new):
    buffer = DistillationBuffer(10, spaces.Box(0, 255, (n_planes, 36, 36), np.uint8), TWO, "cpu")
    assert step_bytes(buffer, n_stack, in_memory=False) == n_new * 36 * 36 + 4 * n_planes + 4 * 3


def test_memory_is_refused_and_warned_of(memory):
    memory(total=1_000, free=900)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_memory("It", 790, "Do less.")
    with pytest.warns(UserWarning, match=r"It needs 810 bytes of memory. .*has 1 KB, of which 900 bytes are free"):
        check_memory("It", 810, "Do less.")
    memory(total=1_000, free=100)
    with pytest.warns(UserWarning, match="of which 150 bytes are free"):
        check_memory("It", 200, "Do less.", n_held=50)
    with pytest.raises(ValueError, match=r"It needs 1 KB of memory, and this machine has 1 KB. Do less."):
        check_memory("It", 1_001, "Do less.")


def test_a_container_has_less(memory, tmp_path, monkeypatch):
    memory(total=1_000, free=900)
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "limit").write_text("500\n")
    (tmp_path / "usage").write_text("450\n")
    (tmp_path / "memory.stat").write_text("cache 90\nfiles 30\n")
    groups = [(tmp_path, limit, "usage", "files") for limit in ("max", "limit", "missing")]
    monkeypatch.setattr(cost, "_GROUPS", groups)
    assert cost.machine_memory() == 500
    with pytest.warns(UserWarning, match="This machine has 500 bytes, of which 80 bytes are free now"):
        check_memory("It", 90, "Do less.")
    assert cost.fits(10) == 8 and cost.fits(10, n_held=15) == 9


def test_room_is_refused_and_warned_of(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1_000))
    folder = tmp_path / "not" / "yet"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_room(folder, "They", 700, "Make room.", n_peak=100)
    with pytest.warns(UserWarning, match="They need up to 700 bytes on the disk, and 200 bytes more while they are"):
        check_room(folder, "They", 700, "Make room.", n_peak=200)
    with pytest.raises(ValueError, match=r"They need up to 1.1 KB on the disk. .*yet has 1 KB free. Make room."):
        check_room(folder, "They", 1_100, "Make room.")
    check_room(folder, "They", 1_100, "Make room.", n_held=1_000)
    with pytest.warns(UserWarning, match="They need up to 1.1 KB on the disk"):
        check_room(folder, "They", 1_100, "Make room.", n_sure=900)


@pytest.mark.parametrize("name", ["pd", "rtpd", "mtpd", "mtdqn"])
def test_runs_that_cannot_fit_are_refused(name, memory):
    model = RUNS[name]()
    memory(total=1_000, free=1_000)
    with pytest.raises(
        ValueError, match=r"The replay buffer, with [\d,]+ steps, needs .* Set buffer_size to at most \d+"
    ):
        model.learn(300)
    assert model.num_timesteps == 0


def test_what_a_short_run_keeps_is_not_refused(memory, capsys):
    """A buffer may be larger than this machine if the run does not fill it."""
    memory(total=10**9, free=10**9)
    pd(cartpole(), buffer_size=10**8, n_teacher_episodes=0, verbose=1)().learn(40)
    assert "The replay buffer will take 1.12 KB of memory, for 40 steps." in capsys.readouterr().out


def test_a_second_learn_counts_what_is_kept(memory):
    model = pd(cartpole(), n_teacher_episodes=0)()
    model.learn(100)
    assert model.num_timesteps == 104
    # 28 bytes for each step
    memory(total=28 * 150, free=28 * 150)
    with pytest.raises(ValueError, match=r"with 204 steps, needs 5.71 KB of memory"):
        model.learn(100, reset_num_timesteps=False)


def test_a_rollout_that_cannot_fit_is_refused(memory):
    model = RUNS["ppd"]()
    memory(total=100, free=100)
    with pytest.raises(ValueError, match=r"The rollout buffer needs .* Lower n_steps or n_envs"):
        model.learn(100)


def test_a_buffer_that_cannot_be_made_is_refused():
    """SB3 makes its arrays at once."""
    with pytest.raises(ValueError, match=r"with its buffer needs more .*: lower buffer_size, or make the policy small"):
        RealTimeDistillDQN("MlpPolicy", "CartPole-v1", buffer_size=10**17)


def test_the_advice_fits_what_is_free(memory):
    model = pd(cartpole(), n_teacher_episodes=0)()
    model.learn(100)
    # 28 bytes for each step, of which 104 are there
    memory(total=10**9, free=28 * 50)
    with pytest.warns(UserWarning, match="Set buffer_size to at most 154"):
        model.learn(100, reset_num_timesteps=False)


def test_a_step_is_asked_of_a_buffer_that_is_not_made():
    """One of this size could not be."""
    both = spaces.Dict({"obs": spaces.Box(-1, 1, (7,), np.float32), "task": spaces.Discrete(2)})
    assert step_bytes(MultiTaskReplayBuffer(10**17, both, TWO, "cpu"), None, in_memory=True) == 2 * 28 + 20


@pytest.mark.parametrize("name", ["rtpd", "mtdqn"])
def test_sb3_does_not_warn_once_more(name, memory):
    memory(total=10**12, free=10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = RUNS[name]()
        assert not caught
        model.learn(30)
    assert [str(each.message)[:17] for each in caught if "memory" in str(each.message)] == ["The replay buffer"]


def test_checkpoints_that_cannot_fit_are_refused(tmp_path, capsys, monkeypatch):
    make = pd(cartpole(), n_teacher_episodes=0, verbose=1)
    n_weights = sum(parameter.numel() for parameter in make().policy.parameters())
    make().learn(40, CheckpointCallback(5, tmp_path))
    n_bytes = 4 * 3 * 4 * n_weights
    assert f"The run saves 4 checkpoints, about {in_words(n_bytes)} on disk." in capsys.readouterr().out
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=n_bytes))
    with pytest.raises(ValueError, match=r"run_state.zip and 4 checkpoints need up to .* --save-freq"):
        make().learn(40, CheckpointCallback(5, tmp_path / "other"))


def saving(folder, **kwargs):
    return CheckpointCallback(1, str(folder), **kwargs)


@pytest.mark.parametrize(
    ("nested", "n_saved"),
    [
        (lambda own, env: [own], 20),
        (lambda own, env: [EveryNTimesteps(10, own)], 4),
        # Every second step of two environments
        (lambda own, env: [EveryNTimesteps(3, CallbackList([own]))], 10),
        (lambda own, env: [EvalCallback(env, callback_after_eval=own, eval_freq=5, n_eval_episodes=1)], 4),
        (lambda own, env: [EvalCallback(env, own, eval_freq=20, n_eval_episodes=1)], 1),
        (lambda own, env: [EveryNTimesteps(20, own), CheckpointCallback(10, own.save_path, "other")], 4),
    ],
)
def test_checkpoints_of_all_callbacks_are_counted(nested, n_saved, tmp_path, capsys):
    model = pd(cartpole(), n_teacher_episodes=0, verbose=1)()
    model.learn(40, nested(saving(tmp_path), cartpole(1)()))
    assert f"The run saves {n_saved} checkpoint" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*_steps.zip"))) == n_saved


@pytest.mark.parametrize("buffer_size", [10, 10_000])
@pytest.mark.parametrize("has_frames", [False, True])
def test_the_size_of_pickled_replay_buffers(has_frames, buffer_size, tmp_path, capsys):
    """Arrays are pickled whole, and frames as they come."""
    make_env = (lambda: make_vec_env(lambda: Screen((36, 36, 1)), 2)) if has_frames else cartpole()
    policy, teacher = ("CnnPolicy", cnn_teacher) if has_frames else ("MlpPolicy", teacher_of)
    make = pd(make_env, policy, teacher, buffer_size=buffer_size, n_teacher_episodes=0, verbose=1)
    make().learn(40, CheckpointCallback(4, str(tmp_path), save_replay_buffer=True))
    said = re.search(r"replay buffers .* up to about (\S+) ([KM]B)", capsys.readouterr().out)
    n_bytes = float(said[1]) * {"KB": 1e3, "MB": 1e6}[said[2]]
    measured = sum(path.stat().st_size for path in tmp_path.glob("*_replay_buffer_*.pkl"))
    # Each has classes and spaces in it, too, and no critic's values.
    assert measured - 5 * 8_000 < n_bytes < 1.5 * measured


def test_pickled_replay_buffers_are_only_warned_of(tmp_path, monkeypatch):
    make = pd(cartpole(), n_teacher_episodes=0, buffer_size=10**6)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10**7))
    with pytest.warns(UserWarning, match=r"run_state.zip and 1 checkpoint with their replay buffers need up to 28"):
        make().learn(4, CheckpointCallback(2, str(tmp_path), save_replay_buffer=True))


def test_the_memory_of_a_recording_is_what_python_needs(tmp_path, memory):
    model = pd(cartpole(), n_teacher_episodes=0, recording=tmp_path / "play")()
    memory(total=10**9, free=2_000)
    said = r"The recording, which is kept in memory until the run ends, with the replay buffer \([\d.]+ KB\) needs"
    with pytest.warns(UserWarning, match=said) as caught:
        model.learn(40)
    assert "Learn for fewer steps, without a recording, or with a smaller" in str(caught[-1].message)


def test_a_recording_and_the_replay_buffer_must_fit_together(tmp_path, memory):
    """Each of them does."""
    model = pd(cartpole(), n_teacher_episodes=0, recording=tmp_path / "play", buffer_size=4_000)()
    memory(total=1.9e6, free=1e9)
    with pytest.raises(
        ValueError, match=r"with the replay buffer \(112 KB\) needs 1.96 MB of memory, and this .* 1.9 MB"
    ):
        model.learn(4_000)


@pytest.mark.parametrize(
    ("n_envs", "space"),
    [
        (1, spaces.Box(-1, 1, (7,), np.float32)),
        (8, FRAMES),
        (2, spaces.Dict({"frames": FRAMES, "vector": spaces.Box(-1, 1, (7,), np.float32)})),
    ],
)
def test_the_memory_of_steps_of_a_recording(n_envs, space, tmp_path):
    told = RecordingSettings(
        algorithm="PolicyDistillation", teacher="0", env_id=None, observation_space=str(space), teacher_eps=0.0
    )
    writer = RecordingWriter(tmp_path / "play", told, space, n_envs)
    zeros = create_empty_array(space, n_envs)
    tracemalloc.start()
    for _ in range(300):
        writer.add(step_record(zeros))
    measured = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    writer.abort()
    assert writer.memory_bytes(TWO) * writer.n_steps == pytest.approx(measured, rel=0.2)


def test_a_recording_that_cannot_fit_is_refused(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=100))
    with pytest.raises(ValueError, match=r"The steps of a recording need up to .* name another folder as recording"):
        pd(cartpole(), n_teacher_episodes=0, recording=tmp_path / "play")().learn(40)
    assert not (tmp_path / "play").exists()


def test_the_time_to_go_is_said_once():
    now = 0.0
    rest = TimeToGo(lambda: now)
    assert rest.after(1_000, 100_000) is None
    now = 29.0
    assert rest.after(2_000, 100_000) is None
    now = 40.0
    assert rest.after(5_000, 100_000) == (
        "About 16 minutes to go, if the run goes on at 100 steps a second as in the last 40 seconds."
    )
    now = 90.0
    assert rest.after(6_000, 100_000) is None


@pytest.mark.parametrize(("n_total", "words"), [(10_500, None), (10**6, "2.8 hours"), (10**8, "11.6 days")])
def test_the_time_to_go_in_words(n_total, words):
    now = iter((0.0, 100.0))
    rest = TimeToGo(lambda: next(now))
    rest.after(0, n_total)
    said = rest.after(10_000, n_total)
    assert said is None if words is None else f"About {words} to go" in said
