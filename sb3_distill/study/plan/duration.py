"""How long a cell takes, where no finished one tells it."""

from sb3_distill.envs.recipe import is_atari
from sb3_distill.networks.computing import planned_updates
from sb3_distill.study.cell import Cell, leaves_one_agent
from sb3_distill.study.format.study_file import read_whole
from sb3_distill.study.job import N_EVAL_EPISODES
from sb3_distill.study.plan.needs import length_of, settings_of
from sb3_distill.study.plan.start import COUNTS, read_frequency

# Seconds on one core of the developers' machine, for vector observations and for Atari frames: of a step of all
# environments together, of an update of one student, of an example in it, and of an episode of an evaluation. The last
# two depend on network and game: within a factor of 3 of what studies have taken
_VECTORS, _FRAMES = (0.001, 0.003, 0.0, 0.1), (0.02, 0.003, 0.0006, 1.5)


def guess_seconds(cell: Cell) -> float | None:
    """
    :param cell: a cell
    :return: a rough guess of the time that it takes, from its steps, updates, students and evaluations; None if nothing
        says how long its run is
    :raises ValueError: its settings contradict each other
    """
    n_timesteps, settings = length_of(cell), settings_of(cell)
    if n_timesteps is None:
        return None

    def number(name: str, default: int) -> int:
        return read_whole(name, settings.get(name, default), COUNTS[name])

    n_envs, batch_size = number("n_envs", 1), number("batch_size", 64)
    if cell.algo == "ppd":
        n_updates = n_timesteps * number("n_epochs", 10) // batch_size
    else:
        n_learning = n_timesteps - number("learning_starts", 0)
        train_freq, gradient_steps = read_frequency(settings.get("train_freq", 4)), number("gradient_steps", 1)
        n_updates = planned_updates(n_learning, n_envs, train_freq, gradient_steps)
    # Of rtpd, the first one is the agent itself.
    n_students = 1 + len(settings.get("students") or ())
    if cell.algo == "rtpd" and not leaves_one_agent(cell.algo, settings):
        n_evaluations = n_updates // max(number("eval_freq", -1), 1)
        n_episodes = n_students * n_evaluations * number("n_eval_episodes", 30)
    else:
        eval_freq = cell.evaluation.get("eval_freq", n_timesteps + 1)
        under_way = n_timesteps // eval_freq * cell.evaluation.get("eval_episodes", N_EVAL_EPISODES)
        n_episodes = n_students * (under_way + cell.protocol["n_episodes"]) + cell.protocol["n_episodes"]
    atari = cell.env == "MultiTaskAtari-v0" or is_atari(cell.env)
    step, update, example, episode = _FRAMES if atari else _VECTORS
    learning = n_students * n_updates * (update + example * batch_size)
    return n_timesteps / n_envs * step + learning + n_episodes * episode
