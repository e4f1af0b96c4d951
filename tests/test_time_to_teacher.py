"""The rules of ``benchmarks.time_to_teacher``."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from stable_baselines3 import DQN

from benchmarks.crossing import CpuClock, Look, budgeted_returns, crossing, within_reach
from benchmarks.peers import Learn, Task, make_ours, make_plain, record
from benchmarks.time_to_teacher import Run, summary
from sb3_distill.buffers.recordings import Recording
from tests.helpers import same

# Whole rollouts: 4 steps of 8 games each
N_TIMESTEPS = 416


def looks(*means_and_games: tuple[float, int]) -> list[Look]:
    return [Look(float(i), 100 * i, 10 * i, games, mean) for i, (mean, games) in enumerate(means_and_games, 1)]


def test_the_first_of_two_full_evaluations_in_a_row_counts() -> None:
    run = looks((9.0, 100), (11.0, 100), (9.0, 100), (11.0, 100), (12.0, 100))
    assert crossing(run, 100, 10.0) is run[3]


def test_one_lucky_evaluation_does_not_count() -> None:
    assert crossing(looks((9.0, 100), (11.0, 100)), 100, 10.0) is None
    assert crossing([], 100, 10.0) is None


def test_an_evaluation_of_few_games_does_not_count() -> None:
    assert crossing(looks((11.0, 20), (11.0, 100)), 100, 10.0) is None


def test_all_games_are_played_only_within_reach() -> None:
    asked: list[tuple[int, int]] = []

    def play(first: int, n_games: int) -> list[float]:
        asked.append((first, n_games))
        return [float(i % 2) for i in range(n_games)]

    assert len(budgeted_returns(play, 20, 100, bar=5.0)) == 20
    assert len(budgeted_returns(play, 20, 100, bar=0.6)) == 100
    assert asked == [(0, 20), (0, 20), (20, 40), (60, 40)]


def test_reach_is_two_standard_errors() -> None:
    # Mean 0.5, standard error 0.118
    returns = [0.0, 1.0] * 9 + [0.5]
    assert within_reach(returns, 0.7)
    assert not within_reach(returns, 0.8)
    assert not within_reach([-21.0] * 20, 10.0)


def test_the_clock_counts_play_apart_and_no_evaluations() -> None:
    seconds = iter([1.0, 4.0, 100.0, 102.0, 109.0, 109.0])
    clock = CpuClock(lambda: next(seconds))
    clock.go()
    clock.stop()
    clock.go()
    clock.play()
    assert clock.play_seconds == 7.0
    assert clock.seconds == 5.0


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("task")
    DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, buffer_size=10, seed=0, device="cpu").save(
        folder / "teacher.zip"
    )
    params = {"learning_starts": 100}
    task = Task("CartPole-v1", str(folder / "teacher.zip"), "default", N_TIMESTEPS, folder / "recording", 0, params)
    record(task)
    return task


@pytest.mark.parametrize("pipeline", [make_ours, make_plain])
def test_pipelines_repeat_and_learn_from_all_recorded_steps(task: Task, pipeline: Callable[[Task], Learn]) -> None:
    first, second = (pipeline(task)(lambda *_: True, CpuClock())[0] for _ in range(2))
    assert first.num_timesteps == N_TIMESTEPS
    assert first._n_updates > 0
    assert same(first.policy, second.policy)


def test_plain_sees_the_recorded_steps_and_the_teachers_answers(task: Task) -> None:
    memory = make_plain(task)(lambda *_: True, CpuClock())[0].replay_buffer
    recording = Recording(task.recording)
    for row in range(N_TIMESTEPS // recording.n_envs):
        assert (memory.observations[row] == recording.observations(row)).all()
        assert (memory.q_values[row] == recording.answers(row).q_values).all()


def test_ours_and_plain_have_the_same_network(task: Task) -> None:
    ours, plain = (make(task)(lambda *_: False, CpuClock())[0] for make in (make_ours, make_plain))
    shapes = [{name: value.shape for name, value in model.policy.state_dict().items()} for model in (ours, plain)]
    assert shapes[0] == shapes[1]
    # Stopped before the first update
    assert ours._n_updates == plain._n_updates == 0
    assert same(ours.policy, plain.policy)


def test_plain_has_the_temperature_that_ours_chooses(task: Task) -> None:
    own = replace(task, params={**task.params, "temperature": "auto"})
    ours, plain = (make(own)(lambda *_: True, CpuClock())[0].temperature for make in (make_ours, make_plain))
    # Of other samples of the same answers
    assert plain == pytest.approx(ours, rel=0.2)


@pytest.mark.parametrize("rollout_policy", ["student", "linear"])
def test_where_the_student_acts_its_play_is_counted_apart(task: Task, rollout_policy: str) -> None:
    own = replace(task, params={**task.params, "rollout_policy": rollout_policy})
    clock = CpuClock()
    clock.go()
    student, n_timesteps, _ = make_ours(own)(lambda *_: True, clock)
    assert n_timesteps == N_TIMESTEPS
    assert student.recording is None
    assert clock.play_seconds > 0
    assert clock.seconds > 0


def test_reading_a_recording_is_no_play(task: Task) -> None:
    clock = CpuClock()
    clock.go()
    make_ours(task)(lambda *_: True, clock)
    assert clock.play_seconds == 0


def test_the_summary_names_the_seconds_of_play() -> None:
    run = [Look(float(i), 100 * i, 10 * i, 100, 11.0, play_seconds=3.0 * i) for i in (1, 2)]
    (line,) = summary([Run("ours", "default", 0, run)], 10.0).splitlines()
    assert "1 CPU seconds, 100 teacher steps, 10 updates (medians); 3 CPU seconds of play besides" in line
