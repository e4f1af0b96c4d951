"""Runs that can be stopped at any moment: whole files, and a state from which they go on as if nothing had happened."""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_distill.agents.archive import FORMAT
from sb3_distill.agents.files import CHECKPOINT, RUN_STATE
from sb3_distill.base.callbacks import list_callbacks, save_statistics, walk_callbacks
from sb3_distill.base.cost import TimeToGo, in_words, machine_memory
from sb3_distill.base.resume.needs import announce_checkpoints, announce_rollout
from sb3_distill.base.resume.tensorboard import tensorboard_goes_on, tensorboard_run
from sb3_distill.buffers.replay import without_memory_warning
from sb3_distill.common.files import flushed_size, whole_file
from sb3_distill.common.formats import format_problem
from sb3_distill.common.locks import locked
from sb3_distill.envs.tape import install_tapes, restore_vec_env, vec_env_state, vec_wrapper_names
from sb3_distill.state.file import NotPlainError, StateFileError, read_state, write_state
from sb3_distill.state.generators import generator_state, global_generators, set_generator_state, set_global_generators
from sb3_distill.state.plain import attribute_marks, changed_attributes, set_plain_attributes, to_plain

# What every state has, besides what ``_identity`` returns
_ENTRIES = {"parameters", "attributes", "replay_buffer", "environment", "callbacks", "action_generator", "generators"}
SelfResumable = TypeVar("SelfResumable", bound="ResumableMixin")


class ResumableMixin(BaseAlgorithm):
    """
    Mixin of algorithms that collect rollouts; those with a replay buffer take ``ResumableOffPolicyMixin``. All that
    ``save`` writes appears whole or not at all, and a checkpoint (a model that is saved while it learns as
    ``PREFIX_N_steps.zip``) gets ``run_state.zip`` beside it: what SB3's zip does not hold, such as the optimizer, the
    random generators, the environment and the callbacks.

    SB3 calls callbacks before it stores the step, so that the state is that of the end of the rollout and its updates.
    """

    # Attributes that change during a run, besides the parameters and the memory
    run_attributes: ClassVar[tuple[str, ...]] = (
        "num_timesteps",
        "_n_updates",
        "_current_progress_remaining",
        "_last_obs",
        "_last_episode_starts",
        "_last_original_obs",
        "ep_info_buffer",
        "ep_success_buffer",
    )
    # Those of them that ``load_run_state`` leaves as this model has them, if they are not None
    user_choices: ClassVar[tuple[str, ...]] = ()
    sb3_distill_format = FORMAT
    # The arguments that decide how much of the play is kept
    _memory_size: ClassVar[str] = "n_steps or n_envs"
    _time_to_go: TimeToGo
    _is_running = False
    # The callbacks of the run, and marks of their attributes when it began
    _callbacks: Sequence[BaseCallback] = ()
    _callback_marks: list[dict[str, bytes]]
    # Where the state is to be written when the rollout is over, and where those of the newest checkpoints are
    _states_due: frozenset[Path] = frozenset()
    _checkpoint_states: frozenset[Path] = frozenset()
    # Whether the state stays when the last model is saved, because other files of the end are still to be written
    _keeps_state = False
    # Whether the last learn() came to its end
    _is_complete = False
    # That with which the next rollout begins
    _pending_state: dict[str, Any] | None = None

    def _setup_model(self) -> None:
        # Of a zip that is loaded
        problem = format_problem("The zip", self.sb3_distill_format, FORMAT)
        if problem is not None:
            raise ValueError(problem)
        self.sb3_distill_format = FORMAT
        try:
            with without_memory_warning():
                super()._setup_model()  # type: ignore[safe-super]
        except MemoryError as error:
            raise ValueError(
                f"This machine has {in_words(machine_memory())} of memory, and this model with its buffer needs more "
                f"({error}): lower {self._memory_size}, or make the policy smaller."
            ) from error

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
        target = with_suffix(Path(path), ".zip")
        checkpoint, vec_normalize = CHECKPOINT.fullmatch(target.stem), self.get_vec_normalize_env()
        if self._is_running and checkpoint is not None and vec_normalize is not None:
            # Under the name that SB3's CheckpointCallback gives them
            name = f"{checkpoint['prefix']}_vecnormalize_{checkpoint['steps']}_steps.pkl"
            save_statistics(vec_normalize, target.with_name(name))
        with whole_file(target) as file:
            super().save(file, exclude, include)  # type: ignore[arg-type]
        state = target.resolve().with_name(RUN_STATE)
        if self._is_running and checkpoint is not None:
            self._states_due |= {state}
            self._checkpoint_states |= {state}
        elif not self._is_running and not self._keeps_state and state in self._checkpoint_states and self._is_complete:
            # The run is over, and its last model is saved.
            state.unlink(missing_ok=True)

    @contextmanager
    def keeping_state(self, folder: str | Path) -> Iterator[None]:
        """
        Keep the state of the run until all files of its end are saved.

        :param folder: folder of the run, whose state is removed at the end
        :return: a context
        """
        self._keeps_state = True
        try:
            yield
        finally:
            self._keeps_state = False
        if self._is_complete:
            Path(folder, RUN_STATE).unlink(missing_ok=True)

    def save_run_state(self, path: str | Path) -> None:
        """
        Save the state of the run, from which ``load_run_state`` goes on. While the model learns, it is written when the
        rollout is over, or when ``learn`` ends.

        :param path: path to the file
        :raises OSError: the file cannot be written
        """
        if self._is_running:
            self._states_due |= {Path(path).resolve()}
        elif self._pending_state is not None:
            raise ValueError("This model goes on from a state with its next learn(): until then, that is its state.")
        else:
            write_state(Path(path), self._run_state([]))

    def load_run_state(self, path: str | Path) -> None:
        """
        Put a model into the state of a run. The next ``learn`` goes on with it, whatever ``reset_num_timesteps`` says:
        ``model.learn(total_timesteps - model.num_timesteps, ...)``, with callbacks of the same kinds.

        :param path: path to the file that ``save_run_state`` wrote, or that a checkpoint has beside it
        :raises StateFileError: the file is damaged, or is of another algorithm or environment
        """
        chosen = {name: value for name in self.user_choices if (value := getattr(self, name)) is not None}
        state = read_state(Path(path))
        missing = _ENTRIES - state.keys()
        if missing:
            raise StateFileError(f"{path} is not the state of a run: it has no {', '.join(sorted(missing))}.")
        own = self._identity()
        for name, value in own.items():
            # States of earlier versions do not have all of them.
            if state.get(name, value) != value:
                raise StateFileError(
                    f"{path} is the state of another run: its {name.replace('_', ' ')} is {state.get(name)}, and that "
                    f"of this model is {value}. Make the model as the run made it."
                )
        try:
            # The attributes first: with them, parameters are read at their precision (see ``QPD.set_parameters``).
            set_plain_attributes(self, {**state["attributes"], **chosen})
            for name in ("ep_info_buffer", "ep_success_buffer"):
                setattr(self, name, deque(state["attributes"][name], maxlen=self._stats_window_size))
            self._restore_parameters(state["parameters"])
            self._restore_memory(state["replay_buffer"])
        except Exception as error:
            # Networks, optimizers and buffers raise many different types of exceptions.
            raise StateFileError(
                f"{path} does not fit this model ({type(error).__name__}: {' '.join(str(error).split())}): make it as "
                "the run made it, with the same policy, policy_kwargs and buffer_size."
            ) from error
        # These have been restored, and can be large.
        del state["parameters"], state["replay_buffer"]
        self._pending_state = state
        self._checkpoint_states = frozenset({Path(path).resolve()})

    @property
    def has_checkpoint_state(self) -> bool:
        """Whether the run can be resumed."""
        return any(path.is_file() for path in self._checkpoint_states)

    def _identity(self) -> dict[str, Any]:
        return {
            "algorithm": next(cls.__name__ for cls in type(self).__mro__ if cls.__module__.startswith("sb3_distill.")),
            "observation_space": str(self.observation_space),
            "action_space": str(self.action_space),
            "n_envs": self.n_envs,
            **{name: getattr(self, name, None) for name in ("student_keys", "teacher_keys")},
            "vec_env_wrappers": vec_wrapper_names(self.env) if self.env is not None else [],
        }

    def _run_state(self, callbacks: list[BaseCallback]) -> dict[str, Any]:
        assert self.env is not None
        return {
            **self._identity(),
            "total_timesteps": self._total_timesteps,
            "parameters": self.get_parameters(),
            "attributes": {name: to_plain(getattr(self, name)) for name in self.run_attributes},
            "replay_buffer": self._memory_state(),
            "environment": vec_env_state(self.env),
            "callbacks": [
                (type(each).__name__, changed_attributes(each, marks), _eval_env_state(each))
                for each, marks in zip(callbacks, self._callback_marks if callbacks else [], strict=True)
            ],
            "action_generator": generator_state(self.action_space.np_random),
            "generators": global_generators(),
            "tensorboard_run": tensorboard_run(self),
        }

    def _memory_state(self) -> dict[str, Any] | None:
        """What the next rollouts find from earlier ones: on-policy algorithms begin each with an empty memory."""
        return None

    def _restore_parameters(self, parameters: dict[str, Any]) -> None:
        self.set_parameters(parameters, exact_match=True, device=self.device)

    def _restore_memory(self, state: Any) -> None:
        """The opposite of ``_memory_state``."""

    def _go_on(self, state: dict[str, Any]) -> None:
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
        names = [type(each).__name__ for each in self._callbacks]
        if names != [name for name, *_ in state["callbacks"]]:
            known = ", ".join(name for name, *_ in state["callbacks"]) or "none"
            warnings.warn(
                f"The run had the callbacks {known}, and now has {', '.join(names)}: they begin anew, with their "
                "counters at zero."
            )
        else:
            for each, (_, attributes, eval_env) in zip(self._callbacks, state["callbacks"], strict=True):
                set_plain_attributes(each, attributes)
                if isinstance(each, EvalCallback) and eval_env is not None:
                    problem = restore_vec_env(each.eval_env, eval_env)
                    if problem is not None:
                        warnings.warn(
                            f"The evaluation environment's state could not be restored ({problem}): the evaluations "
                            "play other episodes than they would have played. All else goes on where it was."
                        )
        set_generator_state(self.action_space.np_random, state["action_generator"])
        set_global_generators(state["generators"])

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *args: Any, **kwargs: Any) -> Any:
        """As SB3's. The state of a run is written and restored before a rollout."""
        if self._pending_state is not None:
            state, self._pending_state = self._pending_state, None
            try:
                self._go_on(state)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise StateFileError(
                    f"The state does not fit the run ({type(error).__name__}: {error}): use another, or begin anew."
                ) from error
        self._write_states()
        if self.verbose > 0 and self._n_updates > 0:
            said = self._time_to_go.after(self.num_timesteps, self._total_timesteps)
            if said is not None:
                print(said)
        rollout = super().collect_rollouts(env, callback, *args, **kwargs)  # type: ignore[misc]
        # On-policy algorithms say nothing else than this.
        goes_on = getattr(rollout, "continue_training", rollout)
        if not goes_on and self._last_obs is not callback.locals["new_obs"]:
            # SB3 drops the step at which a callback stops the run, but the environment has done it.
            self._last_obs, self._last_episode_starts = callback.locals["new_obs"], callback.locals["dones"]
            if self._vec_normalize_env is not None:
                self._last_original_obs = self._vec_normalize_env.get_original_obs()
        return rollout

    def _write_states(self) -> None:
        paths, self._states_due = self._states_due, frozenset()
        for path in sorted(paths):
            try:
                # Later rows are cut off when the run goes on, because it writes them again.
                sizes = {file.name: flushed_size(file) for file in sorted(path.parent.glob("*monitor.csv"))}
                write_state(path, {**self._run_state([*self._callbacks]), "monitor_files": sizes})
            except (OSError, NotPlainError) as error:
                # The run is worth more than its state.
                warnings.warn(f"{error}. Until it can be, the run can be resumed only from an earlier state.")

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[int, BaseCallback]:
        assert self.env is not None
        install_tapes(self.env)
        with tensorboard_goes_on(self, (self._pending_state or {}).get("tensorboard_run")):
            total_timesteps, callback = super()._setup_learn(
                total_timesteps, callback, reset_num_timesteps, *args, **kwargs
            )
        self._callbacks = list(walk_callbacks(callback))
        self._callback_marks = [attribute_marks(each) for each in self._callbacks]
        for each in self._callbacks:
            if isinstance(each, EvalCallback):
                install_tapes(each.eval_env)
        saving = [each for each in self._callbacks if isinstance(each, CheckpointCallback)]
        if reset_num_timesteps:
            self._forget_states([each.save_path for each in saving])
        self._announce_memory()
        if saving:
            announce_checkpoints(self, callback, self._state_bytes(), install_tapes(self.env))
        self._time_to_go = TimeToGo()
        return total_timesteps, callback

    def _forget_states(self, folders: list[str]) -> None:
        """A new run replaces the one that was in its folders."""
        own, self._checkpoint_states = self._checkpoint_states, frozenset()
        for state in [Path(folder, RUN_STATE).resolve() for folder in folders]:
            if state.is_file() and state not in own:
                warnings.warn(f"{state} is removed: it is of an earlier run, and a new run begins in its folder.")
            state.unlink(missing_ok=True)

    def _announce_memory(self) -> None:
        announce_rollout(self)

    def _state_bytes(self) -> int:
        """About how many bytes of memory the state has at the end of the run."""
        return 0

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
            folders = {folder.resolve() for each in list_callbacks(callback) for folder in _folders_of(each)}
            with ExitStack() as locks:
                for folder in sorted(folders):
                    locks.enter_context(locked(folder, "saves its models"))
                super().learn(  # type: ignore[safe-super]
                    total_timesteps, callback, log_interval, tb_log_name, is_new, progress_bar
                )
                # Those of the last rollout
                self._write_states()
            self._is_complete = self.num_timesteps >= self._total_timesteps
        finally:
            # A state that is still pending stays so: this call has not come to its first step.
            self._is_running, self._states_due = False, frozenset()
        return self

    def _excluded_save_params(self) -> list[str]:
        own = "_is_running _is_complete _keeps_state _callbacks _callback_marks _states_due _checkpoint_states"
        return [*super()._excluded_save_params(), *own.split(), "_pending_state", "_time_to_go"]


def _folders_of(callback: BaseCallback) -> Iterator[Path]:
    """Where a callback, and those that it calls, save models."""
    for each in walk_callbacks(callback):
        name = "save_path" if isinstance(each, CheckpointCallback) else "best_model_save_path"
        if getattr(each, name, None) is not None:
            yield Path(getattr(each, name))


def _eval_env_state(callback: BaseCallback) -> dict[str, Any] | None:
    return vec_env_state(callback.eval_env) if isinstance(callback, EvalCallback) else None


def with_suffix(path: Path, suffix: str) -> Path:
    """
    :param path: a path
    :param suffix: an ending
    :return: the path, with that ending if it has none, as in SB3
    """
    return path if path.suffix else path.with_name(path.name + suffix)
