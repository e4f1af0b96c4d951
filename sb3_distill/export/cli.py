"""``sb3-distill export``: an agent as ONNX files or C; ``sb3-distill export bench``: their speed and size."""

import sys
from pathlib import Path

from sb3_distill.common.arguments import add_import_options
from sb3_distill.common.files import check_writable_folder
from sb3_distill.common.utils import counted
from sb3_distill.common.verbs import Parser, close_match
from sb3_distill.envs.imports import trust_packages
from sb3_distill.export.description import OLDEST_OPSET, OPSET


def main(argv: list[str]) -> int:
    """
    Entry point of the verb.

    :param argv: the arguments behind the verb
    :return: exit status
    """
    if argv and argv[0] != "bench" and not Path(argv[0]).exists() and close_match(argv[0], ["bench"]):
        print(f"sb3-distill export: error: there is no agent {argv[0]!r}, did you mean 'bench'?", file=sys.stderr)
        return 2
    if argv[:1] == ["bench"]:
        from sb3_distill.export.bench import main as bench

        return bench(argv[1:])
    return _export(argv)


def _export(argv: list[str]) -> int:
    parser = Parser(
        "sb3-distill export",
        "Write an agent as ONNX (float32 and integers, with a description and a runner), as C that "
        "computes with integers, or as a page for the browser; or a student as a stock zip of Stable-Baselines3. "
        "`sb3-distill export bench DIR ...` measures the files.",
        "logs/qpd/CartPole-v1_1 -o out/ --format c",
    )
    parser.add_argument("agent", help="a zip, a run folder, a zoo: or hub: name; student or teacher")
    parser.add_argument("-o", "--output", required=True, help="folder for the files")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=["onnx", "c", "web", "sb3"],
        default=["onnx"],
        help="one or several of: onnx; c: source for a microcontroller, which computes with integers only; web: a page "
        "on which the agent plays in the browser (CartPole, MinAtar's Breakout). Or sb3: a student as a stock DQN or "
        "PPO zip, which loads where sb3-distill is not installed and can be trained further (default: onnx)",
    )
    checks = parser.add_argument_group("checks of what is written")
    checks.add_argument("--env", help="environment that checks the files (default: the agent's own)")
    checks.add_argument(
        "--n-observations", type=int, default=1_000, help="observations to check on, from whole episodes"
    )
    checks.add_argument(
        "--max-disagreement", type=float, default=0.01, help="share of them at which a file may choose another action"
    )
    checks.add_argument(
        "--allow-pickle",
        action="store_true",
        help="load the agent with SB3's own load, which runs any code in its file, and check the export against that; "
        "only for files that you trust",
    )
    parser.add_argument("--bits", type=int, help="precision of agents that are not quantized, 2 to 8 (default: 8)")
    parser.add_argument("--opset", type=int, default=21, help="version of ONNX's operators, 18 to 21")
    add_import_options(parser)
    args = parser.parse_args(argv)
    if args.n_observations < 1:
        parser.error(f"--n-observations must be at least 1, not {args.n_observations}")
    if not 0.0 <= args.max_disagreement <= 1.0:
        parser.error(f"--max-disagreement is a share, between 0 and 1, not {args.max_disagreement}")
    if args.bits is not None and not 2 <= args.bits <= 8:
        parser.error(f"--bits must be between 2 and 8, not {args.bits}")
    if not OLDEST_OPSET <= args.opset <= OPSET:
        parser.error(f"--opset must be between {OLDEST_OPSET} and {OPSET}, not {args.opset}")
    if "sb3" in args.format and len(set(args.format)) > 1:
        parser.error("--format sb3 cannot be combined with other formats: run the command once for each")
    from sb3_distill.agents.load import is_onnx_file
    from sb3_distill.export.export import export_agent
    from sb3_distill.export.stock import export_stock

    try:
        if is_onnx_file(args.agent):
            raise ValueError(
                f"{args.agent} is an ONNX file already, and its layers are not known. Distill it (--algo qpd, or "
                "sb3-distill compress), and export that student."
            )
        check_writable_folder(Path(args.output))
        trust_packages(args.gym_packages, args.allow_import)
        if "sb3" in args.format:
            limits = args.n_observations, args.max_disagreement
            path, share = export_stock(args.agent, args.output, args.env, *limits, args.allow_pickle)
            print(f"{path}: {share:.2%} other actions than the student")
            return 0
        description = export_agent(
            args.agent,
            args.output,
            args.env,
            args.n_observations,
            args.max_disagreement,
            args.opset,
            args.bits,
            args.allow_pickle,
            args.format,
        )
    except (ValueError, OSError) as error:
        print(f"sb3-distill export: {error}", file=sys.stderr)
        return 1
    for name, file in description.files.items():
        kind = " in its arrays" if name == "policy.c" else ""
        print(
            f"{Path(args.output) / name}: {file.bytes:,} bytes{kind}, {file.disagreement:.2%} other actions at "
            f"{counted(description.n_observations, 'observation')} from {counted(description.n_episodes, 'episode')}"
        )
    return 0
