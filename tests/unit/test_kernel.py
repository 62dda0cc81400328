"""Parts of the kernel that need no server: settings, front matter, pages, statuses, the probe's arguments."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from trademesh.gateway.v1 import event_pb2
from trademesh_kernel.errors import FieldViolation, InvalidRequest, RunConfigInvalid
from trademesh_kernel.front_matter import NoFrontMatterError, join_front_matter, split_front_matter
from trademesh_kernel.paging import fitting
from trademesh_kernel.probe import ProbeExit, probe
from trademesh_kernel.settings import checked_listen, is_loopback
from trademesh_kernel.status import status_of

BAD_SETTINGS = {
    "TRADEMESH_NEWS_LISTEN": "nowhere",
    "TRADEMESH_NEWS_METRICS_PORT": "70000",
    "TRADEMESH_DRAIN_DELAY_S": "inf",
    "TRADEMESH_MAX_MESSAGE_BYTES": "3000000000",
    "TRADEMESH_LOG_LEVEL": "loud",
}


def test_every_bad_setting_is_named_at_once() -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "trademesh_news"], env=BAD_SETTINGS, capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 78
    assert sorted(line.partition(":")[0] for line in outcome.stderr.splitlines()) == sorted(BAD_SETTINGS)


def test_gateways_that_others_could_reach_need_leave(tmp_path: object) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "trademesh_runtime"],
        env={"TRADEMESH_GATEWAY_BIND": "0.0.0.0:0", "TRADEMESH_RUNS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 78
    assert "TRADEMESH_GATEWAY_BIND" in outcome.stderr


@pytest.mark.parametrize("value", ["8000", "localhost", ":8000", "127.0.0.1:", "127.0.0.1:99999", "::1:8000", "127.0.0.1:٣"])
def test_what_is_no_address_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        checked_listen(value)


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("0.0.0.0:1", False), ("[::]:1", False), ("example:1", False)],
)
def test_only_loopback_addresses_are_taken_for_such(listen: str, loopback: bool) -> None:
    assert is_loopback(listen) is loopback


@given(st.text("ab: -\n#", max_size=30).map(lambda text: text.replace("---\n", "--\n") + "\n"), st.text(max_size=60))
def test_front_matter_and_body_come_back_to_the_letter(front: str, body: str) -> None:
    if any(line == "---" for line in front.split("\n")):
        return
    assert split_front_matter(join_front_matter(front, body)) == (front, body)


@pytest.mark.parametrize("text", ["", "---", "---\na: 1\n", "a: 1\n---\n", " ---\n---\n", "----\n---\n"])
def test_a_text_without_two_fences_has_no_front_matter(text: str) -> None:
    with pytest.raises(NoFrontMatterError):
        split_front_matter(text)


def test_a_page_ends_before_it_is_larger_than_a_client_takes() -> None:
    events = [event_pb2.Event(event_id="x" * 400) for _ in range(10)]
    assert len(fitting(events, event_pb2.Event.ByteSize, 1000)) == 2
    assert len(fitting(events, event_pb2.Event.ByteSize, 10)) == 1
    assert fitting(events, event_pb2.Event.ByteSize, 10_000) == events


@given(st.lists(st.tuples(st.text(max_size=400), st.text(max_size=2000)), min_size=1, max_size=80))
def test_a_status_fits_into_what_grpc_carries(violations: list[tuple[str, str]]) -> None:
    error = RunConfigInvalid(FieldViolation(field, description) for field, description in violations)
    status = status_of(error)
    # Details travel in base64, the message percent-encoded; the default limit is 8 KiB for all metadata together.
    assert status.ByteSize() * 4 / 3 + 3 * len(status.message.encode()) < 7_500
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    told = bad_request.field_violations
    assert len(told) == len(violations) or told[-1].description == f"and {len(violations) - len(told) + 1} more"


def test_an_error_tells_how_many_fields_are_at_fault() -> None:
    assert InvalidRequest([FieldViolation("a", "b")] * 7).metadata == {"violations": "7"}


def test_an_empty_target_is_a_bad_argument_and_no_wait() -> None:
    assert asyncio.run(probe(" ")).exit_code is ProbeExit.BAD_ARGUMENTS


def test_the_probe_ends_with_the_codes_of_grpc_health_probe() -> None:
    def code(*arguments: str) -> int:
        command = [sys.executable, "-m", "trademesh_cli.main", "probe", *arguments]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode

    assert (code(), code("--no-such-option", "x"), code("")) == (1, 1, 1)
    assert code("127.0.0.1:1", "--connect-timeout-s", "0.1") == 2
