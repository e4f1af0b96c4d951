"""The strict setting: ``strict:True`` puts the papers' settings (``hyperparams/strict.yml``) below the user's own."""

import copy
from collections.abc import Mapping
from typing import Any

from sb3_distill.agents.rebuild.classes import CLASSES
from sb3_distill.base.several.spec import name_students
from sb3_distill.common.files import default_config
from sb3_distill.envs.recipe import is_atari
from sb3_distill.reading.text import load_yaml
from sb3_distill.study.grid import merge

SWITCH = "strict"


def with_paper(algo: str, env_id: str, hyperparams: Mapping[str, Any], n_timesteps: int = 0) -> dict[str, Any]:
    """
    :param algo: key of the Zoo's ``--algo``
    :param env_id: id of the environment
    :param hyperparams: the user's hyperparameters, with or without ``strict``
    :param n_timesteps: length of the run, if the command line says it; else 0
    :return: the user's hyperparameters without ``strict``, above those of the paper if it is True
    :raises ValueError: ``strict`` is neither True nor False, the environment is no Atari game, there are no such
        settings for the algorithm, or ``policy_kwargs`` is a text
    """
    own = dict(hyperparams)
    strict = own.pop(SWITCH, False)
    if not isinstance(strict, bool):
        raise ValueError(f"strict must be True or False, not {strict!r}.")
    if not strict:
        return own
    if env_id.rpartition(":")[2] != "MultiTaskAtari-v0" and not is_atari(env_id):
        raise ValueError(
            f"strict:True has the settings that the papers have for Atari games, and {env_id} is none: leave it out."
        )
    if isinstance(own.get("policy_kwargs"), str):
        raise ValueError(
            f"strict:True adds to policy_kwargs, which is the text {own['policy_kwargs']!r:.80}: write the mapping "
            'itself, as policy_kwargs:"dict(net_arch=[64])".'
        )
    papers = _with_classes(load_yaml(default_config("strict")))
    if algo not in papers:
        known = ", ".join(name for name in papers if name.islower())
        raise ValueError(f"strict:True has no settings for {algo}, only for {known}: leave it out.")
    paper = papers["MaxPoolCnnPolicy" if (algo, own.get("policy")) == ("pd", "MaxPoolCnnPolicy") else algo]
    if "exploration_steps" in paper:
        total = n_timesteps if n_timesteps > 0 else float(own.get("n_timesteps", paper["n_timesteps"]))
        paper["exploration_fraction"] = min(1.0, paper.pop("exploration_steps") / total)
    each_student = paper.pop("each_student", {})
    if "students" in own:
        # Who names students names all of them.
        paper.pop("students", None)
    settings = merge(paper, own)
    if settings.get("students"):
        named = {
            name: e if isinstance(e, Mapping) else {"policy": e}
            for name, e in name_students(settings["students"]).items()
        }
        # Students of pd and qpd take over what they do not say, and have the paper's settings from the first one.
        own_settings = {"policy", "policy_kwargs"}
        settings["students"] = {
            name: copy.deepcopy(merge(each_student, entry) if algo == "rtpd" or own_settings & entry.keys() else entry)
            for name, entry in named.items()
        }
    return settings


def _with_classes(value: Any, key: str = "") -> Any:
    """A value of the file, with classes in the place of their names."""
    if isinstance(value, Mapping):
        return {name: _with_classes(entry, name) for name, entry in value.items()}
    return CLASSES[key][value] if key == "optimizer_class" else value
