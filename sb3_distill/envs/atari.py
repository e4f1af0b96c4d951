"""Atari games that are stepped in C++, as a ``VecEnv`` that behaves like SB3's Python wrappers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_distill.envs.episodes import EpisodeSchedule

_FIRE = 1
# What is known of the games on this side of the emulator
_ARRAYS = ("_stacks", "_lives", "_frames", "_returns", "_must_fire")


@dataclass(frozen=True)
class AtariSettings:
    """
    The settings of an Atari environment, from its own arguments and those of ``AtariWrapper``.

    :param spec: the registered environment
    :param frame_skip: frames per step
    :param noop_max: upper bound of the random number of no-ops at the start of a game
    :param terminal_on_life_loss: whether a lost life ends the episode (the game itself goes on)
    :param fire_reset: whether FIRE is pressed at the start of a game and after a lost life
    :param clip_reward: whether rewards are replaced by their sign
    :param screen_size: height and width of a frame
    """

    spec: gym.envs.registration.EnvSpec
    frame_skip: int = 1
    noop_max: int = 0
    terminal_on_life_loss: bool = False
    fire_reset: bool = False
    clip_reward: bool = False
    screen_size: int = 84


class NativeAtariVecEnv(VecEnv):
    """
    Steps several Atari games in C++ (``ale_py.vector_env``). It behaves like SB3's ``VecFrameStack`` over environments
    with ``Monitor`` and ``AtariWrapper``: observations are channels-first stacks, padded with black frames at the start
    of an episode; the agent gets clipped rewards; the raw return is in ``infos[i]["episode"]`` and in the Monitor's csv
    at the end of a game.

    Differences from SB3's wrappers:

    - Frames are converted to grey before the maximum over two frames is taken, not after: a few pixels in a thousand
      differ.
    - A game starts with 0 to ``noop_max - 1`` no-ops, not with 1 to ``noop_max``. FIRE is pressed for one frame, and
      no step of action 2 follows.
    - After a lost life, the agent's next action is replaced by FIRE (in games that have it), and
      ``infos[i]["executed_action"]`` holds the action that was played. SB3 plays three hidden steps instead.
    - The length of an episode counts frames, as in SB3, but the last step always counts as ``frame_skip`` frames.

    :param settings: the settings of the Python wrappers
    :param n_envs: number of games
    :param n_stack: number of stacked frames
    :param writers: the Monitor files to which the episodes are written, if there are any
    :param t_start: when the run began, from which the episodes' times count; None: now
    :param source: the environment that this one replaces; it is closed together with this one
    """

    def __init__(
        self,
        settings: AtariSettings,
        n_envs: int,
        n_stack: int = 4,
        writers: Sequence[ResultsWriter | None] = (),
        t_start: float | None = None,
        source: VecEnv | None = None,
    ) -> None:
        self.settings = settings
        self.spec = settings.spec
        self.render_mode = None
        kwargs = settings.spec.kwargs
        self.games = AtariVectorEnv(
            kwargs["game"],
            n_envs,
            max_num_frames_per_episode=kwargs.get("max_num_frames_per_episode") or 108_000,
            repeat_action_probability=kwargs.get("repeat_action_probability", 0.0),
            full_action_space=kwargs.get("full_action_space", False),
            # The reset is part of the step that ends a game, as in every VecEnv.
            autoreset_mode="SameStep",
            img_height=settings.screen_size,
            img_width=settings.screen_size,
            stack_num=1,
            frameskip=settings.frame_skip,
            noop_max=settings.noop_max,
            # This option would restart the game at a lost life; step_wait ends the episodes instead.
            episodic_life=False,
            # With this option, the raw score would be lost; step_wait clips the rewards.
            reward_clipping=False,
            use_fire_reset=settings.fire_reset,
        )
        shape = (n_stack, settings.screen_size, settings.screen_size)
        super().__init__(n_envs, spaces.Box(0, 255, shape, np.uint8), self.games.single_action_space)
        self.source = source
        self.writers = list(writers)
        self.t_start = time.time() if t_start is None else t_start
        self._stacks = np.zeros((n_envs, *shape), dtype=np.uint8)
        self._lives = np.zeros(n_envs, dtype=np.int64)
        self._returns = np.zeros(n_envs)
        self._frames = np.zeros(n_envs, dtype=np.int64)
        self._must_fire = np.zeros(n_envs, dtype=bool)
        self._replaced: list[int] = []
        # The episodes to play; None: whatever the emulator begins
        self.schedule: EpisodeSchedule | None = None
        # How each game came to be what it is: the seed, the number of resets since, and the actions since the last one
        self._game_seeds = [-1] * n_envs
        self._n_resets = [0] * n_envs
        self._actions: list[list[int]] = [[] for _ in range(n_envs)]

    def reset(self) -> VecEnvObs:
        seeds = self._seeds
        if self.schedule is not None:
            seeds = [self.schedule.begin(env) for env in range(self.num_envs)]
        emulator_seeds = _emulator_seeds(seeds)
        for env, seed in enumerate(emulator_seeds.tolist()):
            self._note_reset(env, seed)
        obs, info = self.games.reset(seed=emulator_seeds)
        self._reset_seeds()
        self._reset_options()
        self._stacks = np.zeros_like(self._stacks)
        self._stacks[:, -1] = obs[:, 0]
        self._lives = info["lives"].astype(np.int64)
        self._frames = info["episode_frame_number"].astype(np.int64)
        self._returns[:] = 0
        self._must_fire[:] = False
        return self._stacks

    def step_async(self, actions: np.ndarray) -> None:
        actions = np.asarray(actions, dtype=np.int64)
        self._replaced = []
        if self._must_fire.any():
            self._replaced = list(np.flatnonzero(self._must_fire & (actions != _FIRE)))
            actions = np.where(self._must_fire, _FIRE, actions)
            self._must_fire[:] = False
        for env, action in enumerate(actions.tolist()):
            self._actions[env].append(action)
        self.games.send(actions)

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, terminated, truncated, info = self.games.recv()
        game_over = terminated | truncated
        self._returns += rewards
        episodes = {env: self._finish_episode(env) for env in np.flatnonzero(game_over).tolist()}
        for env in episodes:
            self._note_reset(env)
        final_obs: Any = info.get("final_obs")
        if episodes and self.schedule is not None:
            obs, info = self._begin_scheduled(episodes)
        lives = info["lives"].astype(np.int64)
        dones = game_over
        if self.settings.terminal_on_life_loss:
            lost_life = ~game_over & (lives > 0) & (lives < self._lives)
            dones = game_over | lost_life
            self._must_fire = lost_life & self.settings.fire_reset

        # A new array at every step, because the caller may keep the old one.
        stacks = np.empty_like(self._stacks)
        stacks[:, :-1] = self._stacks[:, 1:]
        stacks[:, -1] = obs[:, 0]
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for env in self._replaced:
            infos[env]["executed_action"] = _FIRE
        for env in np.flatnonzero(dones).tolist():
            terminal = stacks[env].copy()
            if game_over[env]:
                terminal[-1] = final_obs[env, 0]
                infos[env]["episode"] = episodes[env]
            infos[env]["terminal_observation"] = terminal
            infos[env]["TimeLimit.truncated"] = bool(truncated[env] and not terminated[env])
            stacks[env, :-1] = 0
        self._stacks = stacks
        self._lives = lives
        self._frames = info["episode_frame_number"].astype(np.int64)
        learner_rewards = np.sign(rewards) if self.settings.clip_reward else rewards
        return stacks, learner_rewards.astype(np.float32), dones.copy(), infos

    def _note_reset(self, env: int, seed: int = -1) -> None:
        if seed >= 0:
            self._game_seeds[env], self._n_resets[env] = seed, 0
        self._n_resets[env] += 1
        self._actions[env] = []

    @property
    def why_lost(self) -> str | None:
        """Why the state of these games cannot be restored; None if it can."""
        if self.settings.spec.kwargs.get("repeat_action_probability", 0.0) > 0:
            return "natively stepped Atari games do not tell which of their actions were sticky"
        if self.schedule is not None:
            return "the seed of each game is given"
        if min(self._game_seeds) < 0:
            return "the Atari games were not seeded"
        return None

    def state(self) -> dict[str, Any] | None:
        """
        :return: the present state, as plain values and arrays; None if it cannot be restored (see ``why_lost``)
        """
        if self.why_lost is not None:
            return None
        return {
            "seeds": list(self._game_seeds),
            "n_resets": list(self._n_resets),
            "actions": [np.array(actions, dtype=np.int64) for actions in self._actions],
            "arrays": {name: getattr(self, name) for name in _ARRAYS},
        }

    def restore(self, state: dict[str, Any]) -> str | None:
        """
        Come back to a state: the games are reset as often as they were, because each reset draws a random number of
        no-ops, and then the actions since the last reset are played again.

        :param state: what ``state`` returned for an environment of the same settings
        :return: None, or why it is in another state now
        """
        self.games.reset(seed=np.array(state["seeds"], dtype=np.int64))
        lengths = [len(actions) for actions in state["actions"]]
        obs = None
        # All games step together, so that each one begins when as many steps are left as it needs; until then it plays
        # anything, and a reset with the seed makes it forget that.
        for left in range(max(lengths), -1, -1):
            for env in [env for env, length in enumerate(lengths) if length == left]:
                obs = self._replay_resets(env, state["seeds"][env], state["n_resets"][env])
            if left > 0:
                played = [actions[-left] if len(actions) >= left else 0 for actions in state["actions"]]
                self.games.send(np.array(played, dtype=np.int64))
                obs = self.games.recv()[0]
        assert obs is not None
        for name, array in state["arrays"].items():
            setattr(self, name, np.array(array))
        self._game_seeds, self._n_resets = list(state["seeds"]), list(state["n_resets"])
        self._actions = [actions.tolist() for actions in state["actions"]]
        self._reset_seeds()
        self._reset_options()
        return None if np.array_equal(obs[:, 0], self._stacks[:, -1]) else "the games show other frames now"

    def _replay_resets(self, env: int, seed: int, n_resets: int) -> np.ndarray:
        is_chosen = np.arange(self.num_envs) == env
        obs: np.ndarray
        for index in range(n_resets):
            seeds = np.array([seed if index == 0 else -1], dtype=np.int64)
            obs, _ = self.games.reset(seed=seeds, options={"reset_mask": is_chosen})
        return obs

    def _begin_scheduled(self, episodes: dict[int, dict[str, float]]) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin games anew, with the seeds of their episodes, in place of those that have just ended."""
        assert self.schedule is not None
        is_over = np.zeros(self.num_envs, dtype=bool)
        seeds = []
        for env, episode in episodes.items():
            is_over[env] = True
            self.schedule.end(env, episode["r"], int(episode["l"]))
            seeds.append(self.schedule.begin(env))
        return self.games.reset(seed=_emulator_seeds(seeds), options={"reset_mask": is_over})

    def _finish_episode(self, env: int) -> dict[str, float]:
        episode = {
            "r": round(float(self._returns[env]), 6),
            # The emulator's frame counter is that of the next game already, so add the last step to the previous count.
            "l": int(self._frames[env]) + self.settings.frame_skip,
            "t": round(time.time() - self.t_start, 6),
        }
        self._returns[env] = 0
        if self.writers and (writer := self.writers[env]) is not None:
            writer.write_row(dict(episode))
        return episode

    def close(self) -> None:
        if self.source is not None:
            self.source.close()
        for writer in self.writers:
            if writer is not None:
                writer.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(f"Cannot set {attr_name!r}: natively stepped Atari games have no Python environments.")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise AttributeError(f"Cannot call {method_name!r}: natively stepped Atari games have no Python environments.")

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        # Episodes are reported in the same way as by Monitor, so SB3 need not warn that there is none.
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


def _emulator_seeds(seeds: Sequence[int | None]) -> np.ndarray:
    """Seeds of at most 31 bits, as the emulator takes them; it stays unseeded where there is none."""
    return np.array([-1 if seed is None else seed % 2**31 for seed in seeds], dtype=np.int64)
