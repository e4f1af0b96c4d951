"""Measures an exported policy for microcontrollers: builds for Arm Cortex-M, and runs in an emulator."""

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from sb3_distill.export.c.build import Footprint, measure, run_tool

# The processor, and the emulated board: code for an M0 runs on an M3, too.
TARGETS = {"cortex-m0": "mps2-an385", "cortex-m3": "mps2-an385", "cortex-m4": "mps2-an386"}
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
# One tick of the boards' timer, in instructions: they run at 25 MHz, and -icount makes one last a nanosecond.
TICK = 40
_N_ACTIONS = 200
_LINKER_SCRIPT = """
ENTRY(_start)
SECTIONS {
  .vectors 0x0 : { KEEP(*(.vectors)) }
  .text : {
    *(.text*) KEEP(*(.init)) KEEP(*(.fini)) *(.rodata*) *(.eh_frame*) *(.ARM.*)
    . = ALIGN(4);
    __init_array_start = .; KEEP(*(.init_array*)) __init_array_end = .;
    __fini_array_start = .; KEEP(*(.fini_array*)) __fini_array_end = .;
  }
  .data 0x20000000 : { *(.data*) }
  .bss : { __bss_start__ = .; *(.bss*) *(COMMON) __bss_end__ = .; }
  end = .;
  __end__ = .;
  __stack = 0x20400000;
}
"""
# The recorded actions first, then the time of actions
_MAIN = """
#define main run_test
#include "policy_test.c"
#undef main
extern void _start(void);
extern char __stack[];
__attribute__((section(".vectors"), used)) static void *const vectors[2] = {__stack, (void *)_start};
static volatile uint32_t *const timer = (volatile uint32_t *)0xE000E010;
int main(void)
{
    uint32_t ticks = 0, empty = 0;
    int action;
    if (run_test() != 0)
        return 1;
    timer[1] = 0xFFFFFF;
    timer[2] = 0;
    timer[0] = 5;
    for (action = 0; action < N_ACTIONS; action++) {
        uint32_t start = timer[2];
        ACT(observations[action % COUNT]);
        ticks += (start - timer[2]) & 0xFFFFFF;
        start = timer[2];
        empty += (start - timer[2]) & 0xFFFFFF;
    }
    printf("%lu ticks\\n", (unsigned long)(ticks - empty));
    return 0;
}
"""


def missing_tools() -> list[str]:
    """
    :return: the programs that are not installed
    """
    return [name for name in (COMPILER, "arm-none-eabi-size", EMULATOR) if shutil.which(name) is None]


def measure_cortex(folder: Path, target: str, discrete: bool) -> Footprint:
    """
    :param folder: folder of the export
    :param target: one of ``TARGETS``
    :param discrete: whether its actions are discrete
    :return: what the policy takes on this processor, with the instructions of one action; its test has passed there
    :raises BuildError: a program fails, or an action is not the recorded one
    """
    flags = (f"-mcpu={target}", "-mthumb")
    footprint = measure(folder, target, COMPILER, "arm-none-eabi-size", flags)
    act = "policy_act(part)" if discrete else "{ int16_t action_[POLICY_ACTIONS]; policy_act(part, action_); }"
    options = (*flags, f"-DN_ACTIONS={_N_ACTIONS}", f"-DACT(part)={act}", f"-I{folder.resolve()}")
    with tempfile.TemporaryDirectory() as name:
        build_image(Path(name), _MAIN, *options, folder.resolve() / "policy.c")
        printed = run_image(Path(name), target)
    ticks = int(re.findall(r"(\d+) ticks", printed)[0])
    return replace(footprint, instructions=round(ticks * TICK / _N_ACTIONS))


def build_image(build: Path, main: str, *arguments: str | Path) -> None:
    """
    :param build: folder in which ``image`` is written, a program that prints through the emulator
    :param main: its C source, with the table of vectors
    :param arguments: options and further sources for the compiler
    :raises BuildError: the compiler fails
    """
    (build / "main.c").write_text(main)
    (build / "link.ld").write_text(_LINKER_SCRIPT)
    libraries = ("--specs=rdimon.specs", "-lc", "-lrdimon", "-T", "link.ld", "-Wl,--gc-sections")
    run_tool(COMPILER, "-Os", "-ffunction-sections", "main.c", *arguments, *libraries, "-o", "image", folder=build)


def run_image(build: Path, target: str) -> str:
    """
    :param build: folder with ``image``
    :param target: one of ``TARGETS``
    :return: what it prints on the emulated board
    :raises BuildError: the emulator fails
    """
    options = ("-nographic", "-semihosting", "-icount", "shift=0")
    return run_tool(EMULATOR, "-M", TARGETS[target], *options, "-kernel", "image", folder=build)
