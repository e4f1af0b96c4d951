"""
Damages files of every kind that is read, and reads them: nothing may run, hang, eat memory, or end without a sentence.

python -m benchmarks.hostile --mutations 2000 --seed 0
python -m benchmarks.hostile --mutations 200 --seed 0 --kinds "ONNX file"
"""

import argparse
import contextlib
import gc
import io
import json
import os
import pickle
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnx
import rl_zoo3.exp_manager  # noqa: F401
import torch as th
import yaml
from gymnasium import spaces
from rl_zoo3.utils import StoreDict
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from benchmarks import mutations
from benchmarks.forks import in_a_fork
from benchmarks.mutations import mutate_bytes, mutate_json, mutate_npy, mutate_pickle, mutate_yaml, mutate_zip
from sb3_distill import QPD, PolicyDistillation, load_teacher
from sb3_distill.base.resume.resuming import RUN_STATE
from sb3_distill.buffers.record import StepRecord
from sb3_distill.buffers.recorded_play import RecordedPlay
from sb3_distill.buffers.recording_meta import RecordingSettings
from sb3_distill.buffers.recording_writer import RecordingWriter
from sb3_distill.buffers.recordings import Recording
from sb3_distill.cli import main as sb3_distill
from sb3_distill.common.answers import Answers
from sb3_distill.evaluation.starts import HeldOutStarts
from sb3_distill.export.bench import read_description
from sb3_distill.export.graph import build_graph
from sb3_distill.results.row import Row
from sb3_distill.results.tables import to_json
from sb3_distill.state.file import read_state
from sb3_distill.study.file import read_study
from sb3_distill.study.job import train_arguments
from sb3_distill.study.manifest import MANIFEST, Manifest, manifest_of
from sb3_distill.study.run import collect

MEMORY, CPU_SECONDS = 2 * 2**30, 60
# What nothing that only reads may do
_FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen")
_STUDY = {
    "title": "A study",
    "paper": "A paper",
    "notes": "Some notes",
    "settings": {"algo": "pd", "env": "CartPole-v1", "n_timesteps": 600, "policy_kwargs": {"net_arch": [8]}},
    "per_env": {"CartPole-v1": {"env_kwargs": {"render_mode": None}, "normalize": False}},
    "grid": {"loss": ["kl", "nll"], "seed": [0, 1]},
    "evaluation": {"n_episodes": 2, "epsilon": 0.0, "teacher": "nowhere"},
    "published": [{"env": "CartPole-v1", "loss": "kl", "percent": 100.0}],
}


class Kind(NamedTuple):
    """A kind of file: where it is, how it is damaged, and how it is read."""

    file: str
    mutate: Callable[[bytes, random.Random, str], bytes]
    read: Callable[[Path], Any]


def verb(*arguments: str) -> Callable[[Path], int]:
    """A verb of the command line on the folder, whose name stands for {}."""
    return lambda folder: sb3_distill([argument.format(folder) for argument in arguments])


def read_plan(folder: Path) -> int:
    """Plan a study, and hand its cells to the parser of the Zoo's command line."""
    status = sb3_distill(["study", f"{folder}/study.yml", "--dry-run", "-o", f"{folder}/out"])
    if status == 0:
        for cell in read_study(folder / "study.yml").cells[:20]:
            arguments = train_arguments(cell, folder, None)
            parser = argparse.ArgumentParser(allow_abbrev=False)
            for option in ("-params", "--env-kwargs"):
                parser.add_argument(option, nargs="+", action=StoreDict)
            given, _ = parser.parse_known_args(arguments)
            for name in ("policy_kwargs", "normalize"):
                # The Zoo evaluates text here once more.
                assert not isinstance((given.params or {}).get(name), str)
    return status


def read_recording(folder: Path) -> None:
    """Read a recording to its end, in both ways."""
    play = RecordedPlay(recording := Recording(folder))
    while not play.is_over:
        play.step()
    list(recording.finished_episodes())


def read_manifest(folder: Path) -> None:
    """Read the manifest of a cell, as a study that goes on does."""
    manifest_of(folder.parents[1], SimpleNamespace(key=folder.name))  # type: ignore[arg-type]


def mutate_agent(content: bytes, rng: random.Random, marker: str) -> bytes:
    """Damage a zip of SB3, or the zip of PyTorch in it."""
    weights = partial(mutate_zip, members={"data.pkl": mutate_weights, "data/0": mutate_any})
    members = {"data": mutate_json, "policy.pth": lambda data, rng, marker: weights(data, rng, marker=marker)}
    return mutate_zip(content, rng, members, marker)


def mutate_weights(content: bytes, rng: random.Random, marker: str) -> bytes:
    """Damage the pickle of a state dict, or put other weights in its place."""
    kinds = [b"ComplexFloatStorage", b"QInt8Storage", b"DoubleStorage", b"LongStorage", b"ByteStorage"]
    match rng.randrange(5):
        case 0:
            return content.replace(b"FloatStorage", rng.choice(kinds), 1)
        case 1:
            makers = [b"_rebuild_qtensor", b"_rebuild_sparse_tensor", b"_rebuild_meta_tensor_no_storage", b"eval"]
            return content.replace(b"_rebuild_tensor_v2", rng.choice(makers), rng.choice([1, -1]))
        case 2:
            return pickle.dumps(mutations.Canary(marker), protocol=2)
        case _:
            return mutate_bytes(content, rng)


def mutate_npz(content: bytes, rng: random.Random, marker: str) -> bytes:
    """Damage arrays in a zip."""
    return mutate_zip(content, rng, {".npy": mutate_npy}, marker)


def mutate_state(content: bytes, rng: random.Random, marker: str) -> bytes:
    """Damage the JSON in a state, or the zip."""
    return mutate_zip(content, rng, {".json": mutate_json}, marker)


def mutate_any(content: bytes, rng: random.Random, marker: str) -> bytes:
    """Damage bytes."""
    return mutate_bytes(content, rng)


_CURVES = verb("visualize", "curves", "{}", "-o", "{}/x.png")
_LIST, _PLAY = verb("teachers", "{}", "--json"), verb("evaluate", "{}", "-n", "1", "--device", "cpu")
KINDS = {
    "agent's zip": Kind("dqn/CartPole-v1_1/CartPole-v1.zip", mutate_agent, _LIST),
    "student's zip": Kind("pd/CartPole-v1_1/CartPole-v1.zip", mutate_agent, _PLAY),
    "quantized student's zip": Kind("qpd/CartPole-v1_1/CartPole-v1.zip", mutate_agent, _PLAY),
    "args.yml": Kind("dqn/CartPole-v1_1/CartPole-v1/args.yml", mutate_yaml, _PLAY),
    "config.yml": Kind("dqn/CartPole-v1_1/CartPole-v1/config.yml", mutate_yaml, _PLAY),
    "results.yml": Kind("dqn/CartPole-v1_1/results.yml", mutate_yaml, _LIST),
    "evaluations.npz": Kind("pd/CartPole-v1_1/evaluations.npz", mutate_npz, _LIST),
    "curves": Kind("pd/CartPole-v1_1/evaluations.npz", mutate_npz, _CURVES),
    "learning curves": Kind("rtpd/CartPole-v1_1/learning_curves.csv", mutate_any, _CURVES),
    "statistics": Kind("a2c/Pendulum-v1_1/Pendulum-v1/vecnormalize.pkl", mutate_pickle, _LIST),
    "study": Kind("plan/study.yml", mutate_yaml, read_plan),
    "report": Kind("study/results.json", mutate_json, verb("report", "{}", "-o", "{}/report")),
    "rows": Kind("study/results.json", mutate_json, verb("visualize", "bars", "{}/results.json", "-o", "{}/x.png")),
    "manifest": Kind(f"manifest/cells/cell/{MANIFEST}", mutate_json, read_manifest),
    "policy.json": Kind("export/policy.json", mutate_json, read_description),
    "ONNX file": Kind("onnx/policy.onnx", mutations.mutate_onnx, verb("teachers", "{}/policy.onnx", "--json")),
    "run state": Kind(f"state/{RUN_STATE}", mutate_state, lambda folder: read_state(folder / RUN_STATE)),
    "starts": Kind("starts/starts.npz", mutate_npz, lambda folder: HeldOutStarts.load(folder / "starts.npz")),
    **{
        f"{name} of {what}": Kind(f"{what}/{name}", mutate, read_recording)
        for what in ("vectors", "images")
        for name, mutate in (
            ("recording.json", mutate_json),
            ("observations.npy", mutate_npy),
            ("actions.npy", mutate_npy),
            ("answers_q_values.npy", mutate_npy),
            ("terminals.npz", mutate_npz),
            *([("offsets.npy", mutate_npy), ("frames.zlib", mutate_any)] if what == "images" else []),
        )
    },
}


def make_files(folder: Path) -> None:
    """Write a file of every kind, as the library, SB3 and the Zoo write them."""
    th.set_num_threads(1)
    run = folder / "dqn/CartPole-v1_1"
    kwargs: dict[str, Any] = {"policy_kwargs": {"net_arch": [16]}, "seed": 0, "device": "cpu"}
    DQN("MlpPolicy", "CartPole-v1", buffer_size=10, **kwargs).save(run / "CartPole-v1.zip")
    (run / "CartPole-v1").mkdir()
    config = {"policy": "MlpPolicy", "policy_kwargs": "dict(net_arch=[16])", "frame_stack": 1, "env_wrapper": []}
    (run / "CartPole-v1/config.yml").write_text(yaml.dump(config))
    args = {"algo": "dqn", "env": "CartPole-v1", "env_kwargs": {"sutton_barto_reward": False}, "gym_packages": []}
    (run / "CartPole-v1/args.yml").write_text(yaml.dump(args))
    (run / "results.yml").write_text(yaml.dump({"evaluation": [{"mean_reward": 3.0, "std_reward": 1.0}]}))
    student = folder / "pd/CartPole-v1_1"
    teacher = load_teacher(run / "CartPole-v1.zip", device="cpu")
    model = PolicyDistillation("MlpPolicy", "CartPole-v1", teacher=teacher, buffer_size=10, **kwargs)
    model.save(student / "CartPole-v1.zip")
    np.savez(student / "evaluations.npz", timesteps=np.arange(3), results=np.ones((3, 2)), ep_lengths=np.ones((3, 2)))
    model.learn(20).save_run_state(folder / "state" / RUN_STATE)
    settings = {"learning_starts": 16, "n_teacher_episodes": 0, "weight_bits": 3, "activation_bits": 4, **kwargs}
    quantized = QPD("MlpPolicy", "CartPole-v1", A2C("MlpPolicy", "CartPole-v1", **kwargs), **settings)
    quantized.learn(40).save(folder / "qpd/CartPole-v1_1/CartPole-v1.zip")
    curves = folder / "rtpd/CartPole-v1_1/learning_curves.csv"
    curves.parent.mkdir(parents=True)
    curves.write_text("player,n_timesteps,mean_reward\nteacher,10,1\nsmall,10,2\nteacher,20,1\nsmall,20,3\n")
    env = VecNormalize(make_vec_env("Pendulum-v1", 1))
    run = folder / "a2c/Pendulum-v1_1"
    A2C("MlpPolicy", env, **kwargs).save(run / "Pendulum-v1.zip")
    (run / "Pendulum-v1").mkdir()
    (run / "Pendulum-v1/args.yml").write_text(yaml.dump({"algo": "a2c", "env": "Pendulum-v1"}))
    env.save(str(run / "Pendulum-v1/vecnormalize.pkl"))
    for name in ("plan", "study", "export", "starts"):
        (folder / name).mkdir()
    (folder / "plan/study.yml").write_text(yaml.dump(_STUDY))
    write_results(folder)
    description = {name: "x" for name in ("source", "sha256", "algo", "env_id", "checked_against")}
    numbers = dict.fromkeys(("frame_stack", "n_parameters", "macs", "opset", "n_observations", "n_episodes"), 1)
    other = {"env_kwargs": {}, "env_wrapper": [], "vec_env_wrapper": [], "action": {"n": 2}}
    observation = {"shape": [4], "dtype": "float32", "low": -1.0, "high": 1.0}
    files = {"policy.onnx": {"bytes": 1, "disagreement": 0.0}}
    content = {**description, **numbers, **other, "observation": observation, "files": files}
    (folder / "export/policy.json").write_text(json.dumps(content))
    (folder / "onnx").mkdir()
    onnx.save(build_graph(teacher), str(folder / "onnx/policy.onnx"))
    HeldOutStarts("PongNoFrameskip-v4", (b"abc", b"de"), (0, 1), "random").save(folder / "starts/starts.npz")
    write_recording(folder / "vectors", spaces.Box(-1, 1, (4,), np.float32))
    write_recording(folder / "images", spaces.Box(0, 255, (4, 36, 36), np.uint8))


def write_results(folder: Path) -> None:
    """A study of which all cells have finished."""
    study = read_study(folder / "plan/study.yml")
    for seed, cell in enumerate(study.cells):
        row = Row(cell.env, cell.key, "pd", 10, 40, mean=9.0 + seed, std=1.0, percent_of_teacher=90.0 + seed)
        own = Row.from_dict({**row.to_dict(), "returns": [8.0, 10.0], "percent_interval": [80.0, 99.0], **cell.labels})
        manifest = Manifest(cell, (own,), {"train": 1.0}, "python -m rl_zoo3.train", {"python": "3"})
        path = folder / "study/cells" / cell.key / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text(to_json(manifest.to_dict()))
    collect(study, folder / "study")
    shutil.copytree(path.parent, folder / "manifest/cells/cell")
    assert len(json.loads((folder / "study/results.json").read_text())["manifests"]) == 4, asdict(study)


def write_recording(folder: Path, space: spaces.Box) -> None:
    """A recording of a player that does not look."""
    settings = RecordingSettings(
        algorithm="PolicyDistillation", teacher="0" * 64, env_id="A-v0", observation_space=str(space), teacher_eps=0.0
    )
    writer = RecordingWriter(folder, settings, space, 2)
    space.seed(0)
    starts = np.ones(2, dtype=bool)
    for step in range(40):
        obs = np.stack([space.sample(), space.sample()])
        dones = np.array([step % 10 == 9, step % 13 == 12])
        ended: dict[str, Any] = {"terminal_observation": space.sample(), "episode": {"r": 1.0, "l": 10}}
        infos = [ended if done else {} for done in dones]
        answers = Answers(q_values=np.ones((2, 3), np.float32))
        actions = np.zeros(2, dtype=np.int64)
        writer.add(StepRecord(obs, starts, answers, actions, np.ones(2, np.float32), dones, infos))
        starts = dones
    writer.close()


def limit_and_read(kind: Kind, folder: Path) -> str:
    """
    Read the damaged file, in a process of its own.

    :return: "read", "refused" with the sentence, or what went wrong by its name and details
    """
    ran: list[str] = []
    sys.addaudithook(lambda event, _: ran.append(event) if event.startswith(_FORBIDDEN) else None)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    said = io.StringIO()
    problem, refused = "", False
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            refused = kind.read(folder) == 1
            if refused and not any(line.startswith("sb3-distill") for line in said.getvalue().splitlines()):
                problem = f"no sentence: {said.getvalue()}"
        except (ValueError, OSError) as error:
            # Functions of the library end in these, verbs do not; their message names the file or the argument.
            if kind.read.__name__ == "<lambda>" and kind.file.startswith(("dqn", "pd", "qpd", "rtpd", "a2c", "study")):
                problem = f"no sentence: {traceback.format_exc()}"
            elif str(folder.name) not in str(error):
                problem = f"no sentence: {type(error).__name__}: {error}"
            refused = True
            said.write(str(error))
        except BaseException:
            problem = f"no sentence: {traceback.format_exc()}"
    if "MemoryError" in (text := said.getvalue() + problem) or "allocate" in text:
        problem = f"memory: {text}"
    if ran:
        problem = f"executed: {ran}"
    return problem or (f"refused: {text.strip()}" if refused else "read")


def copy_of(folder: Path, kind: Kind, name: str) -> tuple[Path, Path]:
    """A copy of the folder that a kind of file is read from, and the file in it."""
    path = folder / "files" / kind.file
    whole = path.parents[1] if path.parts[-2] in ("CartPole-v1", "Pendulum-v1") else path.parent
    copy = folder / name / whole.parent.name / whole.name
    shutil.copytree(whole, copy)
    return copy, copy / path.relative_to(whole)


def read_whole(folder: Path) -> None:
    """Read every kind of file undamaged: what is imported on the way, each fork would import anew."""
    for name, kind in KINDS.items():
        copy, _ = copy_of(folder, kind, "whole")
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            if kind.read(copy) == 1:
                raise RuntimeError(f"{name}: {said.getvalue()}")
        shutil.rmtree(folder / "whole")


def trials(
    folder: Path, n_mutations: int, seed: int, kinds: Sequence[str] | None = None
) -> Iterator[tuple[str, int, str]]:
    """
    :param folder: a folder with the files
    :param n_mutations: how many files are damaged
    :param seed: seed of the damages
    :param kinds: names of the kinds that are damaged in turn; None: all
    :return: of each damaged file its kind, its number, and how reading it ended
    """
    marker = folder / "marker"
    (folder / "modules").mkdir()
    (folder / f"modules/{mutations.MODULE}.py").write_text(f"open({str(marker)!r}, 'w')\n")
    sys.path.insert(0, str(folder / "modules"))
    gc.freeze()
    names = list(kinds or KINDS)
    for number in range(n_mutations):
        name = names[number % len(names)]
        kind = KINDS[name]
        rng = random.Random(f"{seed}-{number}")
        damaged, place = copy_of(folder, kind, f"damaged-{number}")
        with contextlib.suppress(zipfile.BadZipFile):
            place.write_bytes(kind.mutate(place.read_bytes(), rng, str(marker)))
        problem = in_a_fork(partial(limit_and_read, kind, damaged))
        if marker.exists():
            problem = f"executed: {problem}"
            marker.unlink()
        shutil.rmtree(folder / f"damaged-{number}")
        yield name, number, problem
    sys.path.remove(str(folder / "modules"))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    found: Counter[str] = Counter()
    start = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_files(folder / "files")
        read_whole(folder)
        for name, number, problem in trials(folder, args.mutations, args.seed, args.kinds):
            found[(ending := problem.partition(":")[0])] += 1
            if (number + 1) % 100 == 0:
                print(f"{number + 1} of {args.mutations}, {time.time() - start:.0f} s", file=sys.stderr, flush=True)
            if ending not in ("read", "refused"):
                print(f"{number} {name}: {problem}", flush=True)
    kinds = f"{len(args.kinds)} kind{'s' * (len(args.kinds) > 1)}"
    print(
        f"{args.mutations} damaged files of {kinds}, seed {args.seed}, {time.time() - start:.0f} s: "
        f"{found['read']} were read, {found['refused']} refused by a sentence"
    )
    print(
        f"executions {found['executed']}, hangs {found['hung']}, crashes {found['crashed']}, memory over 2 GB "
        f"{found['memory']}, errors that are no sentence {found['no sentence']}"
    )


if __name__ == "__main__":
    main()
