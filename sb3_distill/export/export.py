"""Writes an agent as files that run without Python's reinforcement learning: ONNX, C, a description, runners."""

import json
from collections.abc import Callable, Collection, Container, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of, count_macs
from sb3_distill.agents.files import AgentError
from sb3_distill.agents.load import load_teacher
from sb3_distill.common.files import check_own_folder, write_together
from sb3_distill.common.locks import locked
from sb3_distill.common.utils import counted, missing_extra
from sb3_distill.envs.views import ObservationView
from sb3_distill.evaluation.environments import find_env_id, make_env_of, recipe_of
from sb3_distill.evaluation.observations import CHECKING_SEED, Observations, record_observations
from sb3_distill.export.c.source import CSource, c_title
from sb3_distill.export.description import FORMAT, OPSET, Description, ExportedFile, ObservationFormat
from sb3_distill.export.flat import flattened, parts_of, sizes_of, views_of
from sb3_distill.export.integer_policy import IntegerPolicy
from sb3_distill.export.integers import INPUT_BITS, integer_policy
from sb3_distill.export.post_training import check_quantizable, quantize_on
from sb3_distill.export.web.page import WEB_FILE, check_playable, web_page
from sb3_distill.quantization.layers import describe_transition, quantized_layers
from sb3_distill.quantization.quantizer import MAX_BITS, has_exact_input
from sb3_distill.reading.text import has_json

FLOAT_FILE, INTEGER_FILE, C_FILE, DESCRIPTION_FILE = "policy.onnx", "policy_int.onnx", "policy.c", "policy.json"
# What an earlier export may have left
_FILES = (
    *(FLOAT_FILE, INTEGER_FILE, "runner.py"),
    *(C_FILE, "policy.h", "policy_test.c", "policy.npz", "integer_policy.py", "README.md"),
    WEB_FILE,
)


# Bounds further apart say nothing of what an agent does.
WIDEST = 100.0


class ExportError(ValueError):
    """An exported policy does not do what the agent does."""


def actions_of(source: Any, agent: Teacher, observations: Any) -> np.ndarray:
    """
    :param source: what the agent was loaded from
    :param agent: the agent
    :param observations: raw observations, of a Dict its parts
    :return: the agent's actions; a model in memory is asked itself, behind the VecNormalize of its environment
    """
    if not isinstance(source, BaseAlgorithm):
        return agent.predict(observations)[0]
    env, statistics = source.env, source.get_vec_normalize_env()
    normalizer = env if isinstance(env, ObservationView) else statistics
    inputs: Any = observations if normalizer is None else normalizer.normalize_obs(observations)
    return source.predict(inputs, deterministic=True)[0]


def disagreement(exported: np.ndarray, actions: np.ndarray, action_space: spaces.Space) -> float:
    """
    :param exported: the actions of an exported policy
    :param actions: the agent's actions at the same observations
    :param action_space: their space
    :return: share of the observations at which the two choose another action; continuous actions differ where they are
        further apart than 1% of their range, or than a tenth of the standard deviation of the agent's own actions
        (where bounds are wide, the range says nothing of what the agent does). An action that is always the same, up
        to a ten-thousandth of a range of at most ``WIDEST``, may be off by as much
    """
    if isinstance(action_space, spaces.Box):
        own = actions.astype(np.float64)
        span = action_space.high.astype(np.float64) - action_space.low
        deviation = own.std(axis=0)
        is_constant = (deviation < 1e-4 * span) & (span <= WIDEST)
        tolerance = np.where(is_constant, 1e-4 * span, np.minimum(0.01 * span, 0.1 * deviation))
        # Beyond the rounding of float32
        apart = ~np.isclose(exported, own, rtol=1e-5, atol=tolerance + 1e-6)
        return float(apart.reshape(len(own), -1).any(axis=1).mean())
    return float((exported != actions).mean())


def check_spaces(agent: Teacher, env_id: str) -> None:
    """
    Check that the spaces with which an agent was rebuilt are those of its environment, since nobody but the environment
    can tell then that its file was read rightly. The bounds of floating-point observations may differ: they change
    nothing that an agent computes, and differ between versions of environments.

    :param agent: a loaded agent
    :param env_id: id of its environment
    :raises ExportError: they are not
    """
    with closing(make_env_of(agent, env_id)) as venv:
        pairs = [(agent.policy.observation_space, venv.observation_space), (agent.action_space, venv.action_space)]
    own, its = pairs[0]
    if agent.normalization is not None and is_image_space(its):
        # VecNormalize makes them floating-point numbers.
        its = spaces.Box(-np.inf, np.inf, its.shape)
    floats = own.dtype == its.dtype and np.issubdtype(its.dtype, np.floating)
    pairs[0] = (its, its) if floats and own.shape == its.shape else (own, its)
    for kind, (mine, theirs) in zip(("observations", "actions"), pairs, strict=True):
        if mine != theirs:
            raise ExportError(
                f"{agent.source} was rebuilt from its file with the {kind} {mine}, but {env_id} has {theirs}. Name the "
                "environment it was trained on with --env (in Python, env_id=), or, if you trust the file, pass "
                "--allow-pickle (allow_pickle=True): the export is then checked against the agent as SB3 loads it."
            )


def _source_of(agent: Teacher) -> str:
    """Where the agent is, from whatever folder it is asked for."""
    path = Path(agent.source)
    return str(path.absolute()) if path.exists() or Path(f"{path}.zip").exists() else agent.source


def _bound(values: np.ndarray) -> Any:
    """A space's bounds: one number where all are the same, None where there is none (JSON knows no infinity)."""
    finite = values.astype(object)
    finite[~np.isfinite(values)] = None
    return finite.flat[0] if (values == values.flat[0]).all() else finite.tolist()


def _describe_actions(actions: spaces.Space, env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(actions, spaces.Discrete):
        described: dict[str, Any] = {"n": int(actions.n)}
        with closing(gym.make(env_id, **env_kwargs)) as env:
            if hasattr(env.unwrapped, "get_action_meanings"):
                described["labels"] = env.unwrapped.get_action_meanings()
        return described
    assert isinstance(actions, spaces.Box)
    return {"shape": list(actions.shape), "low": actions.low.tolist(), "high": actions.high.tolist()}


def _describe(
    agent: Teacher,
    sha256: str,
    parts: dict[str, int] | None,
    env_id: str,
    opset: int,
    checked: Observations,
    checked_against: str,
    files: dict[str, ExportedFile],
) -> Description:
    space, recipe = agent.observation_space, recipe_of(agent, env_id)
    macs = count_macs(agent)
    # Layers that are not counted are not exported.
    assert isinstance(space, spaces.Box) and macs is not None
    return Description(
        source=_source_of(agent),
        sha256=sha256,
        algo=agent.algo,
        env_id=env_id,
        env_kwargs=dict(recipe.env_kwargs),
        env_wrapper=[wrapper.to_config() for wrapper in recipe.wrappers or ()],
        vec_env_wrapper=[*(wrapper.to_config() for wrapper in recipe.vec_wrappers), *views_of(agent)],
        observation=ObservationFormat(
            list(space.shape), str(space.dtype), _bound(space.low), _bound(space.high), parts
        ),
        frame_stack=recipe.frame_stack or 1,
        n_parameters=agent.n_parameters,
        macs=macs,
        opset=opset,
        action=_describe_actions(agent.action_space, env_id, recipe.env_kwargs),
        n_observations=len(checked.values),
        n_episodes=checked.n_episodes,
        checked_against=checked_against,
        files=files,
        needs_masks=agent.needs_masks,
        outputs=("logits" if agent.has_distribution else "q_values") if agent.n_actions is not None else None,
    )


def _advice(agent: Teacher, bits: int | None, written: Container[str]) -> str:
    """The advice for a file that disagrees with its agent."""
    advice = []
    if agent.algo == "pd":
        # A student already, of an algorithm that does not train with quantization
        if FLOAT_FILE in written:
            advice.append(f"use {FLOAT_FILE}")
    elif not quantized_layers(agent.policy):
        advice.append("train a student with quantization (--algo qpd)")
    if bits is not None and bits < MAX_BITS:
        advice.append("take more bits (--bits)")
    text = ", ".join([*advice, "or allow more"] if advice else ["allow more"])
    return f"{text[0].upper()}{text[1:]}."


class _Candidates:
    """
    The files of an agent, of which those are kept that do what it does.

    :param agent: the agent
    :param title: what it is, in one line
    :param parts: see ``ObservationFormat``
    :param checked: observations
    :param actions: what it does at these
    :param limit: share of them at which a file may choose another action
    """

    def __init__(
        self,
        agent: Teacher,
        title: str,
        parts: dict[str, int] | None,
        checked: Observations,
        actions: np.ndarray,
        limit: float,
    ) -> None:
        self.agent, self.title, self.parts = agent, title, parts
        self.checked, self.actions, self.limit = checked, actions, limit
        self.files: dict[str, bytes] = {}
        self.written: dict[str, ExportedFile] = {}
        self.refused: list[str] = []

    def _share(self, name: str, exported: np.ndarray, actions: np.ndarray, whose: str, limit: float) -> float:
        share = disagreement(exported, actions, self.agent.action_space)
        if share > limit:
            self.refused.append(f"{name} would choose another action than {whose} at {share:.1%}")
        return share

    def add_onnx(self, name: str, data: bytes) -> None:
        """Check an ONNX file."""
        from sb3_distill.export import runner

        exported = runner.PolicyRunner(data).predict(self.checked.values)[0]
        share = self._share(name, exported, self.actions, self.agent.source, self.limit)
        if share <= self.limit:
            self.files |= {name: data, "runner.py": Path(runner.__file__).read_bytes()}
            self.written[name] = ExportedFile(len(data), share)

    def add_integers(self, quantized: Teacher, env_id: str, formats: Container[str]) -> None:
        """Check the agent in what computes with integers alone."""
        if "c" not in formats and "web" not in formats:
            return
        policy = integer_policy(quantized)
        if "c" in formats:
            self._add_c(policy, quantized, env_id)
        if "web" in formats:
            self._add_page(policy, quantized, env_id)

    def _add_c(self, policy: IntegerPolicy, quantized: Teacher, env_id: str) -> None:
        stack = recipe_of(self.agent, env_id).frame_stack or 1
        source = CSource(policy, self.title, stack, self.agent.source, self.parts)
        share = self._share_of_integers(C_FILE, policy, quantized)
        if share is not None:
            self.files |= source.files(self.checked.values)
            self.written[C_FILE] = ExportedFile(source.n_bytes, share)

    def _add_page(self, policy: IntegerPolicy, quantized: Teacher, env_id: str) -> None:
        page = web_page(policy, f"{self.agent.algo} on {env_id}", env_id, self.agent.n_parameters).encode()
        share = self._share_of_integers(WEB_FILE, policy, quantized)
        if share is not None:
            self.files[WEB_FILE] = page
            self.written[WEB_FILE] = ExportedFile(len(page), share)

    def _share_of_integers(self, name: str, policy: IntegerPolicy, quantized: Teacher) -> float | None:
        """
        The share of observations at which integers choose another action than the agent; None if that is too much.
        From the quantized agent under torch they may differ less.
        """
        exported, n_refused = policy.predict(self.checked.values)[0], len(self.refused)
        same = quantized.predict(self.checked.values)[0]
        share = self._share(name, exported, self.actions, self.agent.source, self.limit)
        if quantized is not self.agent or share <= self.limit:
            self._share(name, exported, same, "its integers under torch (half of it is allowed)", self.limit / 2)
        return share if len(self.refused) == n_refused else None


def _onnx_writer(opset: int) -> Callable[[Teacher], bytes]:
    """What writes an agent as ONNX, whose packages C does not need."""
    problem = missing_extra("export", "onnx", "onnxruntime")
    if problem is not None:
        raise ExportError(f"{problem} C (--format c) needs neither onnx nor onnxruntime.")
    from sb3_distill.export.graph import build_graph, check_opset

    check_opset(opset)
    return lambda agent: build_graph(agent, opset).SerializeToString()


@th.no_grad()
def export_agent(
    source: str | Path | BaseAlgorithm | Teacher,
    folder: str | Path,
    env_id: str | None = None,
    n_observations: int = 1_000,
    max_disagreement: float = 0.01,
    opset: int = OPSET,
    bits: int | None = None,
    allow_pickle: bool = False,
    formats: Collection[str] = ("onnx",),
) -> Description:
    """
    Write an agent as ``policy.onnx`` (float32), ``policy_int.onnx`` (weights stored as integers), ``policy.json`` and
    ``runner.py``. Students of ``QPD`` are integers already and have the second file alone. With "c" among the formats,
    it is also (or instead) written as ``policy.h`` and ``policy.c``, which compute with integers; with "web" as
    ``play.html``, a page on which it plays in the browser.

    Step sizes are chosen on observations of whole episodes, and the files are checked on those of other ones. They are
    checked against the agent as SB3 runs it where that unpickles nothing (a model in memory) or may
    unpickle (``allow_pickle``). An agent that was rebuilt from its weights must have the spaces of its environment.

    :param source: a source for ``load_teacher``
    :param folder: where the files go
    :param env_id: the environment that checks the files, by default the agent's own
    :param n_observations: observations that they are checked on, and that step sizes are chosen on
    :param max_disagreement: share of them at which an exported policy may choose another action than the agent
    :param opset: version of ONNX's operators, 18 to 21
    :param bits: precision of the integers of an agent that is not quantized yet, 2 to 8; None takes 8
    :param allow_pickle: load the file with SB3's own ``load``, which runs any code that the file holds (see
        ``load_teacher``)
    :param formats: one or more of "onnx", "c" and "web"
    :return: the content of ``policy.json``
    :raises AgentError: the agent cannot be loaded or has parts that cannot be exported
    :raises ValueError: bits out of range, or the environment is not one for this agent
    :raises ExportError: ONNX is asked for and not installed; or the agent is a student still in its transition; or it
        was rebuilt with other spaces than those of its environment; or a file would disagree with the agent more often:
        that one is not written, the others are where the folder holds no earlier export, which would stay
    :raises OSError: a file cannot be written, or the folder holds somebody else's files of these names
    """
    folder = Path(folder)
    is_ours = has_json(folder / DESCRIPTION_FILE, ("sha256", "files"))
    check_own_folder(folder, (*_FILES, DESCRIPTION_FILE), is_ours)
    to_onnx = _onnx_writer(opset) if "onnx" in formats else None
    agent = load_teacher(source, device="cpu", allow_pickle=allow_pickle)
    transition = describe_transition(agent.policy)
    if transition:
        raise ExportError(f"{agent.source} is still in the transition ({transition}): finish its training.")
    env_id = find_env_id(agent, env_id)
    if "web" in formats:
        check_playable(env_id, recipe_of(agent, env_id))
    whole, agent = agent, flattened(agent)
    if agent.facts.flat_keys is not None and (recipe_of(agent, env_id).frame_stack or 1) > 1:
        raise AgentError(
            f"{agent.source} cannot be exported: its Dict observations are stacked part by part, so that one step does "
            "not stand in a row. Train it on one key, or without frame_stack."
        )
    # Raises for what cannot be exported
    chain_of(agent)
    if agent.facts.is_rebuilt:
        check_spaces(agent, env_id)
    checked_against = (
        f"the agent as {'rebuilt, with the spaces of its environment' if agent.facts.is_rebuilt else 'SB3 runs it'}"
    )
    # Bits that are asked of a quantized agent are refused.
    fits = bits is not None or not quantized_layers(agent.policy)
    models: dict[str, bytes] = {}
    quantized = in_integers = agent
    if fits:
        n_bits = bits or MAX_BITS
        check_quantizable(agent, n_bits, n_bits)
        fitted = record_observations(agent, env_id, n_observations).values
        if to_onnx is not None:
            models[FLOAT_FILE] = to_onnx(agent)
            # The observations come as they are: vectors in float32, frames as bytes.
            quantized = quantize_on(fitted, agent, n_bits, n_bits, None)
        if {"c", "web"} & set(formats):
            is_exact = agent.normalization is None and has_exact_input(agent.observation_space)
            in_integers = quantize_on(fitted, agent, n_bits, n_bits, None if is_exact else INPUT_BITS)
    if to_onnx is not None:
        models[INTEGER_FILE] = to_onnx(quantized)
    checked = record_observations(agent, env_id, n_observations, CHECKING_SEED)
    parts = sizes_of(whole.observation_space, agent.facts.flat_keys)
    observed = checked.values if parts is None else parts_of(checked.values, whole.observation_space, parts)
    title, actions = c_title(agent.algo, env_id, whole.sha256), actions_of(source, whole, observed)
    candidates = _Candidates(agent, title, parts, checked, actions, max_disagreement)
    for name, model in models.items():
        candidates.add_onnx(name, model)
    candidates.add_integers(in_integers, env_id, formats)

    written, files, refused = candidates.written, candidates.files, candidates.refused
    description = _describe(agent, whole.sha256, parts, env_id, opset, checked, checked_against, written)
    files[DESCRIPTION_FILE] = (json.dumps({"format": FORMAT, **asdict(description)}, indent=2) + "\n").encode()
    # A lock makes the folder.
    with locked(folder, "exports", wait=True) if written else nullcontext():
        is_kept = bool(refused) and (folder / DESCRIPTION_FILE).exists()
        if written and not is_kept:
            gone = [folder / name for name in _FILES if name not in files]
            write_together({folder / name: data for name, data in files.items()}, gone)
    if refused:
        names = ", ".join(f"{folder / name}" for name in written) or "no file"
        raise ExportError(
            f"Not written: {'; '.join(refused)} of {counted(len(checked.values), 'observation')} from "
            f"{counted(checked.n_episodes, 'episode')}, more than the {max_disagreement:.1%} of --max-disagreement; "
            f"{f'the earlier export in {folder} stays' if is_kept else f'written: {names}'}. "
            f"{_advice(agent, bits, written)}"
        )
    return description
