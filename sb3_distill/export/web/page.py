"""One page of HTML in which an exported student plays in the browser."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sb3_distill.envs.recipe import EnvRecipe
from sb3_distill.export.integer_policy import FULL, TANH, IntegerPolicy
from sb3_distill.reading.files import read_file
from sb3_distill.reading.limits import MAX_DATA_BYTES

WEB_FILE = "play.html"
_FOLDER = Path(__file__).parent
# Those of games.js, with the shapes of their observations
WEB_GAMES = {"CartPole-v1": (4,), "MinAtar/Breakout-v1": (10, 10, 4)}


def check_playable(env_id: str, recipe: EnvRecipe) -> None:
    """
    :param env_id: an environment
    :param recipe: how an agent's environments are made
    :raises ValueError: it is none of those that the page can play, or it is not played as it comes
    """
    if env_id not in WEB_GAMES:
        raise ValueError(f"--format web plays {' and '.join(WEB_GAMES)} in the browser, not {env_id}.")
    around = [wrapper.to_config() for wrapper in (*(recipe.wrappers or ()), *recipe.vec_wrappers)]
    if around or recipe.env_kwargs:
        raise ValueError(
            f"--format web plays {env_id} as it comes, but the agent was trained with wrappers {around} and arguments "
            f"{dict(recipe.env_kwargs)} of the environment."
        )


def read_play(folder: Path) -> str:
    """
    :param folder: what an export with a page was written into
    :return: the page
    :raises ValueError: there is none, or it is no text
    """
    try:
        return read_file(folder / WEB_FILE, MAX_DATA_BYTES).decode()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} has no page on which a student plays ({error}): write it with `sb3-distill export AGENT -o "
            f"{folder} --format web`."
        ) from error


def web_page(policy: IntegerPolicy, title: str, env_id: str, n_parameters: int) -> str:
    """
    :param policy: the policy in integers
    :param title: head of the page
    :param env_id: the game, one of ``WEB_GAMES``
    :param n_parameters: number of the agent's parameters
    :return: the page, which needs no other file and no network
    :raises ValueError: the policy is not one of discrete actions, its sums may need more than the 53 bits that numbers
        have in a browser, or it sees something else than the game's own observations
    """
    if policy.wide or policy.action_shape is not None:
        raise ValueError(
            "--format web needs discrete actions, and sums that fit into 32 bits: take fewer bits (--bits)."
        )
    if policy.shape != WEB_GAMES[env_id]:
        raise ValueError(f"--format web needs a policy that sees {WEB_GAMES[env_id]}, not {policy.shape}.")
    templates = Environment(
        loader=PackageLoader("sb3_distill.export", "web"), autoescape=True, undefined=StrictUndefined
    )
    scripts = {f"{name}_js": _safe((_FOLDER / f"{name}.js").read_text()) for name in ("policy", "games")}
    return templates.get_template("play.html.j2").render(
        title=title,
        n_parameters=f"{n_parameters:,}",
        env_id=_safe(json.dumps(env_id)),
        policy=_safe(json.dumps(as_json(policy))),
        **scripts,
    )


def _safe(script: str) -> Markup:
    """A script as it stands; nothing in it may end the element around it."""
    return Markup(script.replace("</", "<\\/"))


def as_json(policy: IntegerPolicy) -> dict[str, Any]:
    """
    :param policy: the policy in integers
    :return: what ``policy.js`` computes with
    """
    layers = []
    for layer in policy.layers:
        numbers = {name: _plain(value) for name, value in vars(layer).items()}
        layers.append(numbers | {"weight_shape": list(layer.weight.shape)})
    inputs = None if policy.inputs is None else {name: _plain(value) for name, value in vars(policy.inputs).items()}
    table = {"tanh": TANH.tolist(), "full": FULL}
    return {"n_actions": policy.n_actions, "inputs": inputs, "layers": layers, "table": table}


def _plain(value: Any) -> Any:
    # A float32 is one of the browser's numbers.
    return value.ravel().tolist() if isinstance(value, np.ndarray) else value
