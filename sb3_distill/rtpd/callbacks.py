"""Learning curves of a teacher and its students, evaluated after the same updates and from the same starts."""

import copy
import math
import warnings
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecEnvWrapper, VecNormalize, VecTransposeImage

from sb3_distill.agents.files import BEST_MODEL
from sb3_distill.base.callbacks import save_best_statistics
from sb3_distill.base.several.runs import write_student_run
from sb3_distill.common.utils import setting, show_whole_keys
from sb3_distill.envs.atari import NativeAtariVecEnv
from sb3_distill.envs.inspection import describe_space_mismatch, env_arguments_of, env_id_of, monitor_folder, spec_of
from sb3_distill.envs.make import make_eval_env
from sb3_distill.envs.recipe import atari_recipe, default_recipe, is_atari
from sb3_distill.evaluation.play import evaluate_paired
from sb3_distill.results.curves import CURVES_FILE, TEACHER, format_summary, plot_curves, write_csv
from sb3_distill.rtpd.runs import RealTimeRun


def eval_env_maker(env: VecEnv) -> Callable[[int], VecEnv]:
    """
    :param env: the training environment
    :return: a function that makes a new evaluation environment with a given number of sub-environments: the same
        environment, but with whole games as episodes, unclipped rewards, and the current VecNormalize statistics of the
        observations
    :raises ValueError: the environment is not registered, or its observation space differs from that of a new
        environment with its id, because of further wrappers
    """
    env_id = env_id_of(env)
    if env_id is None:
        raise ValueError(
            "Evaluations make a new environment, but the training environment has no registered id: register it with "
            f"gymnasium.register, or pass {setting('eval_freq', '-1')}."
        )
    env_kwargs = env_arguments_of(env)
    atari = is_atari(env_id)
    recipe = default_recipe(env_id, env.observation_space)
    if isinstance(env.unwrapped, NativeAtariVecEnv):
        settings = env.unwrapped.settings
        recipe = atari_recipe(
            recipe.frame_stack or 1,
            noop_max=settings.noop_max,
            frame_skip=settings.frame_skip,
            screen_size=settings.screen_size,
        )
    recipe = replace(recipe, env_kwargs=env_kwargs)
    outermost_last: list[VecEnvWrapper] = []
    inner = env
    while isinstance(inner, VecEnvWrapper):
        outermost_last.insert(0, inner)
        inner = inner.venv

    def make(n_envs: int) -> VecEnv:
        venv = make_eval_env(env_id, n_envs, recipe)
        for wrapper in outermost_last:
            # make_eval_env transposes the frames of Atari games itself.
            if isinstance(wrapper, VecTransposeImage) and not atari:
                venv = VecTransposeImage(venv, skip=wrapper.skip)
            elif isinstance(wrapper, VecNormalize):
                venv = VecNormalize(
                    venv,
                    training=False,
                    norm_obs=wrapper.norm_obs,
                    norm_reward=False,
                    clip_obs=wrapper.clip_obs,
                    epsilon=wrapper.epsilon,
                    norm_obs_keys=wrapper.norm_obs_keys,
                )
                if wrapper.norm_obs:
                    venv.obs_rms = copy.deepcopy(wrapper.obs_rms)
        return venv

    with closing(make(1)) as trial:
        # make_eval_env wraps Atari games differently, on purpose.
        missing = set() if atari else _wrappers_of(env) - _wrappers_of(trial)
        if missing:
            warnings.warn(
                f"Evaluations play a fresh {env_id}, without the training environment's {', '.join(missing)}. "
                "If the student needs them, register the wrapped environment under its own id."
            )
        problem = describe_space_mismatch(env.observation_space, trial.observation_space)
    if problem:
        raise ValueError(
            f"The training environment differs from a fresh {env_id}, on which evaluations would play: {problem} "
            f"Register the wrapped environment under its own id, or pass {setting('eval_freq', '-1')}."
        )
    return make


def _wrappers_of(env: VecEnv) -> set[str]:
    spec = spec_of(env)
    return set() if spec is None else {wrapper.name for wrapper in spec.additional_wrappers}


class StudentEvalCallback(BaseCallback):
    """
    Evaluates the teacher and all students every ``eval_freq`` updates (Sun & Fazli 2019: 25,000), all from the same
    starts, and writes the learning curves and the students into the run's folder.

    Logs ``eval/<player>_mean_reward``, appends to ``run.evaluations``, and calls ``run.keep_best_teacher`` at every new
    high score of the teacher. Files are written at every evaluation, so that the results of an interrupted run are not
    lost; ``best_model.zip`` is, for the teacher and for each student, that of its best evaluation.

    :param run: the run whose teacher and students are evaluated
    :param eval_freq: updates between two evaluations; -1: never (students are still written at the end)
    :param n_eval_episodes: number of episodes per player; 0: no evaluations
    :param epsilon: share of uniformly random actions
    :param results_dir: folder for ``learning_curves.csv``, ``learning_curves.png``, ``students/``; None: the folder of
        the Monitor files
    :param keeps_teacher: whether the teacher's best model is written, too; False where an ``EvalCallback`` writes one
    :param verbose: Verbosity level
    """

    def __init__(
        self,
        run: RealTimeRun,
        eval_freq: int,
        n_eval_episodes: int,
        epsilon: float,
        results_dir: str | None,
        keeps_teacher: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.run = run
        self.eval_freq = eval_freq
        self.n_eval_episodes = n_eval_episodes
        self.epsilon = epsilon
        self.results_dir = None if results_dir is None else Path(results_dir)
        self.keeps_teacher = keeps_teacher

    @property
    def evaluates(self) -> bool:
        """Whether this run has any evaluations."""
        return self.eval_freq > 0 and self.n_eval_episodes > 0

    def _on_training_start(self) -> None:
        if self.results_dir is None:
            self.results_dir = monitor_folder(self.training_env)
        if self.results_dir is None and isinstance(self.training_env.unwrapped, SubprocVecEnv):
            warnings.warn(
                "The Monitor's folder is not known for environments in other processes: learning curves and students "
                f"are written only to a folder that is named: pass {setting('results_dir', repr('FOLDER'))}."
            )
        if self.evaluates:
            show_whole_keys(self.logger, [f"{name}_mean_reward" for name in self.run.students])
            self.make_env = eval_env_maker(self.training_env)
            self._set_next_evaluation()

    def _set_next_evaluation(self) -> None:
        self.next_evaluation = (self.run._n_updates // self.eval_freq + 1) * self.eval_freq

    def _on_step(self) -> bool:
        if self.evaluates and self.run._n_updates >= self.next_evaluation:
            self._evaluate()
        return True

    def _on_training_end(self) -> None:
        if self.evaluates and self.run._n_updates >= self.next_evaluation:
            self._evaluate()
        else:
            self._write_results()
        if self.verbose > 0 and self.run.evaluations:
            print(format_summary(self.run.evaluations))

    def _write_results(self, best: Collection[str] = ()) -> None:
        if self.results_dir is None:
            return
        if self.run.evaluations:
            write_csv(self.run.evaluations, self.results_dir / CURVES_FILE)
            plot_curves(self.run.evaluations, self.results_dir / "learning_curves.png")
        for name in self.run.students:
            write_student_run(self.run, name, self.results_dir, is_best=name in best)
        if self.keeps_teacher and TEACHER in best:
            self.run.save(self.results_dir / BEST_MODEL)
            save_best_statistics(self.run.get_vec_normalize_env(), self.results_dir)

    def _evaluate(self) -> None:
        self._set_next_evaluation()
        run = self.run
        best = []
        scores: dict[str, float] = {}
        for name in (TEACHER, *run.students):
            policy = run.player(name)
            policy.set_training_mode(False)
            # All players have the same starts; the starts differ between evaluations.
            seed = (run.seed or 0) + 1_000_000 + run._n_updates
            score = evaluate_paired(policy, self.make_env, self.n_eval_episodes, self.epsilon, seed)
            scores[name] = score.mean
            earlier = (entry["mean_reward"] for entry in run.evaluations if entry["player"] == name)
            if score.mean > max(earlier, default=-math.inf):
                best.append(name)
            run.evaluations.append(
                {
                    "n_updates": run._n_updates,
                    "n_timesteps": run.num_timesteps,
                    "player": name,
                    "mean_reward": score.mean,
                    "std_reward": score.std,
                    "min_reward": float(min(score.returns)),
                    "max_reward": float(max(score.returns)),
                    "n_episodes": len(score.returns),
                }
            )
            self.logger.record(f"eval/{name}_mean_reward", score.mean)
        if TEACHER in best:
            run.keep_best_teacher()
        self.logger.record("time/total_timesteps", run.num_timesteps, exclude="tensorboard")
        self.logger.dump(run.num_timesteps)
        if self.verbose > 0:
            players = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
            print(f"Eval n_updates={run._n_updates}: {players}")
            gaps = run.describe_temperatures()
            if gaps is not None:
                print(gaps)
        self._write_results(best)
