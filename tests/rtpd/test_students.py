"""What students learn beside their teacher, and which settings are their own."""

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch.nn import functional as F

from sb3_distill.common.answers import Answers
from sb3_distill.common.losses import kl_loss
from sb3_distill.rtpd.spec import StudentSpec, complete_spec
from sb3_distill.rtpd.students import RealTimeStudent, SharedBatch
from tests.helpers import same
from tests.rtpd.students import DQN_KWARGS, SMALL, make


def make_batch(imitation_differs: bool = False) -> SharedBatch:
    th.manual_seed(0)
    replay_data = ReplayBufferSamples(
        th.randn(6, 4),
        th.randint(2, (6, 1)),
        th.randn(6, 4),
        th.tensor([[0.0], [1.0], [0.0], [0.0], [1.0], [0.0]]),
        th.randn(6, 1),
    )
    return SharedBatch(replay_data, 0.9, Answers(q_values=th.randn(6, 2)), th.randint(2, (6, 1)))


def make_student(**entries) -> RealTimeStudent:
    space = spaces.Box(-1, 1, (4,))
    spec = {
        "policy": "MlpPolicy",
        "policy_kwargs": {"net_arch": [8]},
        "learning_rate": 1e-3,
        "loss": "kl",
        "temperature": 0.5,
        "student_temperature": 0.5,
        "self_learning": 0.7,
        "imitation": True,
        "teacher_source": "latest",
    }
    return RealTimeStudent(StudentSpec(**{**spec, **entries}), space, spaces.Discrete(2), th.device("cpu"))


@pytest.mark.parametrize("imitation", [True, False])
def test_the_loss_is_that_of_the_paper(imitation):
    """Sun & Fazli 2019, Eq. 3 with the target of Eq. 5 or Eq. 4, computed row by row."""
    student, batch = make_student(imitation=imitation), make_batch()
    data = batch.replay_data
    q_values = student.policy.q_net(data.observations)
    next_q_values = student.q_net_target(data.next_observations)
    errors = []
    for row in range(6):
        action = int(batch.teacher_next_actions[row]) if imitation else int(next_q_values[row].argmax())
        target = data.rewards[row] + (1 - data.dones[row]) * 0.9 * next_q_values[row, action].detach()
        errors.append(F.smooth_l1_loss(q_values[row, data.actions[row]], target))
    expected = kl_loss(batch.answers.q_values, q_values, 0.5, 0.5).mean() + 0.7 * th.stack(errors).mean()
    losses = student.learn(batch, 10.0)
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    agreement = (q_values.argmax(1) == batch.answers.q_values.argmax(1)).float().mean()
    assert losses["agreement"].item() == agreement.item()


def test_without_self_learning_rewards_do_not_matter():
    batch = make_batch()
    other = SharedBatch(batch.replay_data._replace(rewards=th.zeros(6, 1)), 0.5, *list(vars(batch).values())[2:])
    results = []
    for data in (batch, other):
        th.manual_seed(1)
        student = make_student(self_learning=0.0)
        assert "td_loss" not in student.learn(data, 10.0)
        results.append(student)
    assert same(results[0], results[1])


def test_students_learn_independently_of_each_other():
    alone = make(students={"small": SMALL}).learn(300)
    together = make(students={"small": SMALL, "other": {**SMALL, "learning_rate": 0.1}}).learn(300)
    assert same(alone.student_nets["small"], together.student_nets["small"])


def test_same_seed_same_bits_and_targets_follow():
    models = [make().learn(300) for _ in range(2)]
    assert same(models[0].student_nets, models[1].student_nets)
    student = models[0].student_nets["small"]
    assert not same(student.q_net_target, student.policy.q_net)
    student.update_target(1.0)
    assert same(student.q_net_target, student.policy.q_net)


# --- Settings


def test_entries_of_a_student_override_the_arguments():
    specs = {"a": SMALL, "b": {**SMALL, "temperature": 1.0, "loss": "reverse_kl", "self_learning": 0}}
    model = make(students=specs, temperature=0.1)
    assert model.student_nets["a"].loss.student_temperature == 0.1
    assert vars(model.student_nets["b"].loss) == {
        "name": "reverse_kl",
        "temperature": 1.0,
        "student_temperature": 1.0,
        "action_space": None,
    }
    assert make(student_temperature=1.0).student_nets["small"].loss.student_temperature == 1.0


def test_open_entries_of_a_student_are_the_algorithms():
    entries = {"learning_rate": None, "self_learning": None, "imitation": None, "temperature": None}
    model = make(students={"a": {**SMALL, **entries}}, imitation=True, self_learning=0.5, student_temperature=0.3)
    _, student = next(model.student_nets.each())
    assert student.spec.imitation is True and student.spec.self_learning == 0.5
    assert student.spec.temperature == 0.1 and student.spec.student_temperature == 0.3
    assert student.lr_schedule(1.0) == DQN_KWARGS["learning_rate"]


@pytest.mark.parametrize("arguments", [{"temperature": "auto"}, {"students": {"a": {**SMALL, "temperature": "auto"}}}])
def test_no_temperature_fits_a_teacher_that_still_learns(arguments):
    with pytest.raises(ValueError, match="temperature='auto' is not possible here: the teacher's Q-values grow"):
        make(**arguments)


def test_learning_rate_of_a_student_may_fall():
    model = make(students={"falling": {**SMALL, "learning_rate": "lin_1e-3"}, "steady": SMALL}).learn(400)
    falling, steady = (student.optimizer.param_groups[0]["lr"] for _, student in model.student_nets.each())
    assert falling == pytest.approx(1e-3 * model._current_progress_remaining) and steady == 2e-3
    assert falling < 1e-4


@pytest.mark.parametrize(
    ("entries", "defaults", "expected"),
    [
        ({}, {"temperature": 0.1, "student_temperature": None}, (0.1, 0.1)),
        ({}, {"temperature": 0.1, "student_temperature": 0.5}, (0.1, 0.5)),
        ({"temperature": 0.2}, {"temperature": 0.1, "student_temperature": 0.5}, (0.2, 0.2)),
        (
            {"temperature": 0.2, "student_temperature": 0.3},
            {"temperature": 0.1, "student_temperature": 0.5},
            (0.2, 0.3),
        ),
        ({"temperature": None}, {"temperature": 0.1, "student_temperature": 0.5}, (0.1, 0.5)),
    ],
)
def test_temperatures_of_teacher_and_student(entries, defaults, expected):
    spec = complete_spec({"policy": "MlpPolicy", **entries}, defaults)
    assert (spec.temperature, spec.student_temperature) == expected
