"""The command that makes certificates and tokens."""

import itertools
import os
import shutil
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from qtopt import cli
from qtopt.apps.certificates import alternative_names, read_certificate
from qtopt.apps.certs import Keys, identity_of
from qtopt.rpc.roles import make_identity
from qtopt.rpc.tokens import find_token, read_tokens


@pytest.fixture
def certs(tmp_path):
    def run(*words):
        return cli.main(["certs", *words, "--directory", str(tmp_path)])

    assert run("authority") == 0
    return run


def days_left(path):
    return (read_certificate(path).not_valid_after_utc - datetime.now(UTC)) / timedelta(days=1)


def test_three_commands_make_what_a_server_and_a_client_need(certs, tmp_path):
    assert certs("server", "--names", "learner.lab", "192.168.1.20") == 0
    assert certs("client", "--role", "collector", "--name", "arm-3") == 0
    client = tmp_path / "clients" / "arm-3"
    assert {path.name for path in client.iterdir()} == {"ca.crt", "client.crt", "client.key", "token"}
    assert identity_of(read_certificate(client / "client.crt")) == make_identity("arm-3", "collector")
    for path in (*client.iterdir(), *(tmp_path / "server").iterdir(), tmp_path / "authority" / "ca.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listed = tmp_path / "server" / "tokens"
    token = (client / "token").read_text().strip()
    assert token not in listed.read_text()
    assert find_token(read_tokens(listed), token).identity == make_identity("arm-3", "collector")
    assert find_token(read_tokens(listed), token[:-1] + "x") is None
    context = ssl.create_default_context(cafile=str(client / "ca.crt"))
    context.load_cert_chain(client / "client.crt", client / "client.key")


def test_renew_makes_anew_what_expires_soon_and_nothing_else(certs, tmp_path, capsys):
    certs("server", "--names", "localhost", "--days", "5")
    certs("client", "--role", "viewer", "--name", "soon", "--days", "5")
    certs("client", "--role", "trainer", "--name", "later", "--days", "100")
    kept = (tmp_path / "clients" / "later" / "token").read_text()
    old = (tmp_path / "clients" / "soon" / "token").read_text()
    names = alternative_names(read_certificate(tmp_path / "server" / "server.crt"))
    assert certs("renew") == 0
    assert days_left(tmp_path / "server" / "server.crt") > 360
    assert alternative_names(read_certificate(tmp_path / "server" / "server.crt")) == names
    assert days_left(tmp_path / "clients" / "soon" / "client.crt") > 360
    assert identity_of(read_certificate(tmp_path / "clients" / "soon" / "client.crt")).role == "viewer"
    assert (tmp_path / "clients" / "soon" / "token").read_text() != old
    assert (tmp_path / "clients" / "later" / "token").read_text() == kept
    assert find_token(read_tokens(tmp_path / "server" / "tokens"), old.strip()) is None
    assert "later" not in capsys.readouterr().out


def test_show_says_what_has_expired_and_its_exit_code_too(certs, tmp_path, capsys):
    certs("client", "--role", "viewer", "--name", "fresh")
    assert certs("show") == 0
    Keys(tmp_path).make_client(make_identity("old", "viewer"), -1.0)
    assert certs("show") == 1
    shown = capsys.readouterr().out
    assert "364 days left" in shown or "365 days left" in shown
    assert shown.count("EXPIRED") == 2


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_who_could_read_a_file_can_read_the_one_in_its_place(certs, tmp_path):
    certs("server", "--names", "localhost")
    certs("client", "--role", "viewer", "--name", "probe")
    files = [tmp_path / "server" / "tokens", tmp_path / "clients" / "probe" / "client.key"]
    for path in files:
        os.chown(path, 10001, 10002)
        path.chmod(0o640)
    before = [path.read_bytes() for path in files]
    certs("renew", "--name", "probe")
    for path, old in zip(files, before, strict=True):
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (10001, 10002, 0o640)
        assert path.read_bytes() != old
    assert stat.S_IMODE((tmp_path / "server" / "server.key").stat().st_mode) == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_who_cannot_keep_a_files_owner_leaves_it_as_it_is(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("old")
    os.chown(path, 10001, 10001)
    os.chown(tmp_path, 10003, 10003)
    for folder in itertools.takewhile(lambda each: not each.stat().st_mode & 0o001, tmp_path.parents):
        folder.chmod(0o755)
    words = "import os, pathlib, sys; from qtopt.apps.certificates import write_private\n"
    words += "os.setgroups([]); os.setgid(10003); os.setuid(10003); write_private(pathlib.Path(sys.argv[1]), b'new')"
    told = subprocess.run([sys.executable, "-c", words, path], capture_output=True, text=True, check=False)
    assert "tokens belongs to user 10001, group 10001" in told.stderr
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["tokens"]


def test_a_revoked_client_is_off_the_list(certs, tmp_path):
    certs("client", "--role", "viewer", "--name", "lost")
    assert certs("revoke", "--name", "lost") == 0
    assert read_tokens(tmp_path / "server" / "tokens") == []
    assert certs("revoke", "--name", "lost") == 2


def test_a_client_is_made_once_and_renewed_by_its_name(certs, tmp_path, capsys):
    certs("client", "--role", "collector", "--name", "arm-3")
    client, listed = tmp_path / "clients" / "arm-3", tmp_path / "server" / "tokens"
    before = {path.name: path.read_bytes() for path in (*client.iterdir(), listed)}
    assert certs("client", "--role", "viewer", "--name", "arm-3") == 2
    assert "`qtopt certs renew --name arm-3`" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (*client.iterdir(), listed)} == before
    shutil.rmtree(client)  # moved to the robot: it is on the list all the same
    assert certs("client", "--role", "collector", "--name", "arm-3") == 2
    assert certs("renew", "--name", "arm-3") == 0
    assert (client / "client.key").read_bytes() != before["client.key"]
    token = (client / "token").read_text().strip()
    assert find_token(read_tokens(listed), token).identity == make_identity("arm-3", "collector")
    assert len(read_tokens(listed)) == 1
    assert certs("renew", "--name", "arm-4") == 2
    assert certs("revoke", "--name", "arm-3") == 0
    assert certs("client", "--role", "viewer", "--name", "arm-3") == 0


def test_an_authority_is_never_overwritten(certs, tmp_path):
    before = (tmp_path / "authority" / "ca.key").read_bytes()
    assert certs("authority") == 2
    assert (tmp_path / "authority" / "ca.key").read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("server",),
        ("client", "--name", "x"),
        ("client", "--role", "viewer", "--name", "../x"),
        ("client", "--role", "viewer"),
        ("client", "--role", "king", "--name", "x"),
        ("client", "--role", "viewer", "--name", "x", "--days", "0"),
        ("client", "--role", "viewer", "--name", "x", "--days", "-1"),
        ("server", "--names", "x", "--days", "1e9"),
        ("revoke", "--name", "a b"),
    ],
)
def test_what_cannot_be_made_is_refused(certs, words):
    assert certs(*words) == 2


def test_without_an_authority_nothing_is_signed(tmp_path, capsys):
    assert cli.main(["certs", "server", "--names", "x", "--directory", str(tmp_path)]) == 2
    assert "make one with qtopt certs authority" in capsys.readouterr().err
    assert cli.main(["certs", "show", "--directory", str(tmp_path / "nowhere")]) == 2
    assert f"found no certificates in {tmp_path / 'nowhere'}" in capsys.readouterr().err
