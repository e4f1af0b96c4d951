import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.distributions import Normal, kl_divergence

from sb3_distill.common.answers import Answers, Gaussian
from sb3_distill.common.losses import (
    LOSSES,
    DistillationLoss,
    gaussian_kl_loss,
    kl_loss,
    mse_loss,
    nll_loss,
    reverse_kl_loss,
)

TEACHER = th.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
STUDENT = th.tensor([[0.2, 0.1, -0.3], [1.0, 2.0, 0.0]])


def compared(loss: DistillationLoss, teacher: th.Tensor, student: th.Tensor) -> th.Tensor:
    return loss(Answers(q_values=teacher), Answers(q_values=student))


def log_softmax(row: list[float]) -> list[float]:
    largest = max(row)
    log_sum = largest + math.log(sum(math.exp(value - largest) for value in row))
    return [value - log_sum for value in row]


def expected_kl(p_logits: th.Tensor, q_logits: th.Tensor) -> float:
    total = 0.0
    for p_row, q_row in zip(p_logits.double().tolist(), q_logits.double().tolist(), strict=True):
        log_p, log_q = log_softmax(p_row), log_softmax(q_row)
        total += sum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))
    return total / len(p_logits)


def test_nll_is_minus_the_log_probability_of_the_teachers_action():
    expected = -(log_softmax([0.2, 0.1, -0.3])[1] + log_softmax([1.0, 2.0, 0.0])[2]) / 2
    assert nll_loss(TEACHER, STUDENT).mean().item() == pytest.approx(expected, rel=1e-6)


def test_mse_is_summed_over_actions_one_number_per_example():
    # 0.64 + 3.61 + 0.64, and 1 + 9 + 9
    assert mse_loss(TEACHER, STUDENT).tolist() == pytest.approx([4.89, 19.0], rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.01])
@pytest.mark.parametrize("student_temperature", [1.0, 0.5])
def test_kl_matches_the_written_out_sum(temperature, student_temperature):
    teacher, student = TEACHER.double() / temperature, STUDENT.double() / student_temperature
    assert kl_loss(TEACHER.double(), STUDENT.double(), temperature, student_temperature).mean().item() == pytest.approx(
        expected_kl(teacher, student), rel=1e-9
    )
    assert reverse_kl_loss(TEACHER.double(), STUDENT.double(), temperature, student_temperature).mean().item() == (
        pytest.approx(expected_kl(student, teacher), rel=1e-9)
    )


def test_papers_temperatures():
    paper = DistillationLoss("kl", temperature=0.01, student_temperature=1.0)
    assert compared(paper, TEACHER, STUDENT).mean().item() == pytest.approx(
        expected_kl(TEACHER / 0.01, STUDENT), rel=1e-5
    )
    actor_mimic = DistillationLoss("kl", temperature=0.1, student_temperature=0.1)
    assert compared(actor_mimic, TEACHER, TEACHER).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_gaussian_divergence_is_the_closed_form(temperature):
    th.manual_seed(0)
    means, log_stds = th.randn(2, 6, 3, dtype=th.float64), th.randn(2, 6, 3, dtype=th.float64)
    teacher = Normal(means[0], log_stds[0].exp() * temperature**0.5)
    expected = kl_divergence(teacher, Normal(means[1], log_stds[1].exp())).sum(1)
    pair = [Gaussian(means[index], log_stds[index].exp()) for index in (0, 1)]
    assert gaussian_kl_loss(*pair, temperature).tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    # What a loss by name does where both answer with Gaussians
    loss = DistillationLoss("kl", temperature)
    assert th.equal(loss(*(Answers(gaussian=each) for each in pair)), gaussian_kl_loss(*pair, temperature))


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_the_numerical_one(name):
    teacher = th.randn(4, 5, dtype=th.float64, generator=th.Generator().manual_seed(0))
    student = th.randn(4, 5, dtype=th.float64, generator=th.Generator().manual_seed(1)).requires_grad_()
    loss = DistillationLoss(name, temperature=0.3, student_temperature=0.7)
    assert th.autograd.gradcheck(lambda logits: compared(loss, teacher, logits), (student,))


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_input_is_computed_in_float32(name):
    loss = DistillationLoss(name)
    half = compared(loss, TEACHER.bfloat16(), STUDENT.bfloat16())
    assert half.dtype == th.float32
    assert th.equal(half, compared(loss, TEACHER.bfloat16().float(), STUDENT.bfloat16().float()))


finite_logits = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), teacher=finite_logits, name=st.sampled_from(["kl", "reverse_kl", "nll"]))
def test_no_nan_for_any_finite_input(data, teacher, name):
    student = data.draw(
        hnp.arrays(np.float32, teacher.shape, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
    )
    logits = th.tensor(student, requires_grad=True)
    loss = compared(DistillationLoss(name, temperature=1e-3, student_temperature=1e-3), th.tensor(teacher), logits)
    loss.mean().backward()
    assert loss.shape == teacher.shape[:1] and not loss.isnan().any()
    assert not logits.grad.isnan().any()


@settings(max_examples=100, deadline=None)
@given(
    teacher=hnp.arrays(np.float32, (3, 4), elements=st.floats(-50, 50, width=32)),
    student=hnp.arrays(np.float32, (3, 4), elements=st.floats(-50, 50, width=32)),
    shift=st.floats(-10, 10),
)
def test_kl_is_a_divergence_and_ignores_a_constant(teacher, student, shift):
    teacher, student = th.tensor(teacher).double(), th.tensor(student).double()
    for divergence in (kl_loss, reverse_kl_loss):
        value = divergence(teacher, student, 0.1, 1.0)
        assert (value >= -1e-9).all()
        assert divergence(teacher, teacher, 1.0, 1.0).tolist() == pytest.approx([0.0] * 3, abs=1e-9)
        assert divergence(teacher + shift, student - shift, 0.1, 1.0).tolist() == pytest.approx(
            value.tolist(), rel=1e-6, abs=1e-6
        )


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "KL"}, "Did you mean 'kl'"),
        ({"name": "msee"}, "kl, reverse_kl, nll, mse"),
        ({"temperature": 0.0}, "temperature must be a positive"),
        ({"temperature": -1}, "temperature must be a positive"),
        ({"temperature": float("nan")}, "temperature must be a positive"),
        ({"student_temperature": float("inf")}, "student_temperature must be a positive"),
        ({"temperature": "0.01"}, "temperature must be a positive"),
        ({"temperature": True}, "temperature must be a positive"),
    ],
)
def test_bad_losses_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DistillationLoss(**kwargs)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((3,), (3,)), ((2, 1, 3), (2, 1, 3))])
def test_shapes_that_do_not_fit(name, shapes):
    with pytest.raises(ValueError, match=r"\(batch, n_actions\)"):
        compared(DistillationLoss(name), th.zeros(shapes[0]), th.zeros(shapes[1]))


def test_answers_without_a_divergence_meet_as_actions():
    space = spaces.Box(-2.0, 2.0, (2,), np.float32)
    plain = Answers(gaussian=Gaussian(th.tensor([[1.0, 7.0]]), th.ones(1, 2)))
    squashed = Answers(gaussian=Gaussian(th.tensor([[0.0, -9.0]]), th.ones(1, 2), squashed=True))
    point = Answers(point=th.tensor([[0.5, -1.0]]))
    loss = DistillationLoss("kl", 1.0, action_space=space)
    # Differences of 0.5 and 2 on the scale of [-1, 1]
    for pair in ((squashed, plain), (plain, squashed)):
        assert loss(*pair).item() == pytest.approx(0.5 * 0.5**2 + 1.5, rel=1e-4)
    assert loss(point, plain).item() == pytest.approx(1.5) and loss(point, point).item() == 0.0
    # Squashed alike, they are compared before it.
    assert th.equal(loss(squashed, squashed), gaussian_kl_loss(squashed.gaussian, squashed.gaussian))
    assert loss(Answers(gaussian=Gaussian(th.zeros(1, 2), th.ones(1, 2), True)), squashed).item() > 40


@pytest.mark.parametrize("name", LOSSES)
def test_kinds_of_answers_that_have_no_divergence(name):
    gaussian = Answers(gaussian=Gaussian(th.zeros(2, 3), th.ones(2, 3)))
    for pair in ((gaussian, Answers(q_values=STUDENT)), (Answers(log_probs=TEACHER), gaussian)):
        with pytest.raises(ValueError, match="mean and a deviation"):
            DistillationLoss(name)(*pair)
    if name != "kl":
        with pytest.raises(ValueError, match="mean and a deviation"):
            DistillationLoss(name)(gaussian, gaussian)
