"""MaskablePPO agents: they act as in SB3-contrib, within the masks that the environment gives."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_distill import QPD, MultiTaskDistillation, PolicyDistillation, ProximalPolicyDistillation, load_teacher
from sb3_distill.agents.kinds.maskable import MaskableTeacher
from sb3_distill.cli import main
from sb3_distill.common.answers import Answers
from sb3_distill.envs.inspection import action_masks_of
from sb3_distill.evaluation.observations import record_observations
from sb3_distill.evaluation.players import mix_random_actions
from sb3_distill.export.bench import bench_folder, mean_return, open_file, read_description
from tests.agents.own_teachers import Plain, Swinger

N_ACTIONS = 4


class Corridor(gym.Env):
    """
    The position is seen with noise. Two of four actions are allowed, and which ones changes with each step.

    :param strict: whether another action is an error
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}
    observation_space, action_space = spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Discrete(N_ACTIONS)

    def __init__(self, strict: bool = True, render_mode: str | None = None) -> None:
        self.strict, self.render_mode = strict, render_mode

    def _see(self) -> np.ndarray:
        self.allowed = np.isin(range(N_ACTIONS), self.np_random.permutation(N_ACTIONS)[:2])
        return self.np_random.normal(self.steps, 1.0, 3).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._see(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        is_allowed = bool(self.allowed[action])
        assert is_allowed or not self.strict
        self.steps += 1
        return self._see(), float(is_allowed), self.steps == 6, False, {}

    def action_masks(self) -> np.ndarray:
        return self.allowed


gym.register("Corridor-v0", Corridor)
gym.register("Lenient-v0", Corridor, kwargs={"strict": False})
QUICK: dict[str, Any] = {"n_teacher_episodes": 2, "device": "cpu", "seed": 0}
OFF_POLICY: dict[str, Any] = {**QUICK, "learning_starts": 16, "buffer_size": 200}


def agent(env: VecEnv | None = None, **policy_kwargs: Any) -> MaskablePPO:
    """It has learned nothing, but prefers some actions."""
    env = env or make_vec_env("Corridor-v0", 2, seed=0)
    kwargs: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "seed": 0, "device": "cpu"}
    model = MaskablePPO("MlpPolicy", env, policy_kwargs={"net_arch": [8], **policy_kwargs}, **kwargs)
    with th.no_grad():
        for weight in model.policy.action_net.parameters():
            weight.normal_()
    return model


def run_folder(folder: Path, model: MaskablePPO, env_id: str = "Corridor-v0") -> Path:
    run = folder / "ppo_mask" / f"{env_id}_1"
    (run / env_id).mkdir(parents=True)
    model.save(run / env_id)
    (run / env_id / "args.yml").write_text(f"algo: ppo_mask\nenv: {env_id}\n")
    (run / env_id / "config.yml").write_text("n_steps: 8\n")
    return run


@pytest.mark.parametrize("policy_kwargs", [{}, {"share_features_extractor": False, "activation_fn": th.nn.ReLU}])
def test_it_plays_as_in_sb3_contrib(policy_kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = make_vec_env("Corridor-v0", 3, seed=0)
    model = agent(**policy_kwargs)
    model.save(tmp_path / "agent")
    for teacher in (load_teacher(tmp_path / "agent.zip", device="cpu"), load_teacher(model, device="cpu")):
        assert isinstance(teacher, MaskableTeacher) and teacher.algo == "ppo_mask" and teacher.has_critic
        obs: Any = env.reset()
        for _ in range(20):
            masks = action_masks_of(env)
            expected, _ = model.predict(obs, deterministic=True, action_masks=masks)
            actions, _ = teacher.predict(obs, action_masks=masks)
            assert np.array_equal(actions, expected)
            assert teacher.predict(obs[0], action_masks=masks[0])[0] == expected[0]
            assert np.array_equal(teacher.predict(obs)[0], model.predict(obs, deterministic=True)[0])
            tensor = th.as_tensor(obs)
            answers, _ = teacher.answer(tensor, with_values=True)
            distribution: Any = model.policy.get_distribution(tensor, action_masks=masks)
            assert th.allclose(answers.masked(masks).log_probs.exp(), distribution.distribution.probs, atol=1e-6)
            assert answers.values is not None
            assert th.allclose(answers.values, model.policy.predict_values(tensor)[:, 0], atol=1e-6)
            drawn = teacher.sample(obs, [np.random.default_rng(0)] * 3, action_masks=masks)[0]
            assert masks[range(3), drawn].all()
            assert masks[range(3), teacher.predict(obs, deterministic=False, action_masks=masks)[0]].all()
            obs, *_ = env.step(actions)


def test_run_folders_and_statistics(tmp_path: Path) -> None:
    raw = make_vec_env("Corridor-v0", 2, seed=0)
    normalized = VecNormalize(raw, norm_reward=False)
    model = agent(normalized)
    normalized.reset()
    run = run_folder(tmp_path, model)
    normalized.save(str(run / "Corridor-v0" / "vecnormalize.pkl"))
    teacher = load_teacher(run, device="cpu")
    assert teacher.env_id == "Corridor-v0" and teacher.normalization is not None
    obs: Any = raw.reset()
    masks = action_masks_of(raw)
    expected, _ = model.predict(normalized.normalize_obs(obs), deterministic=True, action_masks=masks)
    assert np.array_equal(teacher.predict(obs, action_masks=masks)[0], expected)


@pytest.mark.parametrize("algorithm", [PolicyDistillation, QPD, ProximalPolicyDistillation])
def test_students_learn_from_allowed_answers(algorithm: Any) -> None:
    """The environment refuses other actions, also where some are random and where the teacher's score is played."""
    is_ppd = algorithm is ProximalPolicyDistillation
    own = (
        {"n_steps": 32, "batch_size": 32, **QUICK}
        if is_ppd
        else {**OFF_POLICY, "teacher_eps": 0.5, "rollout_policy": "teacher"}
    )
    env = make_vec_env("Lenient-v0" if is_ppd else "Corridor-v0", 2, seed=0)
    model = algorithm("MlpPolicy", env, agent(), allow_env_mismatch=True, **own)
    allowed = []
    model.learn(96, callback=lambda found, _: allowed.append(found["self"].env.get_attr("allowed")) or True)
    if is_ppd:
        log_probs = np.stack([answers.log_probs.numpy() for answers in model._asked.answers])
    else:
        log_probs = model.replay_buffer.answers["log_probs"][: model.replay_buffer.size()]
        # What was allowed after a step is what the answers to the next observation say.
        assert np.array_equal(log_probs[1:] > -np.inf, np.array(allowed)[:-1])
    assert ((log_probs > -np.inf).sum(axis=-1) == 2).all()
    assert np.allclose(np.exp(log_probs).sum(axis=-1), 1.0)
    assert all(th.isfinite(weight).all() for weight in model.policy.parameters())


@pytest.mark.parametrize(
    ("algorithm", "own"),
    [
        (PolicyDistillation, {"student_eps": 0.5}),
        (PolicyDistillation, {"student_exploration": "softmax"}),
        (PolicyDistillation, {"students": {"other": {"learning_rate": 1e-3}}}),
        (QPD, {}),
    ],
)
def test_students_play_within_the_masks(algorithm: Any, own: dict[str, Any]) -> None:
    """The environment refuses other actions."""
    env = make_vec_env("Corridor-v0", 2, seed=0)
    kwargs = {**OFF_POLICY, "n_teacher_episodes": 0, "rollout_policy": "student"}
    model = algorithm("MlpPolicy", env, agent(), **kwargs, **own).learn(64)
    assert model.replay_buffer.size() == 32


def test_exported_files_are_played_within_the_masks(tmp_path: Path) -> None:
    """The environment refuses other actions."""
    pytest.importorskip("onnxruntime")
    out = tmp_path / "out"
    assert main(["export", str(run_folder(tmp_path, agent())), "-o", str(out), "--n-observations", "50"]) == 0
    description = read_description(out)
    for file in description.files:
        assert mean_return(open_file(out / file), description, 3, action_masks=True) == 6.0


@pytest.mark.ci
def test_bench_plays_within_the_masks(tmp_path: Path) -> None:
    """The environment refuses other actions; a student may choose them where nobody asks for masks."""
    pytest.importorskip("onnxruntime")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    out = tmp_path / "out"
    folder = run_folder(tmp_path, agent())
    command = ["export", str(folder), "-o", str(out), "--n-observations", "50"]
    assert main([*command, "--format", "onnx", "c"]) == 0
    rows = bench_folder(out, "out", 2, 3)
    assert {row.kind: row.mean_return for row in rows} == {"float": 6.0, "integer": 6.0, "C": 6.0, "torch": 6.0}
    # The files know it without their agent.
    folder.rename(tmp_path / "elsewhere")
    rows = bench_folder(out, "out", 2, 3)
    assert {row.kind: row.mean_return for row in rows} == {"float": 6.0, "integer": 6.0, "C": 6.0}
    env = make_vec_env("Lenient-v0", 2, seed=0)
    student = PolicyDistillation("MlpPolicy", env, agent(env), **OFF_POLICY).learn(32)
    student.save(tmp_path / "Lenient-v0")
    command = ["export", str(tmp_path / "Lenient-v0.zip"), "--env", "Lenient-v0", "-o", str(tmp_path / "student")]
    assert main([*command, "--n-observations", "50", "--format", "c", "--max-disagreement", "1"]) == 0
    bench = ["export", "bench", str(tmp_path / "student"), "--n-runs", "2", "--n-episodes", "3"]
    for options, is_perfect in (([], False), (["--action-masks"], True)):
        assert main([*bench, "-o", str(tmp_path), *options]) == 0
        with (tmp_path / "bench.csv").open() as file:
            returns = {row["kind"]: float(row["return"]) for row in csv.DictReader(file)}
        assert returns.keys() == {"C", "torch"} and all((each == 6.0) == is_perfect for each in returns.values())


def test_a_recording_needs_no_masks(tmp_path: Path) -> None:
    students = [
        PolicyDistillation(
            "MlpPolicy", make_vec_env("Corridor-v0", 2, seed=0), agent(), recording=tmp_path / "play", **OFF_POLICY
        ).learn(64)
        for _ in range(2)
    ]
    first, second = (student.replay_buffer.answers["log_probs"][:32] for student in students)
    assert np.array_equal(first, second) and np.isinf(first).any()


def test_evaluate_plays_within_the_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The teacher always does; the student, which may choose anything, where it is asked to."""
    run = run_folder(tmp_path, agent(make_vec_env("Lenient-v0", 2, seed=0)), "Lenient-v0")
    student = tmp_path / "student.zip"
    QPD("MlpPolicy", make_vec_env("Lenient-v0", 2, seed=0), run, **OFF_POLICY).learn(32).save(student)
    common = ["evaluate", str(student), "--env", "Lenient-v0", "-n", "5", "--epsilon", "0.3"]
    for options, is_perfect in (([], False), (["--stochastic"], False), (["--action-masks"], True)):
        assert main([*common, *options, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        teacher, played = found["agents"]
        assert teacher["returns"] == [6.0] * 5 and teacher["algo"] == "ppo_mask"
        assert (played["returns"] == [6.0] * 5) == is_perfect
        assert found.get("action_masks", False) == is_perfect
    assert main([*common, "--action-masks"]) == 0
    assert "action masks for all" in capsys.readouterr().out
    # As the observations that exports and compressions are checked on are recorded
    model = agent()
    model.save(tmp_path / "Corridor-v0")
    assert len(record_observations(load_teacher(tmp_path / "Corridor-v0.zip"), "Corridor-v0", 20).values) == 20


@pytest.mark.parametrize("verb", [["export"], ["visualize", "q-values"]])
def test_verbs_name_an_environment_without_masks(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = MaskablePPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu")
    model.save(tmp_path / "agent.zip")
    out = tmp_path / ("out.png" if verb[0] == "visualize" else "out")
    assert main([*verb, str(tmp_path / "agent.zip"), "--env", "CartPole-v1", "-o", str(out)]) == 1
    assert "CartPole-v1 has no method action_masks()" in capsys.readouterr().err


def test_an_environment_without_masks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Open(gym.ObservationWrapper):
        """Hides the masks."""

        def observation(self, observation: Any) -> Any:
            return observation

        def get_wrapper_attr(self, name: str) -> Any:
            if name == "action_masks":
                raise AttributeError(name)
            return super().get_wrapper_attr(name)

    model, env = agent(), make_vec_env("Corridor-v0", wrapper_class=Open)
    for algorithm in (PolicyDistillation, QPD, ProximalPolicyDistillation):
        with pytest.raises(ValueError, match=r"MaskablePPO.*Corridor-v0 has no method action_masks.*ActionMasker"):
            algorithm("MlpPolicy", env, model, device="cpu")
    ids = ["Corridor-v0", "Lenient-v0"]
    tasks = make_vec_env("MultiTask-v0", env_kwargs={"env_ids": ids})
    with pytest.raises(ValueError, match=r"action masks \(MaskablePPO\), which MTPD does not ask"):
        MultiTaskDistillation("MultiTaskMlpPolicy", tasks, dict.fromkeys(ids, model), device="cpu")
    other = MaskablePPO("MlpPolicy", "Acrobot-v1", n_steps=8, batch_size=8, device="cpu")
    other.save(tmp_path / "Acrobot-v1")
    assert main(["evaluate", str(tmp_path / "Acrobot-v1.zip"), "-n", "1"]) == 1
    assert "Acrobot-v1 has no method action_masks()" in capsys.readouterr().err


@pytest.mark.parametrize("loss", ["mse", "reverse_kl"])
def test_losses_that_would_be_infinite_are_refused(loss: str) -> None:
    env = make_vec_env("Corridor-v0", 2)
    with pytest.raises(ValueError, match=f"{loss}.*probability of 0.*loss='kl'"):
        PolicyDistillation("MlpPolicy", env, agent(), loss=loss, device="cpu")
    with pytest.raises(ValueError, match=f"{loss}.*probability of 0.*loss='kl'"):
        PolicyDistillation("MlpPolicy", env, agent(), students={"other": {"loss": loss}}, device="cpu")


@pytest.mark.parametrize("given", [[True] * 3, [False] * 4, [[True, False]] * 2])
def test_masks_of_another_form_are_refused(given: Any) -> None:
    env = make_vec_env("Corridor-v0", 2, seed=0)
    env.reset()
    for one in env.get_attr("unwrapped"):
        one.allowed = np.array(given)
    with pytest.raises(ValueError, match=r"action_masks\(\) of the environment must give True.*of 4"):
        action_masks_of(env)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.ones((3, 3), bool), r"action_masks have the shape \(3, 3\), and must have \(3, 2\): for each observation"),
        (np.ones((2, 3), bool), r"shape \(2, 3\), and must have \(3, 2\)"),
        (np.ones(2, bool), r"shape \(2,\), and must have \(3, 2\)"),
        (np.ones(6, bool), r"shape \(6,\), and must have \(3, 2\)"),
        ([[1, 0], [0, 0], [0, 0]], r"action_masks\[1\] allows no action: at least one must be allowed"),
        ([[1], [1, 1], [1]], r"action_masks must be an array of bool \(3, 2\), true for each .* not \[\[1\], \[1, 1\]"),
        ("all", r"must be an array of bool \(3, 2\), .* not 'all'"),
        (np.full((3, 2), 7), r"must be an array of bool"),
        (np.full((3, 2), np.nan), r"must be an array of bool"),
    ],
)
@pytest.mark.parametrize("kind", ["ppo_mask", "student", "object"])
def test_masks_of_predict_are_checked(kind: str, masks: Any, message: str, cartpole_masked: dict[str, Any]) -> None:
    teacher = load_teacher(cartpole_masked[kind], device="cpu")
    obs = np.zeros((3, 4), np.float32)
    for deterministic in (True, False):
        with pytest.raises(ValueError, match=message):
            teacher.predict(obs, action_masks=masks, deterministic=deterministic)
    assert teacher.predict(obs, action_masks=[[0, 1], [1, 0], [0.0, 1.0]])[0].tolist() == [1, 0, 1]
    assert teacher.predict(obs[0], action_masks=[False, True])[0] == 1


@pytest.fixture(scope="module")
def cartpole_masked() -> dict[str, Any]:
    teacher = Plain()
    student = PolicyDistillation("MlpPolicy", "CartPole-v1", teacher, n_teacher_episodes=0, device="cpu")
    model = MaskablePPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu")
    return {"ppo_mask": model, "student": student, "object": teacher}


def test_masks_of_continuous_actions() -> None:
    with pytest.raises(ValueError, match=r"action_masks are for Discrete actions, and the agent's are Box.*: leave"):
        load_teacher(Swinger("point"), device="cpu").predict(np.zeros((1, 3), np.float32), action_masks=[[True]])


def test_masked_answers_and_random_actions() -> None:
    masks = np.array([[True, False, True], [False, True, False]])
    answers = Answers(log_probs=th.tensor([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]).log()).masked(masks)
    assert th.allclose(answers.log_probs.exp(), th.tensor([[5 / 7, 0, 2 / 7], [0, 1, 0]]))
    q_values = Answers(q_values=th.tensor([[1.0, 5.0, 2.0], [3.0, -1.0, 2.0]])).masked(masks)
    assert q_values.greedy(spaces.Discrete(3)).tolist() == [2, 1]
    assert np.array_equal(answers.allowed, masks) and np.array_equal(q_values.numpy().allowed, masks)
    assert Answers(q_values=th.zeros(2, 3)).allowed is None and Answers(point=th.zeros(2, 3)).allowed is None
    rng = np.random.default_rng(0)
    drawn = np.stack([mix_random_actions(np.array([1, 0]), 3, 1.0, rng, masks) for _ in range(50)])
    assert set(drawn[:, 0]) == {0, 2} and set(drawn[:, 1]) == {1}
    assert {int(mix_random_actions(np.int64(1), 3, 1.0, rng, masks[0])) for _ in range(20)} == {0, 2}
    with pytest.raises(ValueError, match="Continuous actions"):
        Answers(point=th.zeros(2, 3)).masked(masks)
