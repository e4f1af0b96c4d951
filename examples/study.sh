#!/usr/bin/env bash
# Compares three losses on CartPole and LunarLander with two seeds (twelve runs, a few minutes), and writes a report.
# Needs the Zoo's agents (rl-trained-agents/, $RL_TRAINED_AGENTS or the hub) and, in a clone: pip install ".[box2d]"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
sb3-distill study studies/pd_table1_small.yml
sb3-distill report logs/studies/pd_table1_small -o report/
