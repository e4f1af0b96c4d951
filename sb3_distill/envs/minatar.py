"""Registers the games of MinAtar (Young & Tian 2019, arXiv 1903.03176; extra ``minatar``) with Gymnasium."""

import gymnasium as gym

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")


def register_minatar() -> None:
    """
    Register ``MinAtar/Breakout-v1`` and the other games with their minimal action sets, under the ids of
    ``minatar.gym``.

    The package registers its games only on request, and its import takes a second. Registered in this way, it is
    imported only when ``gym.make`` makes one of the games.
    """
    for game in GAMES:
        env_id = f"MinAtar/{game.title().replace('_', '')}-v1"
        if env_id not in gym.registry:
            gym.register(
                env_id, entry_point="minatar.gym:BaseEnv", kwargs={"game": game, "use_minimal_action_set": True}
            )
