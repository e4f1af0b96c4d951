#!/usr/bin/env bash
# Three losses on CartPole and LunarLander, two seeds each: twelve runs, a few minutes, and a page with the results.
# Needs the Zoo's agents (rl-trained-agents/, $RL_TRAINED_AGENTS or the hub) and: pip install "sb3-distill[box2d]"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
sb3-distill study studies/pd_table1_small.yml
sb3-distill report logs/studies/pd_table1_small -o report/
