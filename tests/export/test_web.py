"""Students that play in the browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_distill.envs.recipe import EnvRecipe
from sb3_distill.export.integers import integer_policy
from sb3_distill.export.post_training import quantize_on
from sb3_distill.export.web.page import WEB_GAMES, as_json, check_playable, web_page
from tests.export.integers import AGENTS, observations_of, student, vector_agent

pytestmark = pytest.mark.ci
CARTPOLE = spaces.Box(-np.inf, np.inf, (4,), np.float32)
DISCRETE = [kind for kind in AGENTS if kind not in ("continuous", "squashed")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    playwright = pytest.importorskip("playwright.sync_api")
    if path is None:
        pytest.skip("no Chromium on the path")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def balancing_policy():
    """A policy of two outputs that keeps the pole up: it pushes the cart below the side to which the pole falls."""
    agent = student("MlpPolicy", CARTPOLE, {"net_arch": []}, n_actions=2)
    (layer,) = [module for module in agent.policy.modules() if isinstance(module, nn.Linear)]
    with th.no_grad():
        layer.weight.copy_(th.tensor([[0.0, 0, 0, 0], [0.05, 0.15, 1.0, 0.35]]))
        layer.bias.zero_()
    observations = observations_of(CARTPOLE, 500) * np.array([1, 1, 0.1, 1], np.float32)
    return integer_policy(quantize_on(observations, agent, 8, 8, 12))


@pytest.fixture(scope="module")
def tab(browser, tmp_path_factory):
    """A tab in which a student plays CartPole."""
    path = tmp_path_factory.mktemp("web") / "play.html"
    page = web_page(balancing_policy(), "A <student> & CartPole-v1", "CartPole-v1", 10)
    assert "http://" not in page and "https://" not in page
    path.write_text(page)
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.goto(path.as_uri())
    yield tab
    assert not errors


@pytest.mark.parametrize("kind", DISCRETE)
def test_the_browser_computes_the_same_integers(tab, kind):
    agent = AGENTS[kind]()
    policy, observations = integer_policy(agent), observations_of(agent.observation_space, 20)
    actions, outputs = policy.predict(observations)
    flat = [[float(entry) for entry in each.ravel()] for each in observations]
    given = {"policy": as_json(policy), "observations": flat}
    assert tab.evaluate("({policy, observations}) => observations.map((each) => outputs(policy, each))", given) == (
        outputs.tolist()
    )
    assert tab.evaluate("({policy, observations}) => observations.map((each) => act(policy, each))", given) == (
        actions.tolist()
    )


def test_nan_and_values_out_of_range(tab):
    policy = integer_policy(vector_agent())
    observation = np.array([np.nan, np.inf, -np.inf, 1e30, 0, -0.0], np.float32)
    evaluated = tab.evaluate("(policy) => outputs(policy, [NaN, Infinity, -Infinity, 1e30, 0, -0])", as_json(policy))
    assert evaluated == policy.predict(observation)[1].tolist()


def test_a_whole_episode_of_cartpole(tab):
    played = """() => {
        const mine = new CartPole(() => 0.7);
        while (mine.step(act(policy, mine.observation())));
        return mine.score;
    }"""
    assert tab.evaluate(played) == 500
    # What the page itself plays: it is drawn, and counts.
    tab.wait_for_function("Number(document.getElementById('score').textContent) > 20")
    colours = "new Set(screen.getContext('2d').getImageData(0, 0, screen.width, screen.height).data).size"
    assert tab.evaluate(colours) > 5
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.title() == "A <student> & CartPole-v1" and tab.locator("h1").inner_text() == tab.title()
    tab.click("#pause")
    assert tab.locator("#pause").inner_text() == "Go on"


def test_cartpole_is_gymnasiums(tab):
    env = gym.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 2, 40).tolist()
    start, states, on = list(map(float, env.state)), [], []
    for action in actions:
        obs, _, terminated, _, _ = env.step(action)
        states.append(obs.tolist())
        on.append(not terminated)
        if terminated:
            break
    played = """({start, actions}) => {
        const mine = new CartPole(Math.random);
        mine.state = start;
        return actions.map((action) => { const goesOn = mine.step(action); return [mine.observation(), goesOn]; });
    }"""
    found = tab.evaluate(played, {"start": start, "actions": actions[: len(states)]})
    assert [goes_on for _, goes_on in found] == on and not on[-1]
    assert np.allclose([state for state, _ in found], states, rtol=1e-6)


@pytest.mark.parametrize("first", [0.2, 0.7])
def test_breakout_is_minatars(tab, first):
    breakout = pytest.importorskip("minatar.environments.breakout")
    env = breakout.Env()
    env.ball_x, env.ball_dir = (0, 2) if first < 0.5 else (9, 3)
    env.last_x = env.ball_x
    states, actions = [], []
    # A player that follows the ball, with a mistake now and then, until the ball is lost
    rng, terminal = np.random.default_rng(3), False
    while not terminal and len(actions) < 2_000:
        follow = 0 if env.ball_x == env.pos else 1 if env.ball_x < env.pos else 2
        actions.append(int(rng.integers(3)) if rng.random() < 0.02 else follow)
        reward, terminal = env.act({0: 0, 1: 1, 2: 3}[actions[-1]])
        states.append([env.state().ravel().astype(int).tolist(), reward, not terminal])
    assert terminal and len(actions) > 50
    played = """({first, actions}) => {
        let drawn = first;
        const mine = new Breakout(() => { const number = drawn; drawn = 0.5; return number; });
        return actions.map((action) => {
            const before = mine.score, goesOn = mine.step(action);
            return [mine.observation(), mine.score - before, goesOn];
        });
    }"""
    assert tab.evaluate(played, {"first": first, "actions": actions}) == states


def test_other_games_are_refused():
    plain = EnvRecipe()
    assert all(check_playable(env_id, plain) is None for env_id in WEB_GAMES)
    with pytest.raises(ValueError, match=r"as it comes.*'sticky_action_prob': 0.0"):
        check_playable("MinAtar/Breakout-v1", EnvRecipe(env_kwargs={"sticky_action_prob": 0.0}))
    continuous = integer_policy(AGENTS["continuous"]())
    with pytest.raises(ValueError, match="needs discrete actions"):
        web_page(continuous, "t", "CartPole-v1", 1)
    with pytest.raises(ValueError, match=r"sees \(10, 10, 4\), not \(6,\)"):
        web_page(integer_policy(vector_agent()), "t", "MinAtar/Breakout-v1", 1)
    with pytest.raises(ValueError, match="plays CartPole-v1 and MinAtar/Breakout-v1 in the browser, not Pong-v5"):
        check_playable("Pong-v5", plain)


def test_a_page_needs_no_file_beside_it(tmp_path: Path):
    page = web_page(balancing_policy(), "t", "CartPole-v1", 1_234)
    assert 'src="' not in page and "href=" not in page and "1,234 parameters" in page
