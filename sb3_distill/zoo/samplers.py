"""Search spaces for the Zoo's ``--optimize-hyperparameters``, in the form of ``rl_zoo3.hyperparams_opt``."""

import ast
from typing import Any

import optuna

# Hidden layers of students for vector observations, at most the [64, 64] of SB3's DQN
NET_ARCH = {
    "tiny": [16],
    "small": [16, 16],
    "medium": [32, 32],
    "big": [64, 64],
}


def convert_pd_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Turn the sampled values into arguments of ``PolicyDistillation``.

    :param sampled_params: the parameters of a trial
    :return: keyword arguments
    """
    hyperparams = sampled_params.copy()
    if "net_arch" in hyperparams:
        hyperparams["policy_kwargs"] = {"net_arch": NET_ARCH[hyperparams.pop("net_arch")]}
    return hyperparams


def sample_pd_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Sampler for ``PolicyDistillation`` hyperparams.

    Hidden layers are sampled only for ``MlpPolicy``. Policies for images, such as ``Net1Policy``, are the networks of
    the papers, which sampled hidden layers would change: choose one with ``-params policy:"'Net3Policy'"``.

    :param trial: trial of the study
    :param n_actions: not used, the action spaces are discrete
    :param n_envs: not used
    :param additional_args: not used, there are no goals to relabel
    :return: keyword arguments of ``PolicyDistillation``
    """
    hyperparams: dict[str, Any] = {
        "loss": trial.suggest_categorical("loss", ["kl", "reverse_kl", "nll", "mse"]),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
    }
    if hyperparams["loss"] in ("kl", "reverse_kl"):
        # The other losses have no temperature.
        hyperparams["temperature"] = trial.suggest_float("temperature", 1e-3, 1.0, log=True)
    # The sampler has no argument with the policy, but the Zoo stores the run's hyperparameters in the study.
    if trial.study.user_attrs.get("policy") == "MlpPolicy":
        hyperparams["net_arch"] = trial.suggest_categorical("net_arch", list(NET_ARCH))
    return convert_pd_params(hyperparams)


def sample_rtpd_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Sampler for ``RealTimeDistillDQN`` hyperparams. Only those of the students are sampled: the teacher is an ordinary
    DQN, which ``--algo dqn`` can tune.

    :param trial: trial of the study
    :param n_actions: not used, the action spaces are discrete
    :param n_envs: not used
    :param additional_args: not used, there are no goals to relabel
    :return: keyword arguments of ``RealTimeDistillDQN``
    """
    hyperparams: dict[str, Any] = {
        "loss": trial.suggest_categorical("loss", ["kl", "reverse_kl"]),
        "temperature": trial.suggest_float("temperature", 1e-3, 1.0, log=True),
        "self_learning": trial.suggest_categorical("self_learning", [0.0, 0.1, 1.0, 10.0]),
        "imitation": trial.suggest_categorical("imitation", [True, False]),
    }
    # Evaluate the trial by the score of the first student, since the teacher's score does not depend on the sampled
    # values. The Zoo stores the run's hyperparameters in the study as text.
    try:
        students = ast.literal_eval(trial.study.user_attrs.get("students", "None"))
    except (SyntaxError, ValueError):
        students = None
    if isinstance(students, dict):
        hyperparams["act_with"] = next(iter(students))
    return hyperparams


def sample_mtpd_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Sampler for ``MultiTaskDistillation`` hyperparams.

    :param trial: trial of the study
    :param n_actions: not used, the action spaces are discrete
    :param n_envs: not used
    :param additional_args: not used, there are no goals to relabel
    :return: keyword arguments of ``MultiTaskDistillation``
    """
    hyperparams: dict[str, Any] = {
        "loss": trial.suggest_categorical("loss", ["kl", "reverse_kl", "nll", "mse"]),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        "task_sampling": trial.suggest_categorical("task_sampling", ["random", "equal"]),
    }
    if hyperparams["loss"] in ("kl", "reverse_kl"):
        hyperparams["temperature"] = trial.suggest_float("temperature", 1e-3, 1.0, log=True)
    return hyperparams


def sample_mtdqn_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Sampler for ``MultiTaskDQN`` hyperparams.

    :param trial: trial of the study
    :param n_actions: not used, the action spaces are discrete
    :param n_envs: not used
    :param additional_args: not used, there are no goals to relabel
    :return: keyword arguments of ``MultiTaskDQN``
    """
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        "gamma": trial.suggest_categorical("gamma", [0.9, 0.95, 0.98, 0.99, 0.995, 0.999]),
        "exploration_fraction": trial.suggest_float("exploration_fraction", 0.05, 0.5),
        "exploration_final_eps": trial.suggest_float("exploration_final_eps", 0.01, 0.2),
        "target_update_interval": trial.suggest_categorical("target_update_interval", [10, 100, 1000, 10000]),
        "task_sampling": trial.suggest_categorical("task_sampling", ["random", "equal"]),
    }


def sample_qpd_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Sampler for ``QPD`` hyperparams.

    :param trial: trial of the study
    :param n_actions: not used
    :param n_envs: not used
    :param additional_args: not used, there are no goals to relabel
    :return: keyword arguments of ``QPD``
    """
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "temperature": trial.suggest_float("temperature", 0.1, 1.0, log=True),
        "value_coef": trial.suggest_categorical("value_coef", [0.0, 0.01, 0.1, 0.5]),
        "weight_bits": trial.suggest_int("weight_bits", 2, 8),
        "activation_bits": trial.suggest_int("activation_bits", 2, 8),
        "quantization_schedule": trial.suggest_categorical("quantization_schedule", ["blend", "bits"]),
        "full_precision_fraction": trial.suggest_categorical("full_precision_fraction", [0.2, 0.4, 0.6]),
    }


HYPERPARAMS_SAMPLER = {
    "qpd": sample_qpd_params,
    "pd": sample_pd_params,
    "rtpd": sample_rtpd_params,
    "mtpd": sample_mtpd_params,
    "mtdqn": sample_mtdqn_params,
}

# Convert sampled values to hyperparameters
HYPERPARAMS_CONVERTER = {
    "qpd": dict,
    "pd": convert_pd_params,
    "rtpd": dict,
    "mtpd": dict,
    "mtdqn": dict,
}
