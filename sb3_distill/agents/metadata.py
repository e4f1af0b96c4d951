"""What the files of an agent tell beside its weights: algorithm, spaces, normalisation, recorded score."""

import re
from collections import OrderedDict
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_distill.agents.agent import EvaluationScore
from sb3_distill.agents.config import read_keywords, read_yaml
from sb3_distill.agents.files import AgentError, AgentFiles
from sb3_distill.agents.normalization import Normalization, read_normalization
from sb3_distill.agents.rebuild import BUILDERS


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
    if isinstance(named, str) and named in BUILDERS:
        return named
    module = str(plain_entries(data.get("policy_class")).get("__module__", ""))
    by_module = {
        "stable_baselines3.dqn.policies": "dqn",
        "sb3_contrib.qrdqn.policies": "qrdqn",
        "sb3_distill.networks.policies": "pd",
        "sb3_distill.networks.actor_critic_policies": "qpd",
        "sb3_distill.networks.multi_task": "mtpd",
    }
    if module in by_module:
        return by_module[module]
    stock = module.startswith(("stable_baselines3.", "sb3_contrib."))
    if stock and module != "stable_baselines3.common.policies":
        # Such as stable_baselines3.sac.policies and sb3_contrib.common.recurrent.policies
        return module.removesuffix(".policies").rsplit(".", 1)[-1]
    attributes = {"cg_max_steps": "trpo", "clip_range": "ppo", "exploration_fraction": "dqn", "gae_lambda": "a2c"}
    return next((algo for attribute, algo in attributes.items() if attribute in data), str(named))


def read_space(data: dict[str, Any], name: str, env_id: str | None) -> spaces.Space:
    """A space from the text that SB3 writes beside its pickle; bounds that it abbreviates come from the environment."""
    summary = plain_entries(data.get(name))
    # plain_entries leaves the type out: its name begins with a colon, as that of the pickle does.
    kind = str(data[name].get(":type:", "")).strip("<>'").rsplit(".", 1)[-1] if summary else ""
    if kind == "Discrete":
        return spaces.Discrete(int(summary["n"]), start=int(summary.get("start", 0)))
    if kind == "Dict" and "spaces" in summary:
        return _read_dict_space(str(summary["spaces"]))
    shape = summary.get("_shape", summary.get("shape"))
    if kind == "Box" and shape is not None:
        dtype = np.dtype(summary["dtype"])
        if dtype == np.uint8:
            return spaces.Box(0, 255, tuple(shape), np.uint8)
        bounds = [_read_bounds(summary.get(end), tuple(shape), dtype) for end in ("low", "high")]
        if bounds[0] is not None and bounds[1] is not None:
            return spaces.Box(bounds[0], bounds[1], dtype=dtype.type)
        registered = _space_of_env(env_id, name)
        if registered is not None and registered.shape == tuple(shape):
            return registered
        return spaces.Box(-np.inf, np.inf, tuple(shape), dtype.type)
    registered = _space_of_env(env_id, name)
    if registered is not None:
        return registered
    raise AgentError(
        f"The {name} ({kind or 'unknown'}) is pickled and its environment is not registered here: pass env_id=, or "
        "give the agent as a loaded SB3 model."
    )


_SUBSPACE = re.compile(
    r"'(?P<key>[^']+)'[:,] (?:Box\([^()]*\((?P<shape>[\d, ]*)\), (?P<dtype>\w+)\)|Discrete\((?P<n>\d+)\))"
)


def _read_dict_space(text: str) -> spaces.Dict:
    """The boxes and discrete spaces in the text of a Dict space, in its order, which is that of the features."""
    subspaces: OrderedDict[str, spaces.Space] = OrderedDict()
    for found in _SUBSPACE.finditer(text):
        if found["n"] is not None:
            subspaces[found["key"]] = spaces.Discrete(int(found["n"]))
        else:
            shape = tuple(int(size) for size in found["shape"].split(",") if size.strip())
            dtype: Any = np.dtype(found["dtype"]).type
            low, high = (0, 255) if dtype is np.uint8 else (-np.inf, np.inf)
            subspaces[found["key"]] = spaces.Box(low, high, shape, dtype)
    return spaces.Dict(subspaces)


def _read_bounds(text: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
    try:
        values = np.array(str(text).replace("[", " ").replace("]", " ").split(), dtype=dtype)
        return values.reshape(shape)
    except ValueError:
        return None


def _space_of_env(env_id: str | None, name: str) -> spaces.Space | None:
    if env_id is None or env_id not in gym.registry:
        return None
    try:
        env = gym.make(env_id)
    except (gym.error.Error, ImportError):
        # Registered, but without what it needs, such as MuJoCo
        return None
    space: spaces.Space = getattr(env, name)
    env.close()
    return space


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
            "missing: without these statistics the agent sees nothing as it did. Put the file there."
        )
    return None


def read_score(files: AgentFiles) -> EvaluationScore | dict[str, Any] | None:
    """The score that the run folder records: its results.yml, else the best of its evaluations."""
    results = read_yaml(files.yaml("results.yml")).get("evaluation")
    if isinstance(results, list) and results and isinstance(results[0], dict):
        return dict(results[0])
    path = files.run_folder / "evaluations.npz" if files.run_folder else None
    if path is None or not path.is_file():
        return None
    try:
        returns = np.load(path, allow_pickle=False)["results"]
    except Exception:
        # The record of a score is damaged in as many ways as there are formats in it; the agent is not.
        return None
    if returns.ndim != 2 or returns.size == 0:
        return None
    means = returns.mean(axis=1)
    best, last = int(means.argmax()), len(means) - 1
    return EvaluationScore(
        best_mean=float(means[best]),
        best_std=float(returns[best].std()),
        last_mean=float(means[last]),
        last_std=float(returns[last].std()),
        episodes=int(returns.shape[1]),
    )
