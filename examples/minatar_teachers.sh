#!/usr/bin/env bash
# DQN agents of three MinAtar games, about ten minutes each, and one student of all three beside a DQN that learns the games
# jointly. Needs: pip install "sb3-distill[minatar]"
set -euo pipefail
for game in Breakout SpaceInvaders Asterix; do
    python -m rl_zoo3.train --algo rtpd --env "MinAtar/$game-v1" --eval-freq -1 --seed 0 -f logs -params students:None
done
sb3-distill study studies/pd_multitask_minatar.yml
