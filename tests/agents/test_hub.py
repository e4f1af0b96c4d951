"""``hub:`` teachers, against a small hub of the test's own on 127.0.0.1."""

import hashlib
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from tests.helpers import run_python

REPOSITORY = "sb3/dqn-CartPole-v1"
COMMITS = {"main": "a" * 40, "v1": "b" * 40, "broken": "c" * 40}
SHOW = """
from sb3_distill.agents.load import load_teacher
from sb3_distill.agents.sources import find_zoo_teacher
for name in {}:
    teacher = load_teacher(name)
    print(teacher.algo, teacher.env_id, teacher.normalization is not None, teacher.sha256)
print(find_zoo_teacher('CartPole-v1', ['qrdqn', 'dqn', 'ppo']))
"""
FAIL = """
from sb3_distill import load_teacher
try:
    load_teacher('{}')
except ValueError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def hub(cartpole_teacher):
    """Address of a hub with one repository, and the digests of its files; the second revision is normalised."""
    first = cartpole_teacher.read_bytes()
    # A zip may be followed by a comment: another file with the same agent in it.
    second = first[:-2] + (7).to_bytes(2, "little") + b"another"
    files = {
        ("a" * 40, "dqn-CartPole-v1.zip"): first,
        ("b" * 40, "dqn-CartPole-v1.zip"): second,
        ("a" * 40, "config.yml"): b"policy: MlpPolicy\n",
        ("a" * 40, "args.yml"): b"algo: dqn\nenv: CartPole-v1\n",
        ("b" * 40, "config.yml"): b"policy: MlpPolicy\nnormalize: true\n",
        ("b" * 40, "vec_normalize.pkl"): pickle.dumps(VecNormalize(make_vec_env("CartPole-v1", 1))),
        ("c" * 40, "dqn-CartPole-v1.zip"): first,
    }

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def answer(self, with_body):
            parts = unquote(self.path).strip("/").split("/")
            if "/".join(parts[:2]) != REPOSITORY or len(parts) < 5 or parts[2] != "resolve":
                return self.refuse("RepoNotFound")
            commit = COMMITS.get(parts[3], parts[3])
            if commit not in COMMITS.values():
                return self.refuse("RevisionNotFound")
            if (commit, parts[4]) == ("c" * 40, "config.yml"):
                # Of the answers that mean "not now", one that the client does not wait and ask again for
                return self.refuse("NotNow", commit, status=403)
            body = files.get((commit, "/".join(parts[4:])))
            if body is None:
                return self.refuse("EntryNotFound", commit)
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def refuse(self, code, commit=None, status=404):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            if commit is not None:
                self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield (
        f"http://127.0.0.1:{server.server_port}",
        {name: hashlib.sha256(body).hexdigest() for name, body in files.items()},
    )
    server.shutdown()
    server.server_close()


def ask(folder, hub, code, offline="0"):
    environment = {
        "HF_ENDPOINT": hub[0],
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": offline,
        "RL_TRAINED_AGENTS": "",
    }
    return run_python(folder, "-c", code, **environment).stdout.strip()


def test_revisions_and_the_offline_cache(hub, tmp_path):
    sha256 = {commit: digest for (commit, name), digest in hub[1].items() if name.endswith(".zip")}
    names = [f"hub:{REPOSITORY}", f"hub:{REPOSITORY}@v1", "zoo:dqn/CartPole-v1"]
    expected = [
        f"dqn CartPole-v1 False {sha256['a' * 40]}",
        f"dqn CartPole-v1 True {sha256['b' * 40]}",
        f"dqn CartPole-v1 False {sha256['a' * 40]}",
    ]
    # What is found by itself has a name that stays the same agent for ever.
    pinned = f"hub:{REPOSITORY}@{'a' * 40}"
    assert ask(tmp_path, hub, SHOW.format(names)).splitlines() == [*expected, pinned]
    offline = ("http://127.0.0.1:9", None)
    shown = ask(tmp_path, offline, SHOW.format([*names, pinned]), offline="1").splitlines()
    assert shown == [*expected, expected[0], pinned]


def test_an_agent_is_never_loaded_without_its_configuration(hub, tmp_path):
    """The zip came and the next file did not: whether observations are to be normalised is not known."""
    printed = ask(tmp_path, hub, FAIL.format(f"hub:{REPOSITORY}@broken"))
    assert "is not completely in the local cache, and the hub cannot be reached" in printed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:sb3/dqn-Nothing-v1", "AgentNotFoundError The hub has no hub:sb3/dqn-Nothing-v1"),
        (f"hub:{REPOSITORY}@v9", "v9"),
        ("zoo:ppo/CartPole-v1", "No Zoo agent ppo/CartPole-v1"),
    ],
)
def test_what_the_hub_does_not_have(hub, tmp_path, name, message):
    printed = ask(tmp_path, hub, FAIL.format(name))
    assert message in printed and printed.startswith("Agent")


def test_offline_without_a_cache(tmp_path):
    printed = ask(tmp_path, ("http://127.0.0.1:9", None), FAIL.format(f"hub:{REPOSITORY}"), offline="1")
    assert "is not completely in the local cache, and the hub cannot be reached" in printed
