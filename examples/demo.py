"""From a Zoo agent to a student a few hundred parameters small, with the commands that a user would type.

Called by ``make demo``. Takes the Zoo's CartPole DQN agent as teacher where one is at hand (in ``rl-trained-agents/``
or in ``$RL_TRAINED_AGENTS``) and trains one with the Zoo otherwise, in about a minute.
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
    """The Zoo numbers its runs."""
    return max(folder.glob(f"{ENV_ID}_*"), key=lambda path: int(path.name.rsplit("_", 1)[1]))


def find_or_train_teacher() -> Path:
    """The run folder of a DQN agent."""
    for root in (Path("rl-trained-agents"), Path(os.environ.get("RL_TRAINED_AGENTS", LOGS)), LOGS):
        if list((root / "dqn").glob(f"{ENV_ID}_*/{ENV_ID}.zip")):
            return latest_run(root / "dqn")
    run("rl_zoo3.train", "--algo", "dqn", "--env", ENV_ID, "-f", str(LOGS), "--eval-freq", "-1", "--seed", "1")
    return latest_run(LOGS / "dqn")


def main() -> None:
    """Teacher, student, table."""
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
