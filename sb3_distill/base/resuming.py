"""Runs that can be stopped at any moment: whole files, and a state from which they go on as if nothing had happened."""

import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import save_to_pkl
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.agents.archive import FORMAT
from sb3_distill.agents.files import BEST_MODEL, CHECKPOINT, RUN_STATE
from sb3_distill.base.callbacks import save_statistics, walk_callbacks
from sb3_distill.base.tensorboard import tensorboard_goes_on, tensorboard_run
from sb3_distill.buffers.state import buffer_state, restore_buffer, state_bytes
from sb3_distill.common.files import whole_file
from sb3_distill.common.formats import format_problem
from sb3_distill.common.locks import locked
from sb3_distill.envs.tape import install_tapes, restore_vec_env, vec_env_state
from sb3_distill.state.file import NotPlainError, StateFileError, read_state, write_state
from sb3_distill.state.generators import (
    generator_state,
    global_generators,
    set_generator_state,
    set_global_generators,
)
from sb3_distill.state.plain import plain_attributes, set_plain_attributes, to_plain

SelfResumable = TypeVar("SelfResumable", bound="ResumableMixin")


class ResumableMixin(OffPolicyAlgorithm):
    """
    Mixin of off-policy algorithms. All that ``save`` and ``save_replay_buffer`` write appears whole or not at all, and
    a model that is saved while it learns (but not as ``best_model``) gets ``run_state.zip`` beside it: what SB3's zip
    does not hold, such as the replay buffer, the optimizer, the random generators, the environment and the callbacks.

    SB3 calls callbacks before it stores the step, so that the state is that of the end of the rollout and its updates.
    """

    # Attributes that change during a run, besides the parameters and the replay buffer
    run_attributes: ClassVar[tuple[str, ...]] = (
        "num_timesteps",
        "_episode_num",
        "_n_updates",
        "_current_progress_remaining",
        "_last_obs",
        "_last_episode_starts",
        "_last_original_obs",
        "ep_info_buffer",
        "ep_success_buffer",
    )
    sb3_distill_format = FORMAT
    _is_running = False
    # Held while the model learns: those of the folders of its checkpoints
    _locks: ExitStack
    # Where the state is to be written when the rollout is over, and where that of the newest checkpoint is
    _state_due: Path | None = None
    _checkpoint_state: Path | None = None
    # Whether the last learn() came to its end
    _is_complete = False
    # The state with which the next rollout begins
    _pending_state: dict[str, Any] | None = None

    def _setup_model(self) -> None:
        # Of a zip that is loaded
        problem = format_problem("The zip", self.sb3_distill_format, FORMAT)
        if problem is not None:
            raise ValueError(problem)
        self.sb3_distill_format = FORMAT
        super()._setup_model()

    def save(self, path: Any, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """
        Save all the attributes of the object and the model parameters in a zip-file, which appears whole or not at all.

        :param path: path to the file where the agent should be saved
        :param exclude: name of parameters that should be excluded in addition to the default ones
        :param include: name of parameters that might be excluded but should be included anyway
        :raises OSError: the file cannot be written
        """
        if not isinstance(path, (str, Path)):
            super().save(path, exclude, include)
            return
        target = _with_suffix(Path(path), ".zip")
        checkpoint, vec_normalize = CHECKPOINT.fullmatch(target.stem), self.get_vec_normalize_env()
        if self._is_running and checkpoint is not None and vec_normalize is not None:
            # Under the name that SB3's CheckpointCallback gives them
            name = f"{checkpoint['prefix']}_vecnormalize_{checkpoint['steps']}_steps.pkl"
            save_statistics(vec_normalize, target.with_name(name))
        with whole_file(target) as file:
            super().save(file, exclude, include)  # type: ignore[arg-type]
        state = target.with_name(RUN_STATE)
        if self._is_running and target.stem != BEST_MODEL:
            self._state_due = self._checkpoint_state = state
        elif not self._is_running and state == self._checkpoint_state and self._is_complete:
            # The run is over, and its last model is saved.
            state.unlink(missing_ok=True)

    def save_replay_buffer(self, path: Any) -> None:
        """
        Save the replay buffer as a pickle file, which appears whole or not at all.

        :param path: path to the file where the replay buffer should be saved
        :raises OSError: the file cannot be written
        """
        if not isinstance(path, (str, Path)):
            super().save_replay_buffer(path)
            return
        with whole_file(_with_suffix(Path(path), ".pkl")) as file:
            save_to_pkl(file, self.replay_buffer, self.verbose)  # type: ignore[arg-type]

    def save_run_state(self, path: str | Path) -> None:
        """
        Save the state of the run, from which ``load_run_state`` goes on. While the model learns, it is written when the
        rollout is over.

        :param path: path to the file
        :raises OSError: the file cannot be written
        """
        if self._is_running:
            self._state_due = Path(path)
        else:
            write_state(Path(path), self._run_state(None))

    def load_run_state(self, path: str | Path) -> None:
        """
        Put a model into the state of a run. The next ``learn`` goes on with it, whatever ``reset_num_timesteps`` says:
        ``model.learn(total_timesteps - model.num_timesteps, ...)``, with callbacks of the same kinds.

        :param path: path to the file that ``save_run_state`` wrote, or that a checkpoint has beside it
        :raises StateFileError: the file is damaged, or is of another algorithm or environment
        """
        state = read_state(Path(path))
        own = self._identity()
        for name, value in own.items():
            if state.get(name) != value:
                raise StateFileError(
                    f"{path} is the state of another run: its {name.replace('_', ' ')} is {state.get(name)}, and that "
                    f"of this model is {value}. Make the model as the run made it."
                )
        assert self.replay_buffer is not None
        try:
            # The attributes first: with them, parameters are read at their precision (see ``QPD.set_parameters``).
            set_plain_attributes(self, state["attributes"])
            self.set_parameters(state["parameters"], exact_match=True, device=self.device)
            restore_buffer(self.replay_buffer, state["replay_buffer"])
        except Exception as error:
            # Networks, optimizers and buffers raise many different types of exceptions.
            raise StateFileError(
                f"{path} does not fit this model ({type(error).__name__}: {' '.join(str(error).split())}): make it as "
                "the run made it, with the same policy, policy_kwargs and buffer_size."
            ) from error
        self._pending_state = state
        self._checkpoint_state = Path(path)

    @property
    def has_checkpoint_state(self) -> bool:
        """Whether the run can be resumed from a checkpoint."""
        return self._checkpoint_state is not None and self._checkpoint_state.is_file()

    def _identity(self) -> dict[str, Any]:
        return {
            "algorithm": next(cls.__name__ for cls in type(self).__mro__ if cls.__module__.startswith("sb3_distill.")),
            "observation_space": str(self.observation_space),
            "action_space": str(self.action_space),
            "n_envs": self.n_envs,
        }

    def _run_state(self, callback: BaseCallback | None) -> dict[str, Any]:
        assert self.env is not None and self.replay_buffer is not None
        callbacks = [] if callback is None else list(walk_callbacks(callback))
        return {
            **self._identity(),
            "total_timesteps": self._total_timesteps,
            "parameters": self.get_parameters(),
            "attributes": {name: to_plain(getattr(self, name)) for name in self.run_attributes},
            "replay_buffer": buffer_state(self.replay_buffer),
            "environment": vec_env_state(self.env),
            "callbacks": [(type(each).__name__, plain_attributes(each), _eval_env_state(each)) for each in callbacks],
            "action_generator": generator_state(self.action_space.np_random),
            "generators": global_generators(),
            "tensorboard_run": tensorboard_run(self),
        }

    def _go_on(self, state: dict[str, Any], callback: BaseCallback) -> None:
        assert self.env is not None
        problem = restore_vec_env(self.env, state["environment"])
        if problem is not None:
            warnings.warn(
                f"The environment's state could not be restored ({problem}): the episodes under way are lost, and new "
                "ones begin. All else goes on where it was."
            )
            # Not with the seeds of the run's beginning, whose episodes would come again
            self.env.seed((self.seed or 0) + self.num_timesteps)
            self._last_obs = self.env.reset()  # type: ignore[assignment]
            self._last_episode_starts = np.ones((self.env.num_envs,), dtype=bool)
            if self._vec_normalize_env is not None:
                self._last_original_obs = self._vec_normalize_env.get_original_obs()
        callbacks = list(walk_callbacks(callback))
        names = [type(each).__name__ for each in callbacks]
        if names != [name for name, *_ in state["callbacks"]]:
            known = ", ".join(name for name, *_ in state["callbacks"]) or "none"
            warnings.warn(
                f"The run had the callbacks {known}, and now has {', '.join(names)}: they begin anew, with their "
                "counters at zero."
            )
        else:
            for each, (_, attributes, eval_env) in zip(callbacks, state["callbacks"], strict=True):
                set_plain_attributes(each, attributes)
                if isinstance(each, EvalCallback) and eval_env is not None:
                    restore_vec_env(each.eval_env, eval_env)
        set_generator_state(self.action_space.np_random, state["action_generator"])
        set_global_generators(state["generators"])

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *args: Any, **kwargs: Any) -> RolloutReturn:
        """As SB3's. The state of a run is written and restored before a rollout."""
        if self._pending_state is not None:
            self._go_on(self._pending_state, callback)
            self._pending_state = None
        elif self._state_due is not None:
            path, self._state_due = self._state_due, None
            try:
                # Later rows are cut off when the run goes on, because it writes them again.
                sizes = {file.name: file.stat().st_size for file in sorted(path.parent.glob("*monitor.csv"))}
                write_state(path, {**self._run_state(callback), "monitor_files": sizes})
            except (OSError, NotPlainError) as error:
                # The run is worth more than its state.
                warnings.warn(f"{error}. Until it can be, the run can be resumed only from an earlier state.")
        return super().collect_rollouts(env, callback, *args, **kwargs)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        assert self.env is not None
        is_known = install_tapes(self.env)
        with tensorboard_goes_on(self, (self._pending_state or {}).get("tensorboard_run")):
            total_timesteps, callback = super()._setup_learn(*args, **kwargs)
        callbacks = list(walk_callbacks(callback))
        for each in callbacks:
            if isinstance(each, EvalCallback):
                install_tapes(each.eval_env)
        for folder in sorted({folder.resolve() for each in callbacks for folder in _folders_of(each)}):
            self._locks.enter_context(locked(folder, "saves its models"))
        if any(isinstance(each, CheckpointCallback) for each in callbacks):
            self._announce_state(is_known)
        return total_timesteps, callback

    def _announce_state(self, is_known: bool) -> None:
        assert self.replay_buffer is not None
        n_bytes = state_bytes(self.replay_buffer)
        if self.verbose > 0:
            print(
                f"Each checkpoint replaces {RUN_STATE}, with which the run can be resumed. With its replay buffer it "
                f"takes up to {n_bytes / 1e9:.2g} GB on disk, and twice that while it is replaced."
            )
        if not is_known:
            warnings.warn(
                "The environment's state cannot be kept, since it has no wrapper, such as Monitor, or is of a kind of "
                "its own: a run that is resumed begins new episodes. All else is restored."
            )

    def learn(
        self: SelfResumable,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfResumable:
        """As SB3's."""
        self._is_running, self._is_complete = True, False
        try:
            is_new = reset_num_timesteps and self._pending_state is None
            with ExitStack() as self._locks:
                super().learn(total_timesteps, callback, log_interval, tb_log_name, is_new, progress_bar)
            self._is_complete = self.num_timesteps >= self._total_timesteps
        finally:
            # A state that is still pending stays so: this call has not come to its first step.
            self._is_running, self._state_due = False, None
        return self

    def _excluded_save_params(self) -> list[str]:
        own = ["_is_running", "_state_due", "_checkpoint_state", "_pending_state", "_is_complete", "_locks"]
        return [*super()._excluded_save_params(), *own]


def _folders_of(callback: BaseCallback) -> list[Path]:
    """Where a callback saves models."""
    folder = getattr(
        callback, "save_path" if isinstance(callback, CheckpointCallback) else "best_model_save_path", None
    )
    return [] if folder is None else [Path(folder)]


def _eval_env_state(callback: BaseCallback) -> dict[str, Any] | None:
    return vec_env_state(callback.eval_env) if isinstance(callback, EvalCallback) else None


def _with_suffix(path: Path, suffix: str) -> Path:
    """As SB3's: a path without an ending gets one."""
    return path if path.suffix else path.with_name(path.name + suffix)
