"""``sb3-distill zoo``: the commands of the RL Baselines3 Zoo, with our algorithms, without the start-up hook."""

import runpy
import sys

import sb3_distill_zoo
from sb3_distill.common.verbs import find_verb
from sb3_distill.zoo.refusals import REFUSALS, refusal

COMMANDS = {
    "train": ("rl_zoo3.train", "train an agent, or search for hyperparameters"),
    "enjoy": ("rl_zoo3.enjoy", "watch a trained agent"),
    "record_video": ("rl_zoo3.record_video", "record a trained agent"),
    "record_training": ("rl_zoo3.record_training", "record the checkpoints of a training run"),
    "plot_train": ("rl_zoo3.plots.plot_train", "plot training curves"),
    "plot_from_file": ("rl_zoo3.plots.plot_from_file", "plot the results that all_plots saved"),
    "all_plots": ("rl_zoo3.plots.all_plots", "plot evaluation results, and save them"),
    "benchmark": ("rl_zoo3.benchmark", "evaluate all trained agents of a folder"),
    "load_from_hub": ("rl_zoo3.load_from_hub", "download an agent from the Hugging Face hub"),
    "push_to_hub": ("rl_zoo3.push_to_hub", "upload an agent to the Hugging Face hub"),
}


def main(argv: list[str]) -> int:
    """
    Run a command of the Zoo as ``python -m`` would.

    :param argv: the command and its arguments
    :return: exit status
    """
    module = find_verb("sb3-distill zoo", COMMANDS, argv, "train --algo pd --env CartPole-v1")
    sb3_distill_zoo.add_finder()
    sys.argv = [module, *argv[1:]]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except REFUSALS as error:
        said = refusal(error)
        if said is None:
            raise
        print(f"sb3-distill zoo {argv[0]}: {said}", file=sys.stderr)
        return 1
    return 0
