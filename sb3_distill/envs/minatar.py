"""MinAtar's games (Young & Tian 2019, arXiv 1903.03176) under their Gymnasium ids, from the extra ``minatar``."""

import gymnasium as gym

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")


def register_minatar() -> None:
    """
    Register ``MinAtar/Breakout-v1`` and the other games with their minimal action sets, as ``minatar.gym`` names them.

    The package itself does so only when asked, and costs a second to import; here it is imported by ``gym.make``.
    """
    for game in GAMES:
        env_id = f"MinAtar/{game.title().replace('_', '')}-v1"
        if env_id not in gym.registry:
            gym.register(
                env_id, entry_point="minatar.gym:BaseEnv", kwargs={"game": game, "use_minimal_action_set": True}
            )
