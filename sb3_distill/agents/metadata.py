"""What the files of an agent say besides its weights: algorithm, spaces, normalisation, recorded score."""

import re
import warnings
from dataclasses import replace
from typing import Any

import gymnasium as gym

from sb3_distill.agents.config import read_keywords, read_yaml
from sb3_distill.agents.files import AgentError, AgentFiles, EvaluationScore
from sb3_distill.agents.normalization import Normalization, read_normalization
from sb3_distill.agents.rebuild import BUILDERS
from sb3_distill.envs.recipe import EnvRecipe, read_wrappers
from sb3_distill.reading.arrays import read_npz
from sb3_distill.reading.limits import MAX_DATA_BYTES

# Attributes that only this algorithm has, or only this one and those further down
_OF_STUDENTS = {"distill_coef": "ppd", "weight_bits": "qpd", "student_temperature": "pd"}
_STUDENT_POLICIES = ("sb3_distill.networks.policies", "sb3_distill.networks.actor_critic_policies")
# Far more frames than anybody stacks
MAX_FRAMES = 100


def plain_text(value: Any) -> str | None:
    """The value if it is text."""
    return value if isinstance(value, str) else None


def plain_entries(value: Any) -> dict[str, Any]:
    """The entries of an attribute that are plain JSON; pickled ones stay unread."""
    return {key: entry for key, entry in value.items() if not key.startswith(":")} if isinstance(value, dict) else {}


def registered_name(name: str) -> str | None:
    """The name if it is that of a registered environment."""
    return name if name in gym.registry else None


def find_algo(data: dict[str, Any], named: Any) -> str:
    """The algorithm: what the run says, else what the attributes tell."""
    module = str(plain_entries(data.get("policy_class")).get("__module__", ""))
    other_answers = re.fullmatch(r"sb3_contrib\.common\.(?P<kind>recurrent|maskable)\.policies", module)
    if other_answers is not None:
        # Whatever the folder is called
        return "ppo_lstm" if other_answers["kind"] == "recurrent" else "ppo_mask"
    student = next((algo for attribute, algo in _OF_STUDENTS.items() if attribute in data), None)
    if student is not None and module in _STUDENT_POLICIES:
        # Whatever the folder is called, this is no agent of DQN or PPO.
        return student
    if isinstance(named, str) and named in BUILDERS:
        return named
    if module == "stable_baselines3.td3.policies" and data.get("policy_delay") == 1:
        # DDPG is a TD3 without its three tricks.
        return "ddpg" if data.get("target_noise_clip") == 0.0 else "td3"
    by_module = {
        "stable_baselines3.dqn.policies": "dqn",
        "sb3_contrib.qrdqn.policies": "qrdqn",
        "sb3_distill.networks.policies": "pd",
        "sb3_distill.networks.actor_critic_policies": "qpd",
        "sb3_distill.networks.multi_task": "mtpd",
    }
    if module in by_module:
        return by_module[module]
    if module.startswith("sb3_distill.") and not module.startswith("sb3_distill.networks."):
        raise AgentError(f"The policy class of {module} is of an earlier version: train the student anew.")
    stock = module.startswith(("stable_baselines3.", "sb3_contrib."))
    if stock and module != "stable_baselines3.common.policies":
        # Such as stable_baselines3.sac.policies
        return module.removesuffix(".policies").rsplit(".", 1)[-1]
    # Attributes that only this algorithm has, or only this one and those further down
    attributes = {
        "task_sampling": "mtpd",
        # rtpd, whose agent is a DQN
        "act_with": "dqn",
        **_OF_STUDENTS,
        "cg_max_steps": "trpo",
        "clip_range": "ppo",
        "n_quantiles": "qrdqn",
        "exploration_fraction": "dqn",
        "gae_lambda": "a2c",
        "top_quantiles_to_drop_per_net": "tqc",
        "target_policy_noise": "td3",
        "n_delta": "ars",
        "policy_delay": "crossq",
        "target_entropy": "sac",
    }
    return next((algo for attribute, algo in attributes.items() if attribute in data), str(named))


def find_keys(data: dict[str, Any], attribute: str = "student_keys") -> str | list[str] | None:
    """
    What a student or its teacher sees of Dict observations.

    :param data: the attributes in the student's zip
    :param attribute: "student_keys" or "teacher_keys"
    :return: a key, several keys, or None
    :raises AgentError: something else stands there
    """
    keys = data.get(attribute)
    if keys is None or isinstance(keys, str):
        return keys
    if isinstance(keys, list) and keys and all(isinstance(key, str) for key in keys):
        return keys
    raise AgentError(f"{attribute} must be a key of the observations or a list of keys, not {keys!r:.80}.")


def find_normalization(files: AgentFiles, config: dict[str, Any]) -> Normalization | None:
    """
    VecNormalize's statistics of an agent.

    :param files: its files
    :param config: its hyperparameters
    :return: the statistics, None where observations were not normalised
    :raises AgentError: they were, and the statistics are missing
    """
    if files.normalization is not None:
        return read_normalization(files.normalization)
    normalize = config.get("normalize", False)
    options = read_keywords(normalize) if isinstance(normalize, (str, dict)) else {}
    if normalize and options.get("norm_obs", True):
        raise AgentError(
            f"{files.folder}/config.yml says that observations were normalised, but {files.folder}/vecnormalize.pkl is "
            "missing: without these statistics the agent sees nothing as it did. Put the file there, or beside the zip."
        )
    return None


def find_recipe(
    files: AgentFiles, config: dict[str, Any], arguments: dict[str, Any], own_frames: Any = None
) -> EnvRecipe | None:
    """
    How the environments of a run were made. The Zoo's ``enjoy`` looks in the same places.

    :param files: the run's files
    :param config: its hyperparameters
    :param arguments: its command line
    :param own_frames: ``frame_stack`` of the zip, which ``sb3-distill fit`` writes; it takes precedence
    :return: what the files say; None where there are none
    :raises AgentError: an entry is of another form than the Zoo writes
    """
    if isinstance(own_frames, int) and 1 < own_frames <= MAX_FRAMES:
        return replace(find_recipe(files, config, arguments) or EnvRecipe(), frame_stack=own_frames)
    if not config and not arguments:
        return None
    packages = arguments.get("gym_packages") or ()
    recipe = EnvRecipe(
        read_keywords(arguments.get("env_kwargs") or config.get("env_kwargs") or {}),
        gym_packages=tuple(map(str, packages)) if isinstance(packages, list) else (),
    )
    if not config:
        return recipe
    where = f"{files.yaml('config.yml')}: "
    # The Zoo's configurations have the entry only if frames are stacked.
    frame_stack = config.get("frame_stack") or 1
    if not isinstance(frame_stack, int) or not 1 <= frame_stack <= MAX_FRAMES:
        raise AgentError(
            f"{where}frame_stack must be a number of frames, not {frame_stack!r}; at most {MAX_FRAMES} are stacked."
        )
    try:
        return replace(
            recipe,
            wrappers=read_wrappers(config.get("env_wrapper"), f"{where}env_wrapper"),
            vec_wrappers=read_wrappers(config.get("vec_env_wrapper"), f"{where}vec_env_wrapper"),
            frame_stack=frame_stack,
        )
    except ValueError as error:
        raise AgentError(str(error)) from error


def read_score(files: AgentFiles) -> EvaluationScore | dict[str, Any] | None:
    """The score that the run folder records: its results.yml, else the best of its evaluations."""
    content = read_yaml(files.yaml("results.yml"))
    results = content.get("evaluation")
    if isinstance(results, list) and results and isinstance(results[0], dict):
        return dict(results[0])
    if isinstance(content.get("mean_reward"), (int, float)):
        return {name: value for name, value in content.items() if isinstance(value, (int, float))}
    path = files.run_folder / "evaluations.npz" if files.run_folder else None
    if path is None or not path.is_file():
        return None
    try:
        returns = read_npz(path, MAX_DATA_BYTES)["results"]
        if returns.ndim != 2 or returns.size == 0 or returns.dtype.kind not in "biuf":
            raise ValueError(f"its results are of shape {returns.shape}, not (evaluations, episodes)")
    except Exception as error:
        # The record of a score is damaged in as many ways as there are formats in it; the agent is not.
        warnings.warn(
            f"{path} cannot be read ({type(error).__name__}: {error}): the agent's recorded score is unknown."
        )
        return None
    means = returns.mean(axis=1)
    best, last = int(means.argmax()), len(means) - 1
    # Deviations as SB3's EvalCallback and the Zoo's results.yml have them: divided by n, not by n - 1.
    return EvaluationScore(
        best_mean=float(means[best]),
        best_std=float(returns[best].std()),
        last_mean=float(means[last]),
        last_std=float(returns[last].std()),
        episodes=int(returns.shape[1]),
    )
