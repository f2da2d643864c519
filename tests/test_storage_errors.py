"""Places of runs in words: names in URIs, options, and what is told of a storage that is away or refuses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo_ray import journal
from hpo_ray.errors import InvalidInput
from hpo_ray.results.frame import load_results
from hpo_ray.storage import address, holding
from hpo_ray.storage.failures import Refused, Unreachable
from hpo_ray.storage.store import Store
from hpo_ray.trainables.trial import Message, Trial, TrialSpec
from tests.results.test_frame import write_run

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name.strip(".")
)


# Names


@given(NAMES, st.sampled_from(["s3://bucket/folder?region=x", "s3://bucket", "file:///nfs/a%20b"]))
def test_any_name_goes_into_a_uri_and_comes_out_again(name: str, base: str) -> None:
    uri = address.join(base, name)
    assert address.split(uri) == (base, name)
    assert address.problem_of(uri) == ""
    assert address.shown(uri).startswith(address.shown(base))


@pytest.mark.parametrize("name", ["lr#1", "a?b", "a%20b", "a b", "ä", "a&b=c", "[1]"])
def test_a_run_of_any_name_lies_in_a_folder_of_that_name(tmp_path: Path, name: str) -> None:
    uri = address.join(f"file://{tmp_path}", name)
    Store(uri).write("x", b"1")
    assert (tmp_path / name / "x").read_bytes() == b"1"
    write_run(tmp_path / name)
    assert load_results(uri)["run"].unique().tolist() == [name]


# Mistakes


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (
            "s3://bucket/x?endpoint_overide=h:1",
            "there is no option 'endpoint_overide'; did you mean 'endpoint_override'?",
        ),
        ("gs://bucket/x?retry_limit=5", "there is no option 'retry_limit'; did you mean 'retry_limit_seconds'?"),
        ("abfs://box@a.dfs.core.windows.net/x?tenant=1", "there is no option 'tenant'; did you mean 'tenant_id'?"),
        ("s3://bucket/x?endpoint_override=h:1&scheme=http&tls_verify_certificates=false", ""),
        ("hdfs://host/x?user=me", ""),
    ],
)
def test_an_option_that_there_is_not_is_told_with_the_nearest(uri: str, expected: str) -> None:
    assert address.problem_of(uri) == expected
    if expected:
        with pytest.raises(InvalidInput, match="there is no option"):
            load_results(uri)


# What storages answer


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """The URI of a folder at an S3 server that answers all with one error; and a list with its status and code."""
    for name in ("AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHIDDEN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-told")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    answer = [(403, "AccessDenied")]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, code = answer[0]
            body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"s3://bucket/runs/r?endpoint_override=127.0.0.1:{server.server_port}&scheme=http", answer
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "code"), [(403, "AccessDenied"), (403, "InvalidAccessKeyId"), (400, "ExpiredToken")]
)
def test_denied_access_names_the_credentials_and_is_not_waited_for(
    answering: tuple[str, list[tuple[int, str]]], tmp_path: Path, status: int, code: str
) -> None:
    uri, answer = answering
    answer[0] = status, code
    with pytest.raises(InvalidInput, match=r"storage\.uri: .* denies access .* AWS_ACCESS_KEY_ID names: ") as caught:
        holding.check_new(uri)
    assert "HIDDEN" not in str(caught.value)
    assert "endpoint_override" not in str(caught.value)
    if status == 403:  # to a HEAD there is no word of why
        (tmp_path / journal.FILE_NAME).write_text("")
        waited: list[str] = []
        with pytest.raises(InvalidInput, match="denies access"):
            holding.claim(uri, tmp_path, waited.append)
        assert waited == []
        with pytest.raises(InvalidInput, match="denies access"):
            holding.bring(uri, tmp_path / "mine")
        with pytest.raises(InvalidInput, match="denies access"):
            load_results(uri)


def test_a_bucket_that_is_not_there_is_told(answering: tuple[str, list[tuple[int, str]]], tmp_path: Path) -> None:
    uri, answer = answering
    answer[0] = 404, "NoSuchBucket"
    for act in (
        lambda: holding.check_new(uri),
        lambda: holding.bring(uri, tmp_path / "mine"),
        lambda: load_results(uri),
        lambda: load_results(uri.replace("/r?", "/*?")),
    ):
        with pytest.raises(InvalidInput, match=r"'s3://bucket/runs[^?]*': there is no bucket 'bucket'"):
            act()
    assert not (tmp_path / "mine").exists()


def test_a_trial_whose_checkpoint_is_denied_fails_and_says_why(
    answering: tuple[str, list[tuple[int, str]]], tmp_path: Path
) -> None:
    sent: list[Message] = []

    def send(message: Message) -> bool:
        sent.append(message)
        return False

    spec = TrialSpec("0000", {}, 0, 0, tmp_path / "trials/0000/attempt-0", stored=answering[0])
    spec.dir.mkdir(parents=True)
    with pytest.raises(Refused, match=f"denies access on {socket.gethostname()} .*; give them, or the machine's role"):
        Trial(spec, send).report(loss=1.0, checkpoint=lambda folder: (folder / "w").touch())
    assert sent == []


def test_a_storage_that_is_away_holds_not_just_no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = f"endpoint_override=127.0.0.1:{port}&scheme=http"
    for uri in (f"s3://bucket/runs/*?{options}", f"s3://bucket/runs/r?{options}"):
        with pytest.raises(InvalidInput, match="cannot be reached") as caught:
            load_results(uri)
        assert "scheme" not in str(caught.value)
    with pytest.raises(Unreachable) as away:
        Store(f"s3://bucket/runs/r?{options}").read("x")
    assert not isinstance(away.value, Refused)


def test_a_uri_is_told_without_its_password(tmp_path: Path) -> None:
    for uri in (f"file://{tmp_path}/none?secret_key=hidden", "s3://me:hidden@bucket/a b", "nonsense://me:hidden@x"):
        with pytest.raises(InvalidInput, match="run: ") as caught:
            load_results(uri)
        assert "hidden" not in str(caught.value)
