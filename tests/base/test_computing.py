"""How students are computed while they learn: what is chosen and kept, and that nothing waits for a GPU."""

import platform
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_distill import QPD, PolicyDistillation, RealTimeDistillDQN
from sb3_distill.agents.files import RUN_STATE
from sb3_distill.base.students import Student
from sb3_distill.common.utils import to_device
from sb3_distill.networks.computing import BREAK_EVEN
from sb3_distill.networks.policies import STUDENT_POLICIES
from tests.helpers import run_python
from tests.mtpd.students import make as make_mtpd
from tests.qpd.students import BITS, SMALL_STUDENTS
from tests.qpd.students import make as make_qpd

pytestmark = SMALL_STUDENTS


@pytest.fixture
def compiled(monkeypatch) -> list[Any]:
    """The functions that were to be compiled. None of them is: it takes half a minute."""
    functions: list[Any] = []
    monkeypatch.setattr(th, "compile", lambda function: functions.append(function) or function)
    return functions


@pytest.fixture
def processor(monkeypatch):
    """Makes the processor one on which compiling pays from some number of updates, with or without bfloat16."""

    def be(least: int | None, bf16: bool = False) -> None:
        monkeypatch.setattr(th.backends.cpu, "get_cpu_capability", lambda: "mine" if least else "another")
        monkeypatch.setitem(BREAK_EVEN, "mine", least)
        monkeypatch.setattr(th.cpu, "_is_avx512_bf16_supported", lambda: bf16)
        monkeypatch.setattr(th.cpu, "_is_amx_tile_supported", lambda: False)

    return be


def images():
    return make_vec_env(lambda: FakeImageEnv(screen_height=36, screen_width=36, n_channels=4), 1, seed=0)


def pd(policy: str = "Net5Policy", **kwargs) -> PolicyDistillation:
    teacher = DQN("CnnPolicy", images(), seed=1, device="cpu", buffer_size=10)
    arguments = {"n_teacher_episodes": 0, "learning_starts": 20, "buffer_size": 100, "seed": 0, "device": "cpu"}
    return PolicyDistillation(policy, images(), teacher, **{**arguments, **kwargs})


def qpd(**kwargs) -> QPD:
    return make_qpd(A2C("CnnPolicy", images(), seed=1, device="cpu"), images(), "Net5Policy", **kwargs)


# --- The choice


# 5 updates: one for every 4 steps after the first 20
@pytest.mark.parametrize(("least", "is_compiled"), [(5, True), (6, False), (None, False)])
def test_updates_are_compiled_where_enough_are_planned(least, is_compiled, compiled, processor, capsys):
    processor(least)
    model = pd(verbose=1)
    assert model.compile_update is None and not compiled
    model.learn(40)
    assert model.compile_update is is_compiled and len(compiled) == is_compiled
    said = capsys.readouterr().out
    assert (f"about 5 updates are planned, and compiling pays from {least}" in said) == (least is not None)
    assert (f"The student's update is {'' if is_compiled else 'not '}compiled" in said) == (least is not None)
    # A later call keeps the choice.
    model.learn(400)
    assert model.compile_update is is_compiled and len(compiled) == is_compiled


@pytest.mark.parametrize("asked", [True, False])
def test_the_user_decides(asked, compiled, processor):
    processor(5 if not asked else 1_000)
    assert pd(compile_update=asked).learn(40).compile_update is asked and len(compiled) == asked


def test_few_bits_are_not_compiled(compiled, processor, tmp_path):
    processor(1)
    assert qpd(weight_bits=4).learn(100).compile_update is False and not compiled
    whole = qpd().learn(100)
    assert whole.compile_update is True and len(compiled) == 1
    # What was chosen for a student at full precision does not hold for few bits.
    whole.save(tmp_path / "student")
    quantized = QPD.load(tmp_path / "student", images(), teacher=whole._teacher, weight_bits=4, device="cpu")
    quantized.learn(100)
    assert quantized.compile_update is False


def test_every_student_has_its_own_choice(compiled, processor):
    processor(5)
    model = pd(students={"other": {"compile_update": False}, "third": "Net5Policy"}).learn(40)
    chosen = [model.compile_update, *(model.student_model(name).compile_update for name in ("other", "third"))]
    assert chosen == [True, False, True] and len(compiled) == 2


# --- What a run that goes on keeps


@pytest.mark.parametrize("students", [None, {"other": "Net4Policy"}])
def test_a_run_keeps_its_choice_on_another_processor(students, compiled, processor, tmp_path):
    processor(1, bf16=True)
    make = {"students": students}
    model = pd(**make).learn(60, CheckpointCallback(40, tmp_path))
    model.save(tmp_path / "elsewhere/student")
    processor(1_000, bf16=False)
    resumed = pd(**make)
    resumed.load_run_state(tmp_path / RUN_STATE)
    loaded = PolicyDistillation.load(tmp_path / "elsewhere/student", images(), teacher=model._teacher, device="cpu")
    for each in (resumed, loaded):
        with pytest.warns(UserWarning, match=r"in bfloat16, but this processor has no instructions for it.*bf16=False"):
            each.learn(20, reset_num_timesteps=False)
        for own in (each, *each._further_models()):
            assert (own.bf16, own.compile_update) == (True, True)
            assert own.policy.q_net.features_extractor.train_dtype == th.bfloat16
            assert own.policy.q_net.features_extractor.cnn[2].weight.is_contiguous()


def test_what_the_user_says_of_a_run_that_goes_on_holds(compiled, processor, tmp_path):
    processor(1, bf16=True)
    model = pd().learn(60, CheckpointCallback(40, tmp_path))
    model.save(tmp_path / "elsewhere/student")
    asked = {"bf16": False, "compile_update": False}
    resumed = pd(**asked)
    resumed.load_run_state(tmp_path / RUN_STATE)
    loaded = PolicyDistillation.load(
        tmp_path / "elsewhere/student", images(), teacher=model._teacher, device="cpu", **asked
    )
    for each in (resumed, loaded):
        each.learn(20, reset_num_timesteps=False)
        assert (each.bf16, each.compile_update) == (False, False)
        assert each.policy.q_net.features_extractor.train_dtype == th.float32


# --- Nothing waits for a GPU


class HostReads(TorchDispatchMode):
    """Counts the numbers that are read from tensors: each read of a GPU's waits until it has done all its work."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.reads += func in (th.ops.aten._local_scalar_dense.default, th.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def trained(kind: str, ppo_teacher, **more) -> Any:
    """A model that has learned a little: quantized ones in the middle of their transition."""
    if kind == "pd":
        return pd(max_grad_norm=1.0, **more).learn(40)
    if kind == "mtpd":
        tasks = ("CartPole-v1", "MountainCar-v0")
        teachers = {task: DQN("MlpPolicy", task, seed=1, device="cpu", buffer_size=10) for task in tasks}
        return make_mtpd(teachers, task_sampling="equal", max_grad_norm=1.0).learn(400)
    schedule = {"quantization_schedule": kind.removeprefix("qpd, "), "final_fraction": 0.1}
    model = make_qpd(ppo_teacher, full_precision_fraction=0.0, **schedule, **BITS)

    return model.learn(400, lambda own, _: own["self"].num_timesteps < 200)


KINDS = ["pd", "mtpd", "qpd, blend", "qpd, bits"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_reads_nothing_from_the_device(kind, ppo_teacher):
    model = trained(kind, ppo_teacher)
    if kind.startswith("qpd"):
        assert 0 < model.transition_share < 1
    model._begin_updates()
    with HostReads() as counter:
        model._update(model.replay_buffer.sample(32))
        assert counter.reads == 0
        # One read for all metrics of a series
        model._log_updates([model._update(model.replay_buffer.sample(32)) for _ in range(3)], 3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_needs_no_number_of_the_device(kind, ppo_teacher):
    """Tensors on the device "meta" have no numbers: to read one is an error. It has no bfloat16."""
    model = trained(kind, ppo_teacher, **({"bf16": False} if kind == "pd" else {}))
    meta = th.device("meta")
    model.replay_buffer.device = meta
    for memory in getattr(model.replay_buffer, "memories", {}).values():
        memory.device = meta
    model.policy.to(meta)
    samples = model.replay_buffer.sample(32)
    loss, metrics = model._mean_loss(samples)
    loss.backward()
    assert {loss.device, *(metric.device for metric in metrics.values())} == {meta}
    assert all(parameter.grad.device == meta for parameter in model.policy.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("kind", ["pd", "qpd, blend"])
def test_the_loss_is_one_graph(kind, ppo_teacher):
    """So that it can be compiled, and recorded as a CUDA graph."""
    model = trained(kind, ppo_teacher)
    samples = model.replay_buffer.sample(32)
    whole = th.compile(model._mean_loss, backend="eager", fullgraph=True)
    assert th.equal(whole(samples)[0], model._mean_loss(samples)[0])


@pytest.mark.parametrize("copy", [True, False])
def test_minibatches_are_those_of_sb3(copy):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    tensor = pd().replay_buffer.to_torch(array, copy)
    assert tensor.tolist() == array.tolist() and tensor.dtype == th.uint8
    array[:] = 0
    assert bool(tensor.any()) == copy


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU")
def test_arrays_go_to_a_gpu():
    assert to_device(np.arange(6), th.device("cuda")).tolist() == list(range(6))


def test_a_saved_rtpd_model_keeps_its_precision(processor, tmp_path):
    students = {"one": "Net5Policy", "exact": {"policy": "Net5Policy", "bf16": False}}
    settings = {"students": students, "buffer_size": 20, "eval_freq": -1, "device": "cpu"}
    processor(None, bf16=True)
    model = RealTimeDistillDQN("CnnPolicy", images(), **settings)
    model.learn(20, CheckpointCallback(10, tmp_path))
    model.save(tmp_path / "elsewhere/model")
    processor(None, bf16=False)
    resumed = RealTimeDistillDQN("CnnPolicy", images(), **settings)
    resumed.load_run_state(tmp_path / RUN_STATE)
    loaded = RealTimeDistillDQN.load(tmp_path / "elsewhere/model", images(), device="cpu")
    asked = RealTimeDistillDQN("CnnPolicy", images(), bf16=False, **settings)
    asked.load_run_state(tmp_path / RUN_STATE)
    for each, expected in ((resumed, th.bfloat16), (loaded, th.bfloat16), (asked, th.float32)):
        each.learn(10, reset_num_timesteps=False)
        assert each.bf16 is (expected == th.bfloat16)
        found = {name: one.policy.q_net.features_extractor.train_dtype for name, one in each.student_nets.each()}
        assert found == {"one": expected, "exact": th.float32}


@pytest.mark.parametrize("bf16", [False, True])
def test_frames_reach_the_convolutions_in_their_layout(bf16):
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    student = Student(STUDENT_POLICIES["Net5Policy"](space, spaces.Discrete(3), lambda _: 1e-3), None, bf16=bf16)
    student.policy.set_training_mode(True)
    convolution = student.policy.q_net.features_extractor.cnn[0]
    inputs = []
    convolution.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    images = th.as_tensor(np.random.default_rng(0).integers(0, 256, (2, *space.shape), np.uint8))
    answers = student.answer(images)
    assert inputs[0].is_contiguous(memory_format=th.contiguous_format if bf16 else th.channels_last)
    assert th.equal(answers.q_values, student.policy.answer(images).q_values)


# Counts page faults of updates that are alike, in a process whose heap nobody has touched
_UPDATES = """
import resource
import numpy as np, torch as th
from gymnasium import spaces
from sb3_distill.base.students import Student
from sb3_distill.networks.policies import STUDENT_POLICIES
th.set_num_threads(1)
policy = STUDENT_POLICIES["Net3Policy"](spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(6), lambda _: 1e-3)
student = Student(policy, None, bf16=False)
images = th.zeros(128, 4, 84, 84, dtype=th.uint8)
def update():
    student.update(policy.q_net(images).square().mean())
for _ in range(5):
    update()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    update()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""


@pytest.mark.ci
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory as they please")
def test_the_memory_of_one_minibatch_serves_the_next(tmp_path):
    kept, given_back = (
        int(run_python(tmp_path, "-c", _UPDATES, **chosen).stdout)
        for chosen in ({}, {"MALLOC_TRIM_THRESHOLD_": "131072"})
    )
    assert kept < 500 < given_back


def test_real_time_students_say_that_bfloat16_is_slow(processor):
    processor(None)
    make = {"students": ["Net5Policy"], "buffer_size": 100, "learning_starts": 20, "device": "cpu", "bf16": True}
    with pytest.warns(UserWarning, match=r"in bfloat16, but this processor has no instructions for it.*bf16=False"):
        RealTimeDistillDQN("CnnPolicy", images(), **make)
