"""
Every block of the documentation that does not say why not is run, as a reader would who has installed everything and
has the agents that it names. Nothing is trained for long, and the agents have learned nothing.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from sb3_distill.cli import main
from tests.docs.blocks import BLOCKS, Block
from tests.helpers import REPOSITORY, fresh_python, run_python

pytestmark = pytest.mark.ci

# The agents that the pages name: algorithm, environment, name of its folder (the Zoo has agents of environments that no
# longer exist), and settings that make one in a second. Those of a clone are good players, whose games take minutes.
AGENTS = (
    ("dqn", "CartPole-v1", "CartPole-v1", []),
    ("dqn", "LunarLander-v3", "LunarLander-v2", []),
    ("dqn", "MountainCar-v0", "MountainCar-v0", []),
    ("dqn", "PongNoFrameskip-v4", "PongNoFrameskip-v4", ["buffer_size:1000"]),
    ("dqn", "FreewayNoFrameskip-v4", "FreewayNoFrameskip-v4", ["buffer_size:1000"]),
    ("ppo", "CartPole-v1", "CartPole-v1", ["n_steps:8", "batch_size:8"]),
    ("ppo", "MountainCar-v0", "MountainCar-v0", ["n_steps:8", "batch_size:8"]),
    ("ppo", "Pendulum-v1", "Pendulum-v1", ["n_steps:8", "batch_size:8"]),
    ("ppo", "LunarLanderContinuous-v3", "LunarLanderContinuous-v2", ["n_steps:8", "batch_size:8"]),
    ("ppo", "BreakoutNoFrameskip-v4", "BreakoutNoFrameskip-v4", ["n_steps:8", "batch_size:8"]),
    ("ppo", "SpaceInvadersNoFrameskip-v4", "SpaceInvadersNoFrameskip-v4", ["n_steps:8", "batch_size:8"]),
    ("sac", "HalfCheetah-v5", "HalfCheetah-v3", []),
    ("tqc", "Pendulum-v1", "Pendulum-v1", []),
)
# What makes the programs quick. Of several equal options the last one counts.
QUICK = """
set -eu
shopt -s extglob
pip() { :; }
train() {
    local word words=() params=no
    for word in "$@"; do
        words+=("$word")
        if [ "$word" = -params ]; then params=yes; words+=($NO_GAMES); fi
    done
    if [ $params = no ] && [ -n "$NO_GAMES" ]; then words+=(-params $NO_GAMES); fi
    command python "${words[@]}" -n "$N_TIMESTEPS"
}
python() {
    case "$*" in
        "-m rl_zoo3.train --algo "@(pd|qpd|ppd)" "*) NO_GAMES=n_teacher_episodes:0 train "$@" ;;
        "-m rl_zoo3.train "*) NO_GAMES= train "$@" ;;
        "-m rl_zoo3.enjoy "*) command python "$@" -n 50 --no-render ;;
        *) command python "$@" ;;
    esac
}
sb3-distill() {
    case "$*" in
        "zoo train "*) command sb3-distill "$@" -n "$N_TIMESTEPS" ;;
        "evaluate "*) command sb3-distill "$@" -n 2 ;;
        "compress "*) command sb3-distill "$@" --budget 20s --keep 1 || [ $? = 3 ] ;;
        "export bench "*) command sb3-distill "$@" --n-runs 20 --n-episodes 1 ;;
        "export "*) command sb3-distill "$@" --n-observations 50 --max-disagreement 1 ;;
        "push "*) command sb3-distill "$@" --dry-run -n 2 ;;
        "study "*) command sb3-distill "$@" --dry-run ;;
        "visualize localization "*) command sb3-distill "$@" --episodes 1 ;;
        *) command sb3-distill "$@" ;;
    esac
}
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A folder of a reader: the wheel is installed, agents are there, and the files of a clone."""
    folder = tmp_path_factory.mktemp("desk")
    python = fresh_python(folder)
    run_python(folder, "-m", "pip", "--quiet", "--python", python, "install", "--ignore-installed", "--no-deps", wheel)
    agents = folder / "rl-trained-agents"
    for name in ("examples", "studies"):
        (folder / name).symlink_to(REPOSITORY / name)
    for algo, env_id, name, settings in AGENTS:
        command = ["zoo", "train", "--algo", algo, "--env", env_id, "-n", "8", "--eval-freq", "-1", "-f", str(agents)]
        assert main(command + (["-params", *settings] if settings else [])) == 0
        if name != env_id:
            run = agents / algo / f"{env_id}_1"
            for file in (run / f"{env_id}.zip", run / env_id):
                file.rename(run / file.name.replace(env_id, name))
            run.rename(agents / algo / f"{name}_1")
    return folder


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in ("bash", "python")], ids=str)
def test_block_runs(block: Block, desk: Path) -> None:
    if block.reason:
        pytest.skip(block.reason)
    if block.language == "bash":
        command = ["bash", "-c", QUICK + block.text]
    else:
        command = ["python", "-c", re.sub(r"\.learn\([\d_]+", f".learn({block.n_timesteps}", block.text)]
    # Its reader begins in an empty folder.
    folder = desk / "tutorial" if block.name.startswith("docs/tutorial.md") else desk
    result = run_as_reader(command, desk, folder, block.n_timesteps)
    assert result.returncode == 0, f"{block.name}\n{block.text}\n{result.stdout}"


def test_the_notebook_runs(desk: Path) -> None:
    """One kernel for all cells, and a shell for each cell that asks for one, as Jupyter has it."""
    lines = ["import subprocess"]
    for cell in json.loads((REPOSITORY / "docs" / "tutorial.ipynb").read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and text.startswith("%%bash -e\n"):
            shell = QUICK + text.partition("\n")[2]
            lines.append(f"subprocess.run({['bash', '-ec', shell]}, check=True)")
        elif cell["cell_type"] == "code" and not text.startswith("%pip install"):
            lines.append(text)
    result = run_as_reader(["python", "-c", "\n".join(lines)], desk, desk / "notebook", 5_000)
    assert result.returncode == 0, result.stdout
    assert (desk / "notebook" / "cartpole" / "policy.c").is_file()
    assert re.search(r"^\d+ bytes$", result.stdout, re.MULTILINE)


def run_as_reader(command: list[str], desk: Path, folder: Path, n_timesteps: int) -> subprocess.CompletedProcess[str]:
    """Run a program as a reader would, in a folder of their desk."""
    folder.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RL_TRAINED"))}
    ours = {
        "PATH": f"{desk / 'venv' / 'bin'}:{os.environ['PATH']}",
        "N_TIMESTEPS": str(n_timesteps),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "agg",
        "SDL_VIDEODRIVER": "dummy",
    }
    return subprocess.run(
        command, cwd=folder, env={**inherited, **ours}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
