"""A PPO agent's policy in a hundred bytes: QPD with 4 bits, compared with post-training quantization (two minutes)."""

import sys

from sb3_distill import QPD, load_teacher
from sb3_distill.agents.files import AgentError
from sb3_distill.envs.make import make_eval_env
from sb3_distill.evaluation.play import evaluate_paired
from sb3_distill.evaluation.players import Player
from sb3_distill.export.post_training import quantize_agent
from sb3_distill.results.tables import format_table

N_BITS = 4


def distill(**kwargs) -> QPD:
    model = QPD(
        "MlpPolicy",
        "CartPole-v1",
        teacher,
        learning_rate=2e-3,
        gradient_steps=4,
        value_coef=0.001,
        n_teacher_episodes=0,
        policy_kwargs={"net_arch": {"pi": [8], "vf": [16]}},
        seed=0,
        device="cpu",
        **kwargs,
    )
    return model.learn(30_000)


def score(player: Player) -> str:
    result = evaluate_paired(player, lambda n_envs: make_eval_env("CartPole-v1", n_envs), 50)
    return f"{result.mean:.2f} ± {result.std:.2f}"


try:
    # Searched in rl-trained-agents/ and $RL_TRAINED_AGENTS, then on the hub
    teacher = load_teacher("zoo:ppo/CartPole-v1", device="cpu")
except AgentError as error:
    sys.exit(str(error))

full = distill(weight_bits=None)
few = distill(weight_bits=N_BITS, activation_bits=N_BITS, first_layer_bits=N_BITS, last_layer_bits=N_BITS)
after = quantize_agent(full, N_BITS, N_BITS)

rows = [["agent", "bytes of the policy", "score"]]
rows.append(["teacher (float32)", f"{teacher.n_bytes:,}", score(teacher)])
rows.append(["student (float32)", f"{full.stored_bytes():,}", score(full)])
rows.append([f"quantized after training, {N_BITS} bits", f"{after.n_bytes:,}", score(after)])
rows.append([f"QPD, {N_BITS} bits", f"{few.stored_bytes():,}", score(few)])
print(format_table(rows, n_left=1))
