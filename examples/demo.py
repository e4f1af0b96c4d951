"""Distill a Zoo agent into a student with a few hundred parameters, with the commands that a user would type.

Called by ``make demo``. The teacher is the Zoo's DQN agent for CartPole from ``rl-trained-agents/`` or
``$RL_TRAINED_AGENTS``. If it is not there, a teacher is trained with the Zoo, which takes about a minute.
"""

import os
import subprocess
import sys
from pathlib import Path

ENV_ID = "CartPole-v1"
LOGS = Path("logs/demo")


def run(*command: str) -> None:
    """Show a command and run it with this interpreter."""
    print("\n$ python -m", " ".join(command), flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)


def latest_run(folder: Path) -> Path:
    """The run with the highest number."""
    return max(folder.glob(f"{ENV_ID}_*"), key=lambda path: int(path.name.rsplit("_", 1)[1]))


def find_or_train_teacher() -> Path:
    """The run folder of the teacher."""
    for root in (Path("rl-trained-agents"), Path(os.environ.get("RL_TRAINED_AGENTS", LOGS)), LOGS):
        if list((root / "dqn").glob(f"{ENV_ID}_*/{ENV_ID}.zip")):
            return latest_run(root / "dqn")
    run("rl_zoo3.train", "--algo", "dqn", "--env", ENV_ID, "-f", str(LOGS), "--eval-freq", "-1", "--seed", "1")
    return latest_run(LOGS / "dqn")


def main() -> None:
    """Find or train the teacher, distill a student, and print a table of both."""
    teacher = find_or_train_teacher()
    run("sb3_distill", "teachers", str(teacher))
    run(
        *("rl_zoo3.train", "--algo", "pd", "--env", ENV_ID, "-f", str(LOGS), "--eval-freq", "10000", "--seed", "1"),
        *("-params", f"teacher:'{teacher}'"),
    )
    student = latest_run(LOGS / "pd")
    run("sb3_distill", "evaluate", str(student), "--teacher", str(teacher), "-n", "100")


if __name__ == "__main__":
    main()
