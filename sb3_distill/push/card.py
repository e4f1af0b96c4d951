"""The model card of an agent: what it is, what it scores beside its teacher, and how to load it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.sources import env_name_of_run, zoo_roots
from sb3_distill.common.files import file_name
from sb3_distill.evaluation.table import cells_of, footnotes, header
from sb3_distill.results.row import Row
from sb3_distill.results.tables import format_markdown


def public_name(source: str) -> str:
    """
    :param source: where an agent was found
    :return: the same without the folders of this machine: of a path, the last two parts
    """
    return source if source.startswith(("zoo:", "hub:")) else "/".join(Path(source).parts[-2:])


def _zoo_name(source: str) -> str:
    """The name of an agent of the Zoo that a run has found on this machine, under which others find it too."""
    run = Path(source)
    env_name = env_name_of_run(run)
    is_of_zoo = env_name is not None and run.parent.parent.resolve() in [root.resolve() for root in zoo_roots()]
    return f"zoo:{run.parent.name}/{env_name}" if is_of_zoo else source


def _quoted(word: str) -> str:
    """A word of a command line; in double quotes, as the Zoo's documentation has them, where that is possible."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _public(value: Any) -> Any:
    """A setting without the folders of this machine."""
    if isinstance(value, dict):
        return {key: _public(each) for key, each in value.items()}
    return public_name(value) if isinstance(value, str) and Path(value).is_absolute() else value


def training_command(args: Mapping[str, Any], taught_by: str | None = None) -> str:
    """
    :param args: the content of a run's args.yml
    :param taught_by: the teacher, which the run may have found by itself; None: the agent names none
    :return: the command of the Zoo that trains such an agent; empty if the run names none
    """
    if not args.get("algo") or not args.get("env"):
        return ""
    words = ["python", "-m", "rl_zoo3.train", "--algo", str(args["algo"]), "--env", str(args["env"])]
    if isinstance(args.get("seed"), int) and args["seed"] >= 0:
        words += ["--seed", str(args["seed"])]
    if isinstance(args.get("n_timesteps"), int) and args["n_timesteps"] > 0:
        words += ["-n", str(args["n_timesteps"])]
    found = {} if taught_by is None else {"teacher": public_name(_zoo_name(taught_by))}
    params = {**found, **(args.get("hyperparams") or {})}
    for option, values in (("--env-kwargs", args.get("env_kwargs")), ("-params", params)):
        if values:
            words += [option, *(f"{key}:{_public(value)!r}" for key, value in values.items())]
    return " ".join(map(_quoted, words))


def _metadata(agent: Teacher, env_id: str, row: Row) -> str:
    result = EvalResult(
        task_type="reinforcement-learning",
        task_name="reinforcement-learning",
        dataset_type=env_id,
        dataset_name=env_id,
        metric_type="mean_reward",
        metric_name="mean_reward",
        metric_value=f"{row.mean:.2f} +/- {row.std:.2f}",
    )
    data = ModelCardData(
        library_name="stable-baselines3",
        tags=["deep-reinforcement-learning", "reinforcement-learning", "stable-baselines3", "policy-distillation"],
        model_name=str(agent.algo),
        eval_results=[result],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def write_card(
    agent: Teacher,
    env_id: str,
    repository: str,
    rows: Sequence[Row],
    margin: float,
    command: str,
    args: Mapping[str, Any],
    versions: Mapping[str, str],
    curve: str | None,
) -> str:
    """
    :param agent: the agent
    :param env_id: its environment
    :param repository: the repository, owner/name
    :param rows: the agent's row, under the name of the repository, and that of its teacher if there is one
    :param margin: per cent of the teacher by which a student may be worse
    :param command: the command that made the rows
    :param args: the content of the run's args.yml
    :param versions: versions of packages, on which results depend
    :param curve: name of the file with the learning curve; None: there is none
    :return: the card in Markdown, with its metadata
    """
    own = next(row for row in rows if row.agent == repository)
    owner = repository.partition("/")[0]
    env_name = file_name(env_id)
    table = format_markdown([header(margin), *map(cells_of, rows)], n_left=2)
    lines = [
        f"# {agent.algo} on {env_id}",
        "",
        f"An agent of {own.n_parameters:,} parameters ({own.n_bytes:,} bytes) that was made with "
        "[Stable-Baselines3](https://github.com/DLR-RM/stable-baselines3) and sb3_distill.",
    ]
    if agent.facts.taught_by is not None:
        lines += ["", f"Its teacher: `{public_name(agent.facts.taught_by)}`, sha256 `{agent.facts.teacher_sha256}`."]
    lines += ["", "## What it scores", "", f"```bash\n{command}\n```", "", table]
    lines += [note for text in footnotes(rows, margin) for note in ("", text)]
    if curve is not None:
        lines += ["", f"![Mean return over steps]({curve})"]
    lines += [
        "",
        "## How to load it",
        "",
        "```python",
        "from sb3_distill import load_teacher",
        "",
        f'agent = load_teacher("hub:{repository}")  # nothing is unpickled',
        f"action, _ = agent.predict(obs)  # an observation of {env_id}, or a batch of them",
        "```",
        "",
        "```bash",
        f"python -m rl_zoo3.load_from_hub --algo {agent.algo} --env {env_id} -orga {owner} "
        f"-name {repository.partition('/')[2]} -f logs/",
        f"python -m rl_zoo3.enjoy --algo {agent.algo} --env {env_id} -f logs/",
        "```",
        "",
        "The Zoo's commands unpickle: use them with repositories that you trust.",
        "",
        "## How it was made",
        "",
    ]
    # In a real-time run, `teacher` is something else.
    made = training_command(args, agent.facts.taught_by if args.get("algo") == agent.algo else None)
    if made:
        lines += [f"```bash\n{made}\n```", ""]
    lines += [
        "All settings are in `config.yml` and `args.yml`, all returns in `results.json`. The agent is "
        f"`{agent.algo}-{env_name}.zip`, sha256 `{agent.sha256}`.",
        "",
        "Scored with " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    return _metadata(agent, env_id, own) + "\n".join(lines) + "\n"
