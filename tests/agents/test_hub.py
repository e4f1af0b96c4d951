"""``hub:`` teachers, against a small hub of the test's own on 127.0.0.1."""

import hashlib
import pickle
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest
from huggingface_hub import constants
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_distill.agents.load import load_teacher
from sb3_distill.agents.sources import find_zoo_teacher

REPOSITORY = "sb3/dqn-CartPole-v1"
COMMITS = {"main": "a" * 40, "v1": "b" * 40, "broken": "c" * 40}
NAMES = [f"hub:{REPOSITORY}", f"hub:{REPOSITORY}@v1", "zoo:dqn/CartPole-v1"]
# What is found by itself has a name that stays the same agent for ever.
PINNED = f"hub:{REPOSITORY}@{'a' * 40}"
NEVER_ASKED = "hub:sb3/dqn-Acrobot-v1"
MISSING = ["hub:sb3/dqn-Nothing-v1", f"hub:{REPOSITORY}@v9", "zoo:ppo/CartPole-v1", f"hub:{REPOSITORY}@broken"]


@pytest.fixture(scope="module")
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


def ask(folder, address, *names, offline=False, finds=True):
    """What a process answers that began with this address, this cache, and online or not."""
    with pytest.MonkeyPatch.context() as begun:
        begun.chdir(folder)
        begun.setenv("RL_TRAINED_AGENTS", "")
        begun.setattr(constants, "ENDPOINT", address)
        begun.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        begun.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        begun.setattr(constants, "HF_HUB_OFFLINE", offline)
        answers = {"found": find_zoo_teacher("CartPole-v1", ["qrdqn", "dqn", "ppo"])} if finds else {}
        for name in names:
            try:
                teacher = load_teacher(name)
                answers[name] = [teacher.algo, teacher.env_id, teacher.normalization is not None, teacher.facts.sha256]
            except ValueError as error:
                answers[name] = f"{type(error).__name__} {error}"
        return answers


@pytest.fixture(scope="module")
def online(hub, tmp_path_factory):
    """Folder with the cache that it leaves, and what the hub answers."""
    folder = tmp_path_factory.mktemp("hub")
    return folder, ask(folder, hub[0], *NAMES, *MISSING)


@pytest.fixture(scope="module")
def offline(online):
    """What the cache answers, and of which nothing was ever asked."""
    return ask(online[0], "http://127.0.0.1:9", *NAMES, PINNED, NEVER_ASKED, offline=True)


def test_revisions_and_the_offline_cache(hub, online, offline):
    sha256 = {commit: digest for (commit, name), digest in hub[1].items() if name.endswith(".zip")}
    first = ["dqn", "CartPole-v1", False, sha256["a" * 40]]
    expected = dict(zip(NAMES, [first, ["dqn", "CartPole-v1", True, sha256["b" * 40]], first], strict=True))
    assert {name: online[1][name] for name in NAMES} == expected and online[1]["found"] == PINNED
    expected[PINNED] = first
    assert {name: offline[name] for name in expected} == expected and offline["found"] == PINNED


def test_an_agent_is_never_loaded_without_its_configuration(online):
    """The zip came and the next file did not: whether observations are to be normalised is not known."""
    message = "is not completely in the local cache, and the hub cannot be reached"
    assert message in online[1][f"hub:{REPOSITORY}@broken"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:sb3/dqn-Nothing-v1", "AgentNotFoundError The hub has no hub:sb3/dqn-Nothing-v1"),
        (f"hub:{REPOSITORY}@v9", "v9"),
        ("zoo:ppo/CartPole-v1", "No Zoo agent ppo/CartPole-v1"),
    ],
)
def test_what_the_hub_does_not_have(online, name, message):
    printed = online[1][name]
    assert message in printed and printed.startswith("Agent")


def test_offline_without_a_cache(offline):
    assert "is not completely in the local cache, and the hub cannot be reached" in offline[NEVER_ASKED]


def test_without_a_network_nothing_is_asked_again_and_again(online, offline, caplog):
    answers = ask(online[0], "http://hub.invalid", *NAMES, PINNED, NEVER_ASKED, finds=False)
    assert answers == {name: offline[name] for name in answers}
    assert "Retrying" not in caplog.text


@pytest.fixture
def lookups(monkeypatch):
    """Names that were looked up; the first ones without success, by the codes of this list."""
    asked, failures, look_up = [], [], socket.getaddrinfo

    def answer(host, *args, **kwargs):
        asked.append(host)
        if failures:
            raise socket.gaierror(failures.pop(0), "not found")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked, failures


def test_a_name_is_looked_up_once_more_where_the_resolver_says_so(hub, tmp_path, lookups):
    lookups[1].append(socket.EAI_AGAIN)
    name = f"hub:{REPOSITORY}"
    assert ask(tmp_path, hub[0], name, finds=False)[name][0] == "dqn"
    for code, n_lookups in ((socket.EAI_AGAIN, 2), (socket.EAI_NONAME, 1)):
        lookups[0].clear()
        lookups[1].extend([code] * n_lookups)
        assert "the hub cannot be reached" in ask(tmp_path, hub[0], NEVER_ASKED, finds=False)[NEVER_ASKED]
        assert len(lookups[0]) == n_lookups


def test_whoever_says_offline_waits_for_no_resolver(online, lookups):
    ask(online[0], "http://hub.invalid", *NAMES, NEVER_ASKED, offline=True)
    assert not lookups[0]
