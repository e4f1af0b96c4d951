#!/usr/bin/env bash
# The Zoo's own commands with --algo pd, from training to a video (about two minutes).
# The teacher is searched in rl-trained-agents/, then in $RL_TRAINED_AGENTS, then on the Hugging Face hub.
set -euo pipefail

python -m rl_zoo3.train --algo pd --env CartPole-v1 -f logs/ -P

# Any hyperparameter can be changed from the command line. As always in the Zoo, strings need two pairs of quotes.
python -m rl_zoo3.train --algo pd --env CartPole-v1 -n 10000 -f logs/ \
    -params loss:"'nll'" rollout_policy:"'student'" policy_kwargs:"dict(net_arch=[8])"

python -m rl_zoo3.enjoy --algo pd --env CartPole-v1 -f logs/ --no-render -n 2000
python -m rl_zoo3.record_video --algo pd --env CartPole-v1 -f logs/ -n 500

# Compare teacher and students on episodes with the same starts.
sb3-distill evaluate logs/pd/CartPole-v1_* -n 20
