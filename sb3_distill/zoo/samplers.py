"""Search spaces for the Zoo's ``--optimize-hyperparameters``, in the form of ``rl_zoo3.hyperparams_opt``."""

import ast
import inspect
from typing import Any

import optuna

from sb3_distill.algorithms import resolve
from sb3_distill.quantization.precision import BITS
from sb3_distill.quantization.quantizer import MAX_BITS, MIN_BITS

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
    DQN, which ``--algo dqn`` can tune. A trial's score is that of one student, see ``_scored_student``.

    :param trial: trial of the study
    :param n_actions: not used, the action spaces are discrete
    :param n_envs: not used
    :param additional_args: not used, there are no goals to relabel
    :return: keyword arguments of ``RealTimeDistillDQN``
    :raises ValueError: there are no students, or their names cannot be read
    """
    name, own = _scored_student(trial.study.user_attrs)
    hyperparams: dict[str, Any] = {}
    # What the student states itself does not come from these arguments.
    if "loss" not in own:
        hyperparams["loss"] = trial.suggest_categorical("loss", ["kl", "reverse_kl"])
    if "temperature" not in own and own.get("loss") not in ("nll", "mse"):
        hyperparams["temperature"] = trial.suggest_float("temperature", 1e-3, 1.0, log=True)
    if "self_learning" not in own:
        hyperparams["self_learning"] = trial.suggest_categorical("self_learning", [0.0, 0.1, 1.0, 10.0])
    if "imitation" not in own and {**hyperparams, **own}["self_learning"] > 0:
        # It chooses the target of self-learning.
        hyperparams["imitation"] = trial.suggest_categorical("imitation", [True, False])
    return {**hyperparams, "act_with": name}


def _scored_student(settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """
    The student whose score is the trial's (the teacher's depends on nothing that is sampled): the one that the user
    names with ``act_with``, or the first.

    :param settings: the run's hyperparameters as text, as the Zoo stores them in the study
    :return: its name, and the settings of its own
    :raises ValueError: there is none, or its name cannot be read
    """
    from sb3_distill.base.several.spec import name_students

    try:
        students = name_students(ast.literal_eval(settings.get("students", "None")) or {})
    except (SyntaxError, ValueError):
        students = None
    name = settings.get("act_with", "teacher")
    if name == "teacher":
        if students is None:
            raise ValueError(
                "The search needs the name of the student that is scored, and cannot read it from students="
                f"{settings['students']}: name it with -params act_with:\"'NAME'\"."
            )
        if not students:
            raise ValueError(
                "rtpd has no students whose hyperparameters could be searched: name them with -params students:..., or "
                "search those of the teacher with --algo dqn."
            )
        name = next(iter(students))
    entry = (students or {}).get(name)
    return name, {key: value for key, value in entry.items() if value is not None} if isinstance(entry, dict) else {}


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


def convert_qpd_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Turn the sampled values into arguments of ``QPD``.

    :param sampled_params: the parameters of a trial
    :return: keyword arguments
    """
    hyperparams = sampled_params.copy()
    if "bits" in hyperparams:
        hyperparams |= dict.fromkeys(BITS, hyperparams.pop("bits"))
    return hyperparams


def sample_qpd_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Sampler for ``QPD`` hyperparams.

    One number of bits is sampled for all layers, so that it is the student's, however many layers there are. Students
    of full precision (``weight_bits=None``) stay so.

    :param trial: trial of the study
    :param n_actions: not used
    :param n_envs: not used
    :param additional_args: not used, there are no goals to relabel
    :return: keyword arguments of ``QPD``
    """
    hyperparams: dict[str, Any] = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "temperature": trial.suggest_float("temperature", 0.1, 1.0, log=True),
        "value_coef": trial.suggest_categorical("value_coef", [0.0, 0.0001, 0.001, 0.01, 0.1]),
    }
    return convert_qpd_params(hyperparams | _sample_bits(trial, "qpd"))


def _sample_bits(trial: optuna.Trial, algo: str) -> dict[str, Any]:
    default = inspect.signature(resolve(algo)).parameters["weight_bits"].default
    if trial.study.user_attrs.get("weight_bits", str(default)) == "None":
        return {}
    return {
        "bits": trial.suggest_int("bits", MIN_BITS, MAX_BITS),
        "quantization_schedule": trial.suggest_categorical("quantization_schedule", ["blend", "bits"]),
        "full_precision_fraction": trial.suggest_categorical("full_precision_fraction", [0.2, 0.4, 0.6]),
    }


def sample_ppd_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Sampler for ``ProximalPolicyDistillation`` hyperparams. The network stays as it is, since its size is what a student
    is for; bits are sampled as for ``QPD``.

    :param trial: trial of the study
    :param n_actions: not used
    :param n_envs: not used
    :param additional_args: not used, there are no goals to relabel
    :return: keyword arguments of ``ProximalPolicyDistillation``
    """
    hyperparams: dict[str, Any] = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        "distill_coef": trial.suggest_float("distill_coef", 0.1, 10.0, log=True),
        "temperature": trial.suggest_float("temperature", 0.1, 1.0, log=True),
        "clip_range": trial.suggest_categorical("clip_range", [0.1, 0.2, 0.3, 0.4]),
        "n_epochs": trial.suggest_categorical("n_epochs", [1, 5, 10, 20]),
        "ent_coef": trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
    }
    return convert_qpd_params(hyperparams | _sample_bits(trial, "ppd"))


HYPERPARAMS_SAMPLER = {
    "qpd": sample_qpd_params,
    "ppd": sample_ppd_params,
    "pd": sample_pd_params,
    "rtpd": sample_rtpd_params,
    "mtpd": sample_mtpd_params,
    "mtdqn": sample_mtdqn_params,
}

# Convert sampled values to hyperparameters
HYPERPARAMS_CONVERTER = {
    "qpd": convert_qpd_params,
    "ppd": convert_qpd_params,
    "pd": convert_pd_params,
    "rtpd": dict,
    "mtpd": dict,
    "mtdqn": dict,
}
