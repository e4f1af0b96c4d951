"""Writes a student as a stock zip of Stable-Baselines3."""

from pathlib import Path

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import obs_as_tensor

from sb3_distill.agents.load import load_teacher
from sb3_distill.agents.rebuild.stock import stock_model
from sb3_distill.common.files import file_name, whole_file
from sb3_distill.evaluation.environments import find_env_id
from sb3_distill.evaluation.observations import CHECKING_SEED, record_observations
from sb3_distill.export.export import ExportError, disagreement
from sb3_distill.state.memory import map_state


def export_stock(
    source: str | Path | BaseAlgorithm,
    folder: str | Path,
    env_id: str | None = None,
    n_observations: int = 1_000,
    max_disagreement: float = 0.01,
    allow_pickle: bool = False,
) -> tuple[Path, float]:
    """
    Write a student as a stock DQN or PPO zip (see ``stock_model``), and check that it acts as the student does.

    :param source: the student (see ``load_teacher``)
    :param folder: the folder, in which the zip has the name of the environment
    :param env_id: the environment in which it plays for the check; None: its own
    :param n_observations: number of observations on which it is checked
    :param max_disagreement: share of them at which it may choose another action
    :param allow_pickle: see ``load_teacher``
    :return: the zip, and the share of observations at which it chooses another action than the student
    :raises AgentError: the student cannot be loaded, or be a stock model
    :raises ExportError: it would choose other actions more often; nothing is written
    :raises OSError: the file cannot be written
    """
    agent = load_teacher(source, device="cpu", allow_pickle=allow_pickle)
    model = stock_model(agent)
    env_id = find_env_id(agent, env_id)
    observations = record_observations(agent, env_id, n_observations, CHECKING_SEED).values
    # The stock model stands behind VecNormalize where the student did.
    seen = map_state(th.Tensor.numpy, agent.normalize(obs_as_tensor(observations, agent.device)))
    actions = model.predict(seen, deterministic=True)[0]
    share = disagreement(actions, agent.predict(observations)[0], agent.action_space)
    if share > max_disagreement:
        raise ExportError(
            f"Not written: the stock model would choose another action than {agent.source} at {share:.1%} of "
            f"{n_observations} observations, more than the {max_disagreement:.1%} of --max-disagreement. Where "
            "layers are quantized, it does not round their inputs: allow more, or distill a student of full precision."
        )
    path = Path(folder) / f"{file_name(env_id)}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        model.save(file)  # type: ignore[arg-type]
    return path, share
