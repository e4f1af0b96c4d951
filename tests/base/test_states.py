"""When the state of a run is written, where it is kept, and what is said of it."""

import pytest
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env

from sb3_distill.base.resume.resuming import RUN_STATE
from sb3_distill.state.file import StateFileError, read_state, write_state
from tests.base.test_resuming import RUNS, Moody, Stop, cartpole, cnn_teacher, pd, weights_of


class At(BaseCallback):
    """Calls a function once, at a step; what it returns goes to the training loop."""

    def __init__(self, n_calls, function) -> None:
        super().__init__()
        self.at, self.function = n_calls, function

    def _on_step(self) -> bool:
        return self.function(self.model) is not False if self.n_calls == self.at else True


def test_other_saves_leave_the_state_with_its_checkpoints(tmp_path):
    elsewhere, first, second = tmp_path / "elsewhere", tmp_path / "first", tmp_path / "second"
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    save = At(90, lambda model: (model.save(elsewhere / "model"), model.save_run_state(elsewhere / "own.zip")))
    model = RUNS["pd"]()
    model.learn(250, [CheckpointCallback(40, first), CheckpointCallback(60, second), save])
    assert sorted(path.name for path in elsewhere.iterdir()) == ["model.zip", "own.zip"]
    assert read_state(elsewhere / "own.zip")["attributes"]["num_timesteps"] == 184
    assert read_state(first / RUN_STATE)["attributes"]["num_timesteps"] == 240
    assert read_state(second / RUN_STATE)["attributes"]["num_timesteps"] == 240
    # Wherever the last model is saved, the other folder keeps its own.
    model.save(first / "model")
    assert not (first / RUN_STATE).exists() and (second / RUN_STATE).exists()


@pytest.mark.parametrize("name", ["pd", "rtpd"])
@pytest.mark.parametrize("stops", [True, False])
def test_a_state_of_the_last_rollout_is_written(name, stops, tmp_path):
    """Whether a callback stops the run there, or the run ends."""
    state = tmp_path / "state.zip"
    model = RUNS[name]()

    def save(own):
        own.save_run_state(state)
        return not stops

    model.learn(120, At(120 // model.n_envs, save))
    assert model.num_timesteps == 120
    model.learn(100, reset_num_timesteps=False)
    resumed = RUNS[name]()
    resumed.load_run_state(state)
    assert resumed.num_timesteps == 120
    resumed.learn(100, reset_num_timesteps=False)
    assert weights_of(resumed) == weights_of(model)


def test_a_new_run_does_not_leave_the_state_of_an_old_one(tmp_path):
    RUNS["pd"]().learn(120, CheckpointCallback(40, tmp_path))
    with pytest.warns(UserWarning, match="run_state.zip is removed: it is of an earlier run"):
        RUNS["pd"]().learn(60, CheckpointCallback(40, tmp_path))
    assert not (tmp_path / RUN_STATE).exists()
    # A run that is refused has removed nothing.
    RUNS["pd"]().learn(120, CheckpointCallback(40, tmp_path))
    refused = RUNS["pd"]()
    refused.teacher = None
    refused.taught_by = str(tmp_path / "nowhere.zip")
    with pytest.raises(FileNotFoundError):
        refused.learn(60, CheckpointCallback(40, tmp_path))
    assert (tmp_path / RUN_STATE).exists()


def test_all_files_of_the_end_are_there_before_the_state_goes(tmp_path):
    model = RUNS["pd"]()
    model.learn(120, CheckpointCallback(40, tmp_path))
    with pytest.raises(OSError, match="full"), model.keeping_state(tmp_path):
        model.save(tmp_path / "model")
        raise OSError("full")
    assert (tmp_path / "model.zip").exists() and (tmp_path / RUN_STATE).exists()
    with model.keeping_state(tmp_path):
        model.save(tmp_path / "model")
        assert (tmp_path / RUN_STATE).exists()
    assert not (tmp_path / RUN_STATE).exists()


def test_settings_of_callbacks_are_those_of_the_new_call(tmp_path):
    def callbacks(freq):
        env = make_vec_env("CartPole-v1", 1, seed=3)
        evaluation = EvalCallback(env, eval_freq=freq, n_eval_episodes=2, verbose=0, log_path=str(tmp_path))
        return [CheckpointCallback(40, tmp_path), evaluation]

    RUNS["pd"]().learn(170, callbacks(50))
    resumed, changed = RUNS["pd"](), callbacks(30)
    resumed.load_run_state(tmp_path / RUN_STATE)
    resumed.learn(140, changed)
    evaluation = changed[1]
    # Its counters go on, at the new frequency.
    assert evaluation.eval_freq == 30 and evaluation.n_calls == 152
    assert evaluation.evaluations_timesteps == [100, 180, 240, 300]


class MoodyStart(Moody):
    """Begins otherwise each time."""

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return obs + next(self.moods) % 97, info


def test_an_evaluation_that_cannot_be_restored_is_told(tmp_path):
    def evaluation():
        env = make_vec_env("CartPole-v1", 1, seed=3, wrapper_class=MoodyStart)
        return EvalCallback(env, eval_freq=30, n_eval_episodes=2, verbose=0)

    RUNS["pd"]().learn(170, [CheckpointCallback(40, tmp_path), evaluation()])
    resumed = RUNS["pd"]()
    resumed.load_run_state(tmp_path / RUN_STATE)
    with pytest.warns(UserWarning, match="The evaluation environment's state could not be restored"):
        resumed.learn(100, [CheckpointCallback(40, tmp_path), evaluation()])


def test_games_that_cannot_be_restored_are_told_at_the_start(tmp_path):
    def sticky():
        return make_atari_env("ALE/Pong-v5", n_envs=1, seed=0, env_kwargs={"frameskip": 1})

    model = pd(sticky, "Net3Policy", cnn_teacher, n_teacher_episodes=0)()
    with pytest.warns(UserWarning, match=r"state cannot be kept \(natively stepped Atari games do not tell"):
        model.learn(8, CheckpointCallback(40, tmp_path))


def test_the_need_on_disk_is_told(tmp_path, capsys):
    kwargs = {"buffer_size": 10**6, "verbose": 1, "n_teacher_episodes": 0}
    pd(cartpole(), **kwargs)().learn(40, CheckpointCallback(10**6, tmp_path))
    # 28 bytes a step, of as many steps as the run has
    assert "takes up to 1.12 KB on disk" in capsys.readouterr().out
    pd(cartpole(), **kwargs, recording=tmp_path / "recording")().learn(40, CheckpointCallback(10**6, tmp_path))
    assert "takes up to 2.8 KB on disk" in capsys.readouterr().out


def test_other_wrappers_of_the_environment_are_refused(tmp_path):
    RUNS["pd, VecNormalize"]().learn(120).save_run_state(tmp_path / "state.zip")
    with pytest.raises(StateFileError, match=r"its vec env wrappers is \['ObservationView', 'VecNormalize'\], and"):
        RUNS["pd"]().load_run_state(tmp_path / "state.zip")


def test_states_that_are_not_whole_are_refused(tmp_path):
    path = tmp_path / "state.zip"
    RUNS["pd"]().learn(120).save_run_state(path)
    state = read_state(path)
    for name in ("environment", "generators", "replay_buffer", "attributes"):
        write_state(path, {key: value for key, value in state.items() if key != name})
        with pytest.raises(StateFileError, match=f"state.zip is not the state of a run: it has no {name}"):
            RUNS["pd"]().load_run_state(path)
        write_state(path, {**state, name: {"nothing": 1}})
        with pytest.raises(StateFileError, match="fit"):
            model = RUNS["pd"]()
            model.load_run_state(path)
            model.learn(10)


def test_the_memory_is_not_held_twice(tmp_path):
    RUNS["pd"]().learn(120).save_run_state(tmp_path / "state.zip")
    model = RUNS["pd"]()
    model.load_run_state(tmp_path / "state.zip")
    assert "replay_buffer" not in model._pending_state


def test_a_state_that_is_still_to_be_taken_up_is_not_written_over(tmp_path):
    path = tmp_path / "state.zip"
    RUNS["pd"]().learn(120).save_run_state(path)
    model, before = RUNS["pd"](), path.read_bytes()
    model.load_run_state(path)
    with pytest.raises(ValueError, match="goes on from a state with its next learn"):
        model.save_run_state(path)
    assert path.read_bytes() == before
    model.learn(10).save_run_state(path)


@pytest.mark.parametrize("name", ["pd", "rtpd"])
def test_a_loaded_checkpoint_goes_on(name, tmp_path):
    """As the documentation says: load, the state, and the remaining steps."""
    whole = RUNS[name]()
    whole.learn(304)
    stopped = RUNS[name]()
    with pytest.raises(SystemError):
        stopped.learn(304, [CheckpointCallback(152 // whole.n_envs, tmp_path), Stop(200 // whole.n_envs)])
    env = cartpole(whole.n_envs)()
    cls = type(whole)
    loaded = cls.load(tmp_path / "rl_model_152_steps.zip", env=env, device="cpu")
    if name == "pd":
        loaded.teacher = RUNS["pd"]().teacher
    loaded.load_run_state(tmp_path / RUN_STATE)
    loaded.learn(304 - loaded.num_timesteps, reset_num_timesteps=False)
    assert loaded.num_timesteps == 304 and weights_of(loaded) == weights_of(whole)


@pytest.mark.slow
def test_compiled_updates_go_on(tmp_path):
    make = pd(cartpole(), compile_update=True, n_teacher_episodes=0)
    whole = make()
    whole.learn(300)
    make().learn(200, CheckpointCallback(75, tmp_path))
    resumed = make()
    resumed.load_run_state(tmp_path / RUN_STATE)
    resumed.learn(300 - resumed.num_timesteps)
    assert weights_of(resumed) == weights_of(whole)
