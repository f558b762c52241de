"""What the user types wrongly, or finds broken: one clear line and a code, never a traceback."""

import json
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from qtopt import __version__, cli
from qtopt.agent.learner import Learner, LearnerConfig
from qtopt.apps import collect, evaluate, run
from qtopt.config import save_yaml
from qtopt.errors import ConfigError
from qtopt.replay import EpisodeStore, StoreFormat
from qtopt.replay.landing_log import LANDING, LandingLog, open_files
from qtopt.rpc import BackgroundServer, ServerConfig, Services
from tests.episodes import make_episode
from tests.ports import free_port


@pytest.fixture
def store(tmp_path, rng):
    """A store of three episodes, closed."""
    root = tmp_path / "store"
    with EpisodeStore(root, StoreFormat.for_images(72)) as opened:
        for number in range(3):
            opened.append(make_episode(rng, size_px=72, success=number == 0))
    return root


def one_line(text):
    assert text.startswith("qtopt: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text


def test_help_needs_nothing_heavy():
    code = "import sys; from qtopt import cli; cli.main(['--help']); assert 'torch' not in sys.modules, 'torch'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in cli.COMMANDS:
        assert f"  {command} " in done.stdout


def test_ctrl_c_ends_a_program_that_is_still_importing():
    code = (
        "import importlib, signal; from qtopt import cli; "
        "importlib.import_module = lambda _: signal.raise_signal(signal.SIGINT); cli.main(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (-signal.SIGINT, b"")


def test_a_reader_that_had_enough_is_no_failure():
    command = f"{sys.executable} -m qtopt.cli run --help | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=100)
    assert len(done.stdout) == 10
    assert done.stderr == ""


def test_version(qtopt):
    assert qtopt("--version") == (0, f"qtopt {__version__}\n", "")


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "doctor"])
def test_every_command_explains_its_flags(qtopt, capsys, command):
    with pytest.raises(SystemExit) as end:
        qtopt(command, "--help")
    assert end.value.code == 0
    assert "--" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["fly"], 2, "found the command 'fly', expected one of run"),
        (["run", "--minuts", "3"], 2, "qtopt: Unrecognized options: --minuts, 3"),
        (["run", "--minutes", "soon"], 2, "could not convert string to float: 'soon'"),
        (["run", "--minutes", "-1"], 2, "minutes is -1.0, expected a finite number above 0"),
        (["run", "--minutes", "nan"], 2, "minutes is nan"),
        (["run", "--learner.loss", "foo"], 2, "qtopt: invalid choice 'foo'"),
        (["run", "--learner.learning-rate", "-1"], 2, "learning_rate is -1.0"),
        (["offline", "--store", "nowhere", "--train.steps", "-1"], 2, "steps is -1, expected 0 or more"),
        (["run", "--resume", "nowhere"], 5, "nowhere: found nothing there, expected the directory of an earlier run"),
        (["run", "--sim.camera.size-px", "48"], 2, "expected 72, the size of the network's images"),
        (["eval", "--checkpoint", "nowhere"], 5, "expected a checkpoint"),
        (["eval"], 2, "expected --checkpoint PATH"),
        (["eval", "--policy", "scripted", "--objects", "train"], 2, "no figure to report"),
        (["eval", "--checkpoint", "nowhere", "--watch", "--json", "-"], 2, "found --json with --watch"),
        (["compare", "nowhere.json", "nowhere.json"], 2, "expected a report with a row for each episode"),
        (["finals", "nowhere", "--output", "a.json"], 5, "expected the directory of an earlier run"),
        (["run", "--sim.objects", "other"], 2, "must never be collected with"),
        (["serve", "--listen.host", "0.0.0.0"], 2, "refusing to listen on 0.0.0.0"),
        (["collect", "--config"], 2, "expected a YAML file"),
        (["collect", "--config", "nowhere.yaml"], 2, "nowhere.yaml: found no such file"),
        (["label", "--server", "nonsense"], 2, "expected host:port"),
        (["offline", "--store", "nowhere"], 4, "no episode store here"),
        (["offline", "--store", "nowhere", "--resume"], 2, "expected --output too"),
        (["data", "info", "--store", "nowhere"], 4, "no episode store here"),
        (["data", "info", "--store", ".", "--repair"], 2, "--repair goes with verify"),
        (["data", "copy", "--store", "."], 2, "found copy without --into"),
        (["data", "info", "--store", ".", "."], 2, "merge takes several"),
        (["data", "merge", "--store", "a", "b", "--into", "b"], 2, "found the same store twice in a, b, b"),
        (["data", "prune", "--store", "."], 2, "found prune without --retention"),
        (["data", "info", "--store", ".", "--retention.max-gb", "1"], 2, "found info with --retention"),
        (["bench", "sim", "--seconds=-1"], 2, "seconds is -1.0"),
    ],
)
def test_a_mistake_is_one_line_and_a_code(qtopt, words, code, said):
    found, out, err = qtopt(*words)
    assert (found, out) == (code, "")
    assert said in one_line(err)


def test_a_server_that_is_not_there(qtopt, unused_port):
    code, _, err = qtopt("train", "--server", f"127.0.0.1:{unused_port}", "--server.connect-timeout-s", "0.5")
    assert code == 6
    assert "no server answered at 127.0.0.1" in one_line(err)


def test_a_token_that_is_refused_at_the_start(qtopt, tmp_path):
    (tmp_path / "tokens").write_text("# nobody\n")
    (tmp_path / "token").write_text("a-token-of-the-test")
    guarded = ServerConfig(port=0, token_file=tmp_path / "tokens")
    with BackgroundServer(guarded, Services((72, 72), lambda: None)) as server:
        token = ("--server.token-file", str(tmp_path / "token"))
        code, _, err = qtopt("collect", "--server", server.address, "--spool", str(tmp_path / "spool"), *token)
    assert code == 6
    assert "is not known here, or expired, revoked or replaced" in one_line(err)


@pytest.fixture
def unused_port():
    return free_port()


def test_a_port_in_use(qtopt, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["--listen.port", port, "--store", tmp_path / "store", "--models", tmp_path / "models"]
        code, _, err = qtopt("serve", *words)
    assert code == 2
    assert f"port {port} is in use" in one_line(err)


def test_a_store_of_another_schema(qtopt, store):
    description = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps(description | {"schema_version": 99}))
    code, _, err = qtopt("data", "info", "--store", store)
    assert code == 3
    assert "schema_version: found 99, expected 1" in one_line(err)


def test_a_store_of_another_image_size(qtopt, store, tmp_path):
    words = ["--store", store, "--models", tmp_path / "models", "--image-px", 48, "--listen.port", 0]
    code, _, err = qtopt("serve", *words)
    assert code == 3
    assert "found 72, expected 48" in one_line(err)


def test_weights_that_are_no_weights(qtopt, tmp_path):
    (tmp_path / "policy.safetensors").write_bytes(b"no weights at all")
    code, _, err = qtopt("eval", "--checkpoint", tmp_path, "--episodes", 1)
    assert code == 5
    assert "expected" in one_line(err)


def test_a_checkpoint_of_another_learner(tmp_path):
    from qtopt.apps import train
    from qtopt.errors import CheckpointError
    from qtopt.loops.checkpoints import Checkpoints

    Checkpoints(tmp_path).save(0, Learner(LearnerConfig(), seed=0).save)
    other = train.Config(checkpoints=tmp_path, resume=True, learner=LearnerConfig(polyak=0.5))
    with pytest.raises(CheckpointError, match=r"asked for: learner\.polyak is 0\.5, expected 0\.999"):
        train.build_learner(other)
    assert train.build_learner(train.Config(checkpoints=tmp_path, resume=True)).step == 0
    with pytest.raises(CheckpointError, match="found checkpoints up to step 0, expected none"):
        train.build_learner(train.Config(checkpoints=tmp_path))
    assert train.build_learner(train.Config(checkpoints=tmp_path / "new", resume=True)).step == 0


def test_data_says_what_is_in_a_store(qtopt, store, tmp_path):
    code, out, _ = qtopt("data", "info", "--store", store)
    assert code == 0
    assert "success 1, nothing_grasped 2" in out.replace("nothing_grasped 2, success 1", "success 1, nothing_grasped 2")
    picture = tmp_path / "episode.png"
    code, out, _ = qtopt("data", "show", "--store", store, "--episode", 0, "--output", picture)
    assert code == 0
    assert "success, terminated" in out
    assert picture.stat().st_size > 1000
    code, out, _ = qtopt("data", "verify", "--store", store)
    assert (code, out.splitlines()[-1]) == (0, "everything matches its checksum")
    words = ["data", "copy", "--store", store, "--into", tmp_path / "copy", "--limit", 2]
    assert qtopt(*words)[1] == f"2 episodes copied from {store} into {tmp_path / 'copy'}, 0 were there already\n"
    assert qtopt(*words)[1] == f"0 episodes copied from {store} into {tmp_path / 'copy'}, 2 were there already\n"
    code, _, err = qtopt("data", "show", "--store", store, "--episode", 7)
    assert code == 4
    assert "expected a number below 3" in one_line(err)


def test_a_run_stands_for_its_store_at_both_ends_of_a_copy(qtopt, store, tmp_path):
    run, other = store.parent, tmp_path / "other"
    (other / "store").mkdir(parents=True)
    copied = f"3 episodes copied from {store} into {other / 'store'}, 0 were there already\n"
    assert qtopt("data", "merge", "--store", run, "--into", other)[1] == copied
    assert [path.name for path in other.iterdir()] == ["store"]
    for action in ("copy", "restore"):
        code, _, err = qtopt("data", action, "--store", run, "--into", store)
        assert code == 2
        assert f"found the same store twice in {store}, {store}" in one_line(err)
    code, _, err = qtopt("data", "backup", "--store", run, "--into", other)
    assert code == 4
    assert "holds other things than a copy" in one_line(err)
    code, said, _ = qtopt("data", "backup", "--store", run, "--into", tmp_path / "copy")
    assert code == 0
    assert said.splitlines()[-1].startswith("published networks are not in it: the trainer publishes its own again")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "--from", "nowhere", "--output", "out"], 5, "expected a checkpoint"),
        (["run", "--stored", "nowhere", "--output", "out"], 4, "no episode store here"),
        (["run", "--collectors", "0", "--output", "out"], 2, "found no collectors and no stored grasps"),
        (["ablate", "--store", "nowhere", "--output", "out"], 4, "no episode store here"),
    ],
)
def test_what_cannot_begin_leaves_nothing_behind(qtopt, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    found, _, err = qtopt(*words)
    assert found == code
    assert said in one_line(err)
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_episode_is_found_and_kept_aside(qtopt, store):
    (file,) = open_files(store / LANDING)
    first, *_ = LandingLog(store / LANDING, [file], 0).take_rest(0)
    data = bytearray(file.path.read_bytes())
    data[first.offset] ^= 1  # in the first episode's first frame
    file.path.write_bytes(data)
    code, out, _ = qtopt("data", "verify", "--store", store)
    assert code == 1
    assert "damaged: episode" in out
    code, _, err = qtopt("data", "show", "--store", store, "--episode", 0)
    assert code == 4
    assert "does not match its checksum" in one_line(err)
    qtopt("data", "verify", "--store", store, "--repair")
    _, out, _ = qtopt("data", "info", "--store", store)
    assert "nothing_grasped 2" in out
    assert "success 1" not in out


def test_flags_come_on_top_of_the_file(tmp_path):
    file = tmp_path / "collect.yaml"
    save_yaml(collect.Config(name="arm-3", seed=5), file)
    config = cli.parse(collect.Config, "collect", ["--config", str(file), "--seed", "6", "--server=h:1"])
    assert (config.name, config.seed, config.server.address) == ("arm-3", 6, "h:1")
    file.write_text("nmae: arm-3\n")
    with pytest.raises(ConfigError, match="nmae: Unexpected keyword argument"):
        cli.parse(collect.Config, "collect", ["--config", str(file)])


def test_configurations_survive_their_files(tmp_path):
    from qtopt.config import load_yaml

    for config in (run.Config(minutes=3.0), evaluate.Config(policy="scripted"), collect.Config()):
        save_yaml(config, tmp_path / "config.yaml")
        assert load_yaml(type(config), tmp_path / "config.yaml") == config


def test_doctor_finds_everything_here(qtopt):
    code, out, _ = qtopt("doctor", "--port", "0")
    assert code == 0, out
    assert "everything is there" in out


def test_eval_writes_a_report_and_pictures(qtopt, tmp_path):
    words = ["eval", "--policy", "scripted", "--output", tmp_path]
    code, out, _ = qtopt(*words, "--episodes", 2, "--filmstrips", 1)
    assert code == 0
    assert "95 % Wilson interval" in out
    report = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert report["objects"] == "unseen"
    assert len(report["rows"]) == 2
    assert len(list((tmp_path / "filmstrips").iterdir())) == 1
    qtopt(*words, "--episodes", 1, "--filmstrips", 0)
    name = "scripted-0000000000-unseen-seed0"
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [f"{name}-1.json", f"{name}-2.json"]


def test_offline_learns_from_a_store_alone(qtopt, tmp_path, rng):
    root = tmp_path / "store"
    with EpisodeStore(root, StoreFormat.for_images(72)) as store:
        for _ in range(8):
            store.append(make_episode(rng, size_px=72))
    words = ["--store", root, "--output", tmp_path / "out", "--train.steps", 2, "--learner.batch", 8]
    small = ["--label.batch-size", 16, "--cem.samples", 8, "--cem.elites", 2]
    code, out, _ = qtopt("offline", *words, *small)
    assert code == 0, out
    assert (tmp_path / "out" / "checkpoints" / "last").resolve().name == "0000000002"
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["trainer/step"] == 2
    assert np.isfinite(rows[-1]["trainer/loss"])
