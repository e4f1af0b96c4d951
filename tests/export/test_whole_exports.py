"""An export is several files: all of one agent, or those that were there before."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_distill import load_teacher
from sb3_distill.agents.agent import Teacher
from sb3_distill.base.students import student_model
from sb3_distill.export.bench import read_description
from sb3_distill.export.export import FLOAT_FILE, INTEGER_FILE, ExportError, export_agent
from tests.helpers import content_of, full_disk


def agent_of(units: int, close_calls: bool = False) -> Teacher:
    th.manual_seed(0)
    space = spaces.Box(-np.inf, np.inf, (4,))
    agent = load_teacher(student_model("MlpPolicy", {"net_arch": [units]}, space, spaces.Discrete(2), "cpu"))
    if close_calls:
        with th.no_grad():
            head = agent.network.q_net[-1]
            noise = th.randn(head.in_features, generator=th.Generator().manual_seed(0))
            head.weight[1] = head.weight[0] + 5e-5 * noise
            head.bias[1] = head.bias[0]
    return agent


def export(agent: Teacher, folder: Path, n_observations: int = 20, max_disagreement: float = 1.0) -> None:
    export_agent(agent, folder, "CartPole-v1", n_observations, max_disagreement)


def check_whole(folder: Path) -> None:
    description = read_description(folder)
    sizes = {name: (folder / name).stat().st_size for name in (FLOAT_FILE, INTEGER_FILE)}
    assert {name: file.bytes for name, file in description.files.items()} == sizes
    assert set(content_of(folder)) == {FLOAT_FILE, INTEGER_FILE, "policy.json", "runner.py"}


def test_a_refused_or_failed_export_leaves_the_one_before(tmp_path: Path):
    export(agent_of(16), tmp_path)
    check_whole(tmp_path)
    before = content_of(tmp_path)
    with pytest.raises(ExportError, match=f"the earlier export in {tmp_path} stays"):
        export(agent_of(16, close_calls=True), tmp_path, 200, 0.0)
    assert content_of(tmp_path) == before
    with full_disk(), pytest.raises(OSError, match=str(tmp_path / FLOAT_FILE)):
        export(agent_of(8), tmp_path)
    assert content_of(tmp_path) == before


def test_two_exports_to_one_folder_are_not_mixed(tmp_path: Path):
    agents = [agent_of(units) for units in (8, 64)]
    with ThreadPoolExecutor(2) as pool:
        for number in range(6):
            folder = tmp_path / str(number)
            for done in [pool.submit(export, agent, folder) for agent in agents]:
                done.result()
            check_whole(folder)
            sha256 = json.loads((folder / "policy.json").read_text())["sha256"]
            assert sha256 in {agent.sha256 for agent in agents}
