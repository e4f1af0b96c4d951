import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.dqn.policies import DQNPolicy

from sb3_distill.networks.actor_critic_policies import ActorCriticMlpPolicy
from sb3_distill.networks.extractors import StudentCNN
from sb3_distill.networks.layers import FrameScaler
from sb3_distill.networks.muon import Muon
from sb3_distill.networks.optimizers import align_states
from sb3_distill.networks.policies import STUDENT_POLICIES, CnnPolicy, MaxPoolCnnPolicy, MlpPolicy, Net1Policy
from tests.helpers import FRAMES, preferences


def make(policy, n_actions, space=FRAMES, **kwargs):
    return policy(space, spaces.Discrete(n_actions), lambda _: 1e-3, **kwargs)


@pytest.mark.parametrize(
    ("name", "kwargs", "n_actions", "n_parameters"),
    [
        # Rusu et al. 2015, table A1
        ("CnnPolicy", {}, 18, 1_693_362),
        ("Net1Policy", {}, 18, 427_874),
        ("Net2Policy", {}, 18, 113_346),
        ("Net3Policy", {}, 18, 61_954),
        # Sun & Fazli 2019, section 3
        ("Net4Policy", {}, 18, 55_666),
        ("Net5Policy", {}, 18, 31_602),
        # Actor-Mimic compression, table 2: 43.1K, 115.88K, 829.51K
        ("MaxPoolCnnPolicy", {}, 9, 43_097),
        ("CnnPolicy", {"pool": "max"}, 9, 115_881),
        ("CnnPolicy", {"channels": (16, 32, 32)}, 9, 829_529),
    ],
)
@pytest.mark.parametrize("standardize", ["scalar", "frame", None])
def test_parameter_counts_of_the_papers(name, kwargs, n_actions, n_parameters, standardize):
    policy = make(STUDENT_POLICIES[name], n_actions, features_extractor_kwargs={**kwargs, "standardize": standardize})
    assert policy.n_parameters == n_parameters


def test_max_pool_takes_the_largest_activation_of_each_map():
    policy = make(MaxPoolCnnPolicy, 4)
    cnn = policy.q_net.features_extractor.cnn
    images = th.rand(3, 4, 84, 84)
    maps = cnn[:-1](images)
    assert maps.shape == (3, 32, 7, 7)
    assert th.equal(cnn(images), maps.flatten(start_dim=2).max(dim=2).values)


def test_unfitted_frames_are_divided_by_255():
    policy = make(Net1Policy, 4)
    scaled = policy.q_net.features_extractor.scaler(th.full((1, 4, 84, 84), 51, dtype=th.uint8))
    assert th.allclose(scaled, th.tensor(0.2))


@pytest.mark.parametrize("standardize", ["scalar", "frame"])
def test_standardised_frames_have_mean_zero_and_deviation_one(standardize):
    rng = np.random.default_rng(0)
    background = rng.integers(0, 255, size=(84, 84))
    images = th.tensor(np.clip(background + rng.integers(-20, 20, size=(50, 4, 84, 84)), 0, 255).astype(np.uint8))
    scaler = FrameScaler((84, 84), standardize)
    scaler.fit(images)
    standardised = scaler(images)
    assert standardised.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert standardised.square().mean().item() == pytest.approx(1.0, abs=1e-3)
    if standardize == "frame":
        assert th.allclose(standardised.mean(dim=(0, 1)), th.zeros(84, 84), atol=1e-4)


def test_statistics_are_estimated_once_and_saved():
    scaler = FrameScaler((84, 84), "frame")
    scaler.fit(th.randint(0, 255, (8, 4, 84, 84), dtype=th.uint8))
    before = {key: value.clone() for key, value in scaler.state_dict().items()}
    scaler.fit(th.zeros((8, 4, 84, 84), dtype=th.uint8))
    assert all(th.equal(value, before[key]) for key, value in scaler.state_dict().items())
    restored = FrameScaler((84, 84), "frame")
    restored.load_state_dict(before)
    assert bool(restored.fitted) and th.equal(restored.mean, scaler.mean)


def test_constant_frames_stay_finite():
    scaler = FrameScaler((84, 84), "scalar")
    scaler.fit(th.full((2, 4, 84, 84), 7, dtype=th.uint8))
    assert th.equal(scaler(th.full((1, 4, 84, 84), 7, dtype=th.uint8)), th.zeros(1, 4, 84, 84))


def test_strict_paper_setting_never_standardises():
    scaler = FrameScaler((84, 84), None)
    scaler.fit(th.randint(0, 255, (8, 4, 84, 84), dtype=th.uint8))
    assert not scaler.fitted and scaler.scale == 255 and scaler.mean == 0


def test_orthogonal_initialisation_is_the_image_students_default():
    weight = make(Net1Policy, 4).q_net.q_net[-1].weight
    assert th.allclose(weight @ weight.T, th.eye(4), atol=1e-5)
    weight = make(Net1Policy, 4, ortho_init=False).q_net.q_net[-1].weight
    assert not th.allclose(weight @ weight.T, th.eye(4), atol=1e-2)


@pytest.mark.parametrize("name", ["Net3Policy", "MaxPoolCnnPolicy", "MlpPolicy"])
def test_predict_on_single_and_vectorised_observations(name):
    space = FRAMES if name != "MlpPolicy" else spaces.Box(-1, 1, (5,), np.float32)
    policy = make(STUDENT_POLICIES[name], 6, space)
    batch = np.stack([space.sample() for _ in range(3)])
    actions, _ = policy.predict(batch, deterministic=True)
    assert actions.shape == (3,)
    for obs, action in zip(batch, actions, strict=True):
        single, _ = policy.predict(obs, deterministic=True)
        assert single.shape == () and single == action


def test_policy_saves_and_loads_by_itself(tmp_path):
    policy = make(MaxPoolCnnPolicy, 6, features_extractor_kwargs={"standardize": "scalar"})
    policy.fit_frame_scalers(th.randint(0, 255, (8, 4, 84, 84), dtype=th.uint8))
    policy.save(tmp_path / "policy.pth")
    loaded = MaxPoolCnnPolicy.load(tmp_path / "policy.pth")
    images = th.randint(0, 255, (5, 4, 84, 84), dtype=th.uint8)
    assert th.equal(preferences(policy, images), preferences(loaded, images))


@pytest.mark.parametrize(
    ("space", "kwargs", "message"),
    [
        (spaces.Box(0, 1, (4, 84, 84), np.float32), {}, "keep images as bytes"),
        (spaces.Box(-1, 1, (4,), np.float32), {}, "Use 'MlpPolicy' for vectors"),
        (spaces.Box(0, 255, (84, 84, 4), np.uint8), {}, "channels-first"),
        (FRAMES, {"pool": "avg"}, "pool must be"),
        (FRAMES, {"standardize": "std"}, "standardize must be"),
        (FRAMES, {"channels": (16, 16)}, "channels must be three"),
    ],
)
def test_bad_image_students_are_named(space, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(CnnPolicy, 4, space, features_extractor_kwargs=kwargs)


def test_features_are_bfloat16_only_while_training():
    extractor = make(Net1Policy, 4).q_net.features_extractor
    assert isinstance(extractor, StudentCNN)
    images = th.randint(0, 255, (2, 4, 84, 84), dtype=th.uint8)
    extractor.train_dtype = th.bfloat16
    exact = extractor.eval()(images)
    rounded = extractor.train()(images)
    assert rounded.dtype == th.float32
    assert not th.equal(exact, rounded)
    assert th.allclose(exact, rounded, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(("ours", "theirs"), [(ActorCriticMlpPolicy, ActorCriticPolicy), (MlpPolicy, DQNPolicy)])
@pytest.mark.parametrize("optimizer", [th.optim.Adam, th.optim.AdamW, th.optim.RMSprop, RMSpropTFLike, th.optim.SGD])
@pytest.mark.parametrize("kwargs", [None, {}, {"weight_decay": 0.1}])
def test_optimizers_are_those_of_sb3(ours, theirs, optimizer, kwargs):
    kwargs = {"optimizer_class": optimizer, "optimizer_kwargs": kwargs}
    own, sb3 = (make(policy, 2, spaces.Box(-1, 1, (3,)), **kwargs).optimizer for policy in (ours, theirs))
    # One kernel for all parameters changes the speed alone.
    assert type(own) is type(sb3) and {**own.defaults, "fused": None} == {**sb3.defaults, "fused": None}


@pytest.mark.parametrize("policy", [MlpPolicy, ActorCriticMlpPolicy])
def test_optimizers_have_names(policy):
    space = spaces.Box(-1, 1, (3,))
    assert type(make(policy, 2, space, optimizer_class="Muon").optimizer) is Muon
    with pytest.raises(ValueError, match=r'optimizer_class must be a class or one of Adam, .*, not "os.system"'):
        make(policy, 2, space, optimizer_class="os.system")


def test_fused_adam_steps_the_same_in_another_layout():
    def stepped(layout):
        th.manual_seed(0)
        policy = make(Net1Policy, 4)
        parameter = next(iter(policy.parameters()))
        gradient = th.randn(parameter.shape)
        for _ in range(2):
            # As autograd lays it
            parameter.grad = th.empty_like(parameter).copy_(gradient)
            policy.optimizer.step()
            policy.to(memory_format=layout)
            align_states(policy.optimizer)
        return parameter.detach().contiguous()

    assert th.allclose(stepped(th.channels_last), stepped(th.contiguous_format))
