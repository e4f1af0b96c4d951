"""Flash, RAM and instructions of ``policy.c`` beside the same networks as C of emlearn, on emulated Cortex-M.

``pip install emlearn==0.23.2``, then ``python -m benchmarks.emlearn_peer FOLDER...`` for folders that
``sb3-distill export --format c`` wrote of fully connected agents with discrete actions. emlearn's networks have the
same shapes, activations and weights in floats (a quantized agent's rounded ones), written by its default method,
"loadable"; "inline" and fixed point fail in this version. Every image holds the same observations, and the same program
around the policy. Flash and RAM are what an image has more than one without a policy, the compiler's routines included;
the deepest stack is found by the pattern that it overwrites.
"""

import argparse
import importlib.util
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import nn

from sb3_distill.agents.agent import Teacher
from sb3_distill.agents.chain import chain_of
from sb3_distill.evaluation.observations import record_observations
from sb3_distill.export.bench import find_source, read_description
from sb3_distill.export.c.build import run_tool
from sb3_distill.export.c.cortex import TICK, build_image, missing_tools, run_image
from sb3_distill.quantization.layers import QuantizedLinear
from sb3_distill.results.tables import format_table

_ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh"}
# Processors, and the compiler's options; the last has a unit for floats
_PROCESSORS = {
    "Cortex-M0": ("cortex-m0", ("-mcpu=cortex-m0", "-mthumb")),
    "Cortex-M4": ("cortex-m4", ("-mcpu=cortex-m4", "-mthumb")),
    "Cortex-M4F": ("cortex-m4", ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")),
}
_N_ACTIONS = 200
_N_OBSERVATIONS = 20
_MAIN = """
#include <stdint.h>
#include <stdio.h>
%(include)s
#define STACK 8192
#define PATTERN 0xA5A5A5A5u
extern void _start(void);
extern char __stack[];
void reset(void);
void reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xF00000u; /* the unit for floats, where there is one */
    _start();
}
__attribute__((section(".vectors"), used)) static void *const vectors[2] = {__stack, (void *)reset};
static volatile uint32_t *const timer = (volatile uint32_t *)0xE000E010;
static const float observations[%(count)d][%(size)d] = {%(observations)s};
static volatile int actions[%(count)d];
__attribute__((noinline)) static int act(const float *observation) { %(act)s }
__attribute__((noinline)) static uint32_t deepest(void)
{
    volatile uint32_t *const top = (volatile uint32_t *)__builtin_frame_address(0) - 16;
    volatile uint32_t *place = top - STACK / 4;
    volatile uint32_t *each;
    for (each = place; each < top; each++)
        *each = PATTERN;
    actions[0] = act(observations[0]);
    while (*place == PATTERN && place < top)
        place++;
    return (uint32_t)(top - place) * 4;
}
int main(void)
{
    uint32_t ticks = 0, empty = 0, stack = deepest();
    int i;
    timer[1] = 0xFFFFFF;
    timer[2] = 0;
    timer[0] = 5;
    for (i = 0; i < %(n_actions)d; i++) {
        uint32_t start = timer[2];
        actions[i %% %(count)d] = act(observations[i %% %(count)d]);
        ticks += (start - timer[2]) & 0xFFFFFF;
        start = timer[2];
        empty += (start - timer[2]) & 0xFFFFFF;
    }
    printf("%%lu ticks, %%lu stack:", (unsigned long)(ticks - empty), (unsigned long)stack);
    for (i = 0; i < %(count)d; i++)
        printf(" %%d", actions[i]);
    return 0;
}
"""


def layers_of(agent: Teacher) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """
    :param agent: a fully connected agent on vectors
    :return: activations, weights ``(n_in, n_out)`` and biases as emlearn takes them
    :raises SystemExit: it has other layers
    """
    activations: list[str] = []
    weights, biases = [], []
    for layer in chain_of(agent):
        if isinstance(layer, nn.Linear):
            weight = layer.quantized_weight() if isinstance(layer, QuantizedLinear) else layer.weight
            weights.append(weight.detach().numpy().T)
            biases.append(layer.bias.detach().numpy())
            activations.append("identity")
        elif type(layer) in _ACTIVATIONS:
            activations[-1] = _ACTIVATIONS[type(layer)]
        elif not isinstance(layer, nn.Flatten):
            raise SystemExit(f"{agent.source}: {type(layer).__name__} is no layer that emlearn has here.")
    activations[-1] = "softmax"
    return activations, weights, biases


def measure(export: Path, processor: str) -> list[list[str]]:
    """
    :param export: folder of an export
    :param processor: one of ``_PROCESSORS``
    :return: rows of the table: ``policy.c`` and emlearn's
    :raises SystemExit: the agent is not at hand, or is not of the kind that both can be written of
    """
    emlearn: Any = importlib.import_module("emlearn")
    net: Any = importlib.import_module("emlearn.net")
    description = read_description(export)
    agent = find_source(export, description)
    if agent is None or agent.normalization is not None or not isinstance(agent.action_space, spaces.Discrete):
        raise SystemExit(f"{export}: its agent must be at hand, see raw observations, and have discrete actions.")
    activations, weights, biases = layers_of(agent)
    rows = np.asarray(record_observations(agent, description.env_id, _N_OBSERVATIONS).values, np.float32)
    size = rows.shape[1]
    code = net.c_generate_net_loadable(activations, weights, biases, prefix="net")
    policy, header = export.resolve() / "policy.c", f'#include "{export.resolve() / "policy.h"}"'
    images: dict[str, tuple[str, str, list[Path]]] = {
        "none": ("", "return (int)observation[0];", []),
        "policy.c": (header, "return policy_act(observation);", [policy]),
        "emlearn": (code, f"return eml_net_predict(&net, observation, {size});", []),
    }
    target, options = _PROCESSORS[processor]
    chosen = np.asarray(agent.predict(rows)[0])
    table: list[list[str]] = []
    without = np.zeros(4, int)
    for name, (include, act, sources) in images.items():
        fill = {
            "include": include,
            "act": act,
            "count": len(rows),
            "size": size,
            "observations": ",".join("{" + ",".join(f"{value!r}f" for value in row) + "}" for row in rows.tolist()),
            "n_actions": _N_ACTIONS,
        }
        with tempfile.TemporaryDirectory() as build:
            arguments: list[str | Path] = [*options, f"-I{emlearn.includedir}", *sources, "-lm"]
            build_image(Path(build), _MAIN % fill, *arguments)
            sections = run_tool("arm-none-eabi-size", "image", folder=Path(build)).splitlines()[1].split()
            printed = run_image(Path(build), target)
        text, data, bss = map(int, sections[:3])
        ticks, stack, *actions = map(int, re.findall(r"-?\d+", printed))
        measured = np.array([text + data, data + bss, stack, round(ticks * TICK / _N_ACTIONS)])
        if name == "none":
            without = measured
            continue
        agreed = f"{np.mean(np.array(actions) == chosen):.0%}"
        numbers = measured - without * [1, 1, 0, 1]
        table.append([export.name, processor, name, *(f"{number:,}" for number in numbers), agreed])
    return table


def main() -> None:
    """Entry point of ``python -m benchmarks.emlearn_peer``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="that sb3-distill export --format c wrote")
    args = parser.parse_args()
    missing = missing_tools() + (["emlearn"] if importlib.util.find_spec("emlearn") is None else [])
    if missing:
        raise SystemExit(f"Not installed: {', '.join(missing)}.")
    table = [["policy", "processor", "code of", "flash", "RAM", "stack", "instructions", "same action"]]
    for folder in args.folders:
        for processor in _PROCESSORS:
            table += measure(folder, processor)
    print(format_table(table, n_left=3))


if __name__ == "__main__":
    main()
