"""Measures localization: how often a map's largest activation is on an object, whose position is read from the RAM."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sb3_distill.agents.agent import Teacher
from sb3_distill.visualize.activations import feature_maps, geometry_of
from sb3_distill.visualize.episodes import Episode

# By game and object: index of the RAM byte with its x coordinate and of the one with its y coordinate (None: the
# coordinate is fixed); offsets to add to x and y, which give the top left corner in pixels of the 210 x 160 screen;
# width and height. The tests compare these positions with the pixels of the object's colour.
_OBJECTS: dict[str, dict[str, tuple[int | None, int | None, int, int, int, int]]] = {
    "pong": {
        "ball": (49, 54, -49, -14, 2, 4),
        "player": (None, 51, 140, -13, 4, 16),
        "opponent": (None, 50, 16, -15, 4, 16),
    },
    "breakout": {
        "ball": (99, 101, -49, 9, 2, 4),
        "paddle": (72, None, -47, 189, 16, 4),
    },
}
_SCREEN_HEIGHT, _SCREEN_WIDTH = 210, 160


@dataclass(frozen=True)
class Localization:
    """
    How well the maps of an agent localize one object.

    :param thing: the object
    :param best_map: index of the map with the most hits in the first half of all frames
    :param hits: share of the frames of the second half in which the map's largest activation is at the object's cell
    :param near_hits: share of these frames in which it is there or at one of the eight neighbouring cells
    :param chance: ``hits`` after shuffling the map's positions in time: the share that a map would reach only by being
        active where the object often is
    :param near_chance: ``near_hits`` after shuffling
    :param n_frames: number of frames of the second half that show the object
    """

    thing: str
    best_map: int
    hits: float
    near_hits: float
    chance: float
    near_chance: float
    n_frames: int


def game_of(env_id: str) -> str:
    """
    :param env_id: id of an Atari environment
    :return: the game, a key of ``_OBJECTS``
    :raises ValueError: the positions of objects in the RAM are not known for this game
    """
    for game in _OBJECTS:
        if env_id.lower().startswith(game) or env_id.lower().startswith(f"ale/{game}"):
            return game
    raise ValueError(f"Where objects are is known for {' and '.join(_OBJECTS)}, not for {env_id}.")


def object_positions(env_id: str, rams: np.ndarray) -> dict[str, np.ndarray]:
    """
    :param env_id: id of an environment of Pong or Breakout
    :param rams: the emulator's RAM ``(n, 128)``
    :return: by object, its centre on the screen ``(n, 2)`` as (y, x) in pixels; NaN if it is not on the screen
    :raises ValueError: the game is neither Pong nor Breakout
    """
    rams = rams.astype(np.float64)
    positions = {}
    for name, (x_byte, y_byte, x, y, width, height) in _OBJECTS[game_of(env_id)].items():
        left = x + (0 if x_byte is None else rams[:, x_byte])
        top = y + (0 if y_byte is None else rams[:, y_byte])
        centre = np.stack([top + height / 2 + np.zeros(len(rams)), left + width / 2 + np.zeros(len(rams))], axis=1)
        hidden = np.zeros(len(rams), dtype=bool)
        for byte in (x_byte, y_byte):
            if byte is not None:
                hidden |= rams[:, byte] == 0
        centre[hidden | (centre < 0).any(axis=1) | (centre[:, 0] >= _SCREEN_HEIGHT)] = np.nan
        positions[name] = centre
    return positions


def _hits(places: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distance = np.abs(places - cells[:, None]).max(axis=2)
    return (distance == 0).mean(axis=0), (distance <= 1).mean(axis=0)


def measure_localization(agent: Teacher, env_id: str, episodes: Sequence[Episode], seed: int = 0) -> list[Localization]:
    """
    :param agent: an agent with convolutions
    :param env_id: id of an environment of Pong or Breakout
    :param episodes: episodes of this game, played by any agent. The first half of all frames is used to choose each
        object's map, the second half to measure it.
    :param seed: seed of the shuffling
    :return: one entry per object
    :raises ValueError: the game is neither Pong nor Breakout, or one half of the frames does not show an object
    """
    observations = np.concatenate([np.stack(episode.observations) for episode in episodes])
    rams = np.concatenate([np.stack(episode.rams) for episode in episodes])
    maps, _ = feature_maps(agent, observations)
    vertical, horizontal = geometry_of(agent)
    flat = maps.reshape(*maps.shape[:2], -1)
    # A map without any activation has no position: -10 is far from all cells.
    places = np.where(
        flat.max(axis=2)[..., None] > 0,
        np.stack(np.unravel_index(flat.argmax(axis=2), maps.shape[2:]), axis=2),
        -10,
    )
    rng = np.random.default_rng(seed)
    half = len(observations) // 2
    measured = []
    for name, centres in object_positions(env_id, rams).items():
        visible = ~np.isnan(centres).any(axis=1)
        cells = np.stack(
            [
                vertical.cell_of(np.nan_to_num(centres[:, 0]) * vertical.size / _SCREEN_HEIGHT - 0.5),
                horizontal.cell_of(np.nan_to_num(centres[:, 1]) * horizontal.size / _SCREEN_WIDTH - 0.5),
            ],
            axis=1,
        )
        first, second = np.flatnonzero(visible[:half]), half + np.flatnonzero(visible[half:])
        if len(first) == 0 or len(second) == 0:
            raise ValueError(
                f"The {name} is visible in only {visible.sum()} of {len(visible)} frames, too few for a measurement: "
                "play more episodes, or longer ones."
            )
        best = int(_hits(places[first], cells[first])[0].argmax())
        hits, near = _hits(places[second], cells[second])
        shuffled = [_hits(places[rng.permutation(second)][:, [best]], cells[second]) for _ in range(20)]
        chance, near_chance = np.mean([[exact[0], close[0]] for exact, close in shuffled], axis=0)
        measured.append(
            Localization(
                name, best, float(hits[best]), float(near[best]), float(chance), float(near_chance), len(second)
            )
        )
    return measured
