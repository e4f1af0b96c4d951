"""Minari datasets as logs: Dict observations, and a teacher with a memory that begins anew with each episode."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO

from sb3_distill.cli import main
from sb3_distill.fit.fit import fit
from sb3_distill.fit.log import hold_out, read_log
from tests.fit.test_fit import CARTPOLE, ENDS, LENGTHS, PENDULUM, N, OfParts, observations

SPACE = spaces.Dict({"state": CARTPOLE, "goal": PENDULUM, "unused": spaces.Box(-1, 1, (2,))})


def write_dataset(name: str, parts: dict[str, np.ndarray], space: spaces.Space) -> None:
    """The episodes of ``LENGTHS``; of a Box, under the key ""."""
    minari = pytest.importorskip("minari")
    from minari.data_collector import EpisodeBuffer

    buffers, first = [], 0
    for index, length in enumerate(LENGTHS):
        # Minari keeps the observation behind the last step, too.
        rows = [*range(first, first + length), first + length - 1]
        seen: Any = {key: list(part[rows]) for key, part in parts.items()}
        ends = [False] * (length - 1) + [True]
        buffers.append(
            EpisodeBuffer(
                id=index,
                observations=seen if isinstance(space, spaces.Dict) else seen[""],
                actions=[np.int64(0)] * length,
                rewards=[0.0] * length,
                terminations=ends,
                truncations=[False] * length,
            )
        )
        first += length
    minari.create_dataset_from_buffers(name, buffers, observation_space=space, action_space=spaces.Discrete(2))


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def test_dict_observations_of_a_dataset(tmp_path: Path) -> None:
    """The teacher sees two of three keys; the log is that of a file with the same numbers."""
    parts = {key: observations(part) for key, part in SPACE.items()}  # type: ignore[arg-type]
    write_dataset("robot/log-v0", parts, SPACE)
    np.savez(tmp_path / "log.npz", **{f"observations/{key}": part for key, part in parts.items()}, dones=ENDS)
    logs: Any = [read_log(source, OfParts.observation_space) for source in ("robot/log-v0", tmp_path / "log.npz")]
    assert [len(episode) for episode in logs[0]] == list(LENGTHS)
    for first, second in zip(*logs, strict=True):
        assert set(first.parts) == {"state", "goal"}
        assert all(np.array_equal(first.parts[key], second.parts[key]) for key in first.parts)
    found = fit("robot/log-v0", OfParts(), n_timesteps=2 * N, value_coef=0.0, device="cpu")
    assert found.model.observation_space == OfParts.observation_space and 0 <= found.alike["agreement"] <= 1


def test_a_dataset_without_what_the_teacher_sees(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    goal = {"goal": observations(PENDULUM)}
    write_dataset("robot/goals-v0", goal, spaces.Dict({"goal": PENDULUM}))
    with pytest.raises(ValueError, match="robot/goals-v0 cannot be used: it has no observations under state"):
        fit("robot/goals-v0", OfParts(), device="cpu")
    RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "CartPole-v1")
    teacher = ["--teacher", str(tmp_path / "CartPole-v1.zip")]
    assert main(["fit", "robot/goals-v0", *teacher, "-o", str(tmp_path / "student.zip")]) == 1
    assert "its observations have the keys goal, the teacher's none" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["npz", "minari"])
def test_a_recurrent_teacher_begins_anew_with_each_episode(kind: str, tmp_path: Path) -> None:
    kwargs: dict[str, Any] = {"policy_kwargs": {"lstm_hidden_size": 6}, "seed": 0, "device": "cpu"}
    model = RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=8, batch_size=8, **kwargs)
    source = "pole/log-v0" if kind == "minari" else str(tmp_path / "log.npz")
    if kind == "minari":
        write_dataset(source, {"": observations()}, CARTPOLE)
    else:
        np.savez(source, observations=observations(), dones=ENDS)
    found = fit(source, model, n_timesteps=2 * N, value_coef=0.0, device="cpu")
    kept, _ = hold_out(read_log(source, CARTPOLE), 0.1, np.random.default_rng(0))
    policy, expected = model.policy, []
    for episode in kept:
        # Without a state, torch's LSTM begins with zeros.
        seen, _ = policy.lstm_actor(th.as_tensor(episode)[:, None])
        expected.append(policy.action_net(policy.mlp_extractor.policy_net(seen[:, 0])).log_softmax(dim=1))
    answers: Any = found.model.replay_buffer.answers  # type: ignore[union-attr]
    wanted = th.cat(expected).detach().numpy()
    assert np.allclose(answers["log_probs"][:, 0], wanted, atol=1e-6)
    whole, _ = policy.lstm_actor(th.as_tensor(np.concatenate(kept))[:, None])  # type: ignore[arg-type]
    never = policy.action_net(policy.mlp_extractor.policy_net(whole[:, 0])).log_softmax(dim=1).detach().numpy()
    assert not np.allclose(never, wanted, atol=1e-4)
