#!/usr/bin/env bash
# Trains DQN agents for three MinAtar games (about ten minutes each), distills all three into one student, and compares
# the student with a multi-task DQN. Needs, in a clone: pip install ".[minatar]"
set -euo pipefail
for game in Breakout SpaceInvaders Asterix; do
    python -m rl_zoo3.train --algo rtpd --env "MinAtar/$game-v1" --eval-freq -1 --seed 0 -f logs -params students:None
done
sb3-distill study studies/pd_multitask_minatar.yml
