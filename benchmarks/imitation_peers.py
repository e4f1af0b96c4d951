"""The pipelines of ``time_to_teacher``: ours and plain SB3 (``peers``), BC and DAgger of the package ``imitation``."""

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from benchmarks.crossing import CpuClock
from benchmarks.peers import End, Learn, OnProgress, Task, make_ours, make_plain
from sb3_distill import load_teacher
from sb3_distill.buffers.recordings import Recording
from sb3_distill.envs.recipe import is_atari
from sb3_distill.evaluation.players import mix_random_actions
from sb3_distill.networks.policies import STUDENT_POLICIES

# imitation 1.0.1 asks for Stable-Baselines3 2.2 and Gymnasium 0.29, but BC and DAgger run with 2.9: hence without its
# dependencies, and no extra
INSTALL = (
    "pip install --no-deps imitation sacred seals datasets huggingface_sb3 multiprocess dill pyarrow xxhash aiohttp "
    "docopt-ng munch wrapt py-cpuinfo colorama GitPython gitdb smmap jsonpickle lxml"
)
# How often a pipeline without rollouts looks at the clock, in updates
LOOK_EVERY = 20


def import_imitation() -> Any:
    """
    :return: the modules ``imitation.algorithms.bc``, ``imitation.algorithms.dagger``, and ``imitation.data.types``
    :raises SystemExit: the package is missing
    """
    try:
        from imitation.algorithms import bc, dagger
        from imitation.data import types
    except ImportError as error:
        raise SystemExit(
            f"--against imitation and dagger: {error}. Install imitation in an environment of its own: {INSTALL}"
        ) from error
    return bc, dagger, types


def actor_of(task: Task, env: VecEnv, frames: np.ndarray) -> BasePolicy:
    """
    :param frames: observations for the pixel statistics that our students have
    :return: the student as a policy of SB3 that ``imitation`` can train
    """
    policy_class: Any = STUDENT_POLICIES[task.policy()]
    kwargs = task.hyperparams().get("policy_kwargs", {})
    student = policy_class(env.observation_space, env.action_space, lambda _: 1e-3, **kwargs)
    th.manual_seed(task.seed)
    policy = ActorCriticPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 1e-3,
        net_arch=list(student.net_arch),
        activation_fn=th.nn.ReLU,
        features_extractor_class=student.features_extractor_class,
        features_extractor_kwargs=student.features_extractor_kwargs,
        normalize_images=student.normalize_images,
    )
    student.fit_frame_scalers.__func__(policy, th.as_tensor(frames))
    return policy


class BatchCounter:
    """What ``imitation`` calls after every minibatch. Only an exception stops its training."""

    def __init__(self, policy: BasePolicy, on_progress: OnProgress) -> None:
        self.policy, self.on_progress = policy, on_progress
        self.n_timesteps = self.n_updates = 0

    def __call__(self) -> None:
        self.n_updates += 1
        if self.n_updates % LOOK_EVERY == 0 and not self.on_progress(self.policy, self.n_timesteps, self.n_updates):
            raise StopIteration
        self.policy.set_training_mode(True)

    def at_the_end(self) -> End:
        """What a training returns."""
        return self.policy, self.n_timesteps, self.n_updates


def make_imitation(task: Task) -> Learn:
    """
    Behavioural cloning as the package ``imitation`` does it, with its own defaults: Adam at 1e-3, an entropy bonus, and
    minibatches of 32. It learns from all recorded steps from the start, in passes over them until it is stopped.
    """
    bc, _, types = import_imitation()
    recording = Recording(task.recording)
    n_rows = task.n_timesteps // recording.n_envs
    obs = np.concatenate([recording.observations(row) for row in range(n_rows)])
    actions = np.concatenate([recording.columns["actions"][row] for row in range(n_rows)])
    env = task.make_env(1)
    rng = np.random.default_rng(task.seed)
    policy = actor_of(task, env, obs[rng.choice(len(obs), min(1_000, len(obs)), replace=False)])
    trainer = bc.BC(
        observation_space=env.observation_space,
        action_space=env.action_space,
        rng=rng,
        policy=policy,
        # BC does not look at the observations after a step, but its loader wants them.
        demonstrations=types.Transitions(
            obs=obs, acts=actions, infos=np.array([{}] * len(obs)), next_obs=obs, dones=np.zeros(len(obs), bool)
        ),
        device="cpu",
    )

    def learn(on_progress: OnProgress, clock: CpuClock) -> End:
        counter = BatchCounter(policy, on_progress)
        counter.n_timesteps = len(obs)
        with contextlib.suppress(StopIteration):
            trainer.train(n_epochs=10**6, on_batch_end=counter, log_interval=10**9, progress_bar=False)
        return counter.at_the_end()

    return learn


class RandomActions(VecEnvWrapper):
    """Executes random actions now and then, as in our own play: two greedy Atari players can go on without an end."""

    def __init__(self, venv: VecEnv, epsilon: float, seed: int) -> None:
        super().__init__(venv)
        self.epsilon, self.rng = epsilon, np.random.default_rng(seed)

    def step_async(self, actions: np.ndarray) -> None:
        n_actions = self.action_space.n  # type: ignore[attr-defined]
        self.venv.step_async(mix_random_actions(actions, n_actions, self.epsilon, self.rng))

    def step_wait(self) -> Any:
        return self.venv.step_wait()

    def reset(self) -> Any:
        return self.venv.reset()


class DemosInMemory:
    """
    Keeps the games that DAgger plays, in place of ``imitation.data.serialize``: with that, a round of Pong takes more
    than 20 GB when it is read back.
    """

    def __init__(self) -> None:
        self.demos: dict[Path, Any] = {}

    def save(self, path: Path, trajectories: Any) -> None:
        """Keep them; DAgger looks for the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.demos[path] = trajectories

    def load(self, path: Path) -> Any:
        """What was saved there."""
        return self.demos[path]


def make_dagger(task: Task) -> Learn:
    """
    DAgger as the package ``imitation`` does it, with its own defaults: rounds of play in which the student takes over
    more and more from the teacher, and four passes over everything so far after each. It plays games of its own, for
    what a student will see cannot be recorded before. The clock counts them as play. On Atari 5% of the actions are
    random, as in the recordings.
    """
    bc, dagger, _ = import_imitation()
    dagger.serialize = DemosInMemory()
    env = task.make_env()
    if is_atari(task.env_id):
        env = RandomActions(env, 0.05, task.seed)
    env.seed(task.seed)
    rng = np.random.default_rng(task.seed)
    recording = Recording(task.recording)
    rows = rng.choice(task.n_timesteps // recording.n_envs, 1_000 // recording.n_envs, replace=False)
    policy = actor_of(task, env, np.concatenate([recording.observations(row) for row in rows]))
    expert: Any = load_teacher(task.teacher, device="cpu").policy
    # imitation wants equal spaces; Gymnasium has changed the bounds of some since the teacher was saved
    expert.observation_space = env.observation_space

    def learn(on_progress: OnProgress, clock: CpuClock) -> End:
        counter = BatchCounter(policy, on_progress)

        class Trainer(dagger.SimpleDAggerTrainer):  # type: ignore[name-defined]
            """Counts what is between rounds of training as play."""

            def create_trajectory_collector(self) -> Any:
                clock.play()
                return super().create_trajectory_collector()

            def extend_and_update(self, bc_train_kwargs: Any = None) -> int:
                clock.go()
                self._try_load_demos()
                counter.n_timesteps = sum(len(trajectory) for trajectory in self._all_demos)
                return super().extend_and_update(bc_train_kwargs)

        with TemporaryDirectory() as folder, contextlib.suppress(StopIteration):
            trainer = Trainer(
                venv=env,
                scratch_dir=folder,
                expert_policy=expert,
                rng=rng,
                bc_trainer=bc.BC(
                    observation_space=env.observation_space,
                    action_space=env.action_space,
                    rng=rng,
                    policy=policy,
                    device="cpu",
                ),
            )
            options = {"on_batch_end": counter, "log_interval": 10**9, "progress_bar": False, "log_rollouts_venv": None}
            trainer.train(task.n_timesteps, bc_train_kwargs={"n_epochs": trainer.DEFAULT_N_EPOCHS, **options})
        return counter.at_the_end()

    return learn


MAKERS = {"ours": make_ours, "plain": make_plain, "imitation": make_imitation, "dagger": make_dagger}
