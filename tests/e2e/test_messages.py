"""People speak to the agents of a run: by the command line, by RPC and through the edge; while it runs, stands, has ended, and after a gateway
has died."""

from __future__ import annotations

import json
import os
import signal
import uuid
from typing import Any

import grpc
import pytest
from edge_client import edge_client
from google.rpc import error_details_pb2, status_pb2
from mesh_processes import Mesh, wait_until

from trademesh.gateway.v1 import pipeline_service_pb2 as pipeline
from trademesh.gateway.v1 import pipeline_service_pb2_grpc

pytestmark = pytest.mark.timeout(180)

CONTROL = "trademesh.gateway.v1.PipelineService/"
SEND = CONTROL + "SendMessage"
DESK = [
    "fundamentals_analyst",
    "technical_analyst",
    "sentiment_analyst",
    "valuation_analyst",
    "risk_manager",
    "portfolio_manager",
]


def start(mesh: Mesh, run_id: str, front: str = "", end: str = "2008-12-31") -> str:
    """A run; returns its gateway's target."""
    path = mesh.folder / f"{run_id}.md"
    path.write_text(f"---\nsessions: {{start: 2007-06-01, end: {end}}}\n{front}\n---\n")
    outcome = mesh.cli("run", "start", str(path), "--run-id", run_id, "--wait")
    assert outcome.returncode == 0, outcome.stderr
    return target_of(mesh, run_id)


def target_of(mesh: Mesh, run_id: str) -> str:
    return str(mesh.json("run", "show", run_id)["run"]["target"])


def said(answer: Any) -> dict[str, str]:
    """What each agent said."""
    return {one.get("agentId") or one["agent_id"]: one["text"] for one in answer["answers"]}


def events_of(mesh: Mesh, target: str, run_id: str, *kinds: str) -> list[Any]:
    request = {"run_id": run_id, "filter": {"kinds": kinds}, "page_size": 1000}
    return list(mesh.grpcurl(target, "trademesh.gateway.v1.FeedService/ListEvents", request).get("events", []))


def test_before_the_start_agents_say_that_they_know_nothing(mesh: Mesh) -> None:
    start(mesh, "unbegun", "pipeline: {autostart: false}")
    answer = mesh.json("run", "say", "unbegun", "well?")
    assert list(said(answer)) == DESK
    assert set(said(answer).values()) == {"The pipeline has not begun: I know nothing yet."}
    mesh.json("run", "stop", "unbegun")


def test_a_paused_desk_answers_the_same_after_its_gateway_was_killed_and_a_repeated_call_is_one_message(mesh: Mesh) -> None:
    target = start(mesh, "spoken-to", "pipeline: {pace_sessions_per_s: 40}")
    settled = wait_until(
        lambda: int(mesh.json("run", "show", "spoken-to")["run"]["progress"].get("sessions_settled", 0)) > 30, 60, "sessions"
    )
    assert settled
    while_it_runs = said(mesh.grpcurl(target, SEND, {"run_id": "spoken-to", "text": "what do you think?"}))
    assert while_it_runs["valuation_analyst"].endswith(": I abstained from every ticker: no statements in the data.")
    mesh.grpcurl(target, CONTROL + "PausePipeline", {"run_id": "spoken-to"})
    first = {"run_id": "spoken-to", "text": "why GE and AAPL?", "sender": "ann", "request_id": str(uuid.uuid4())}
    told = mesh.grpcurl(target, SEND, first)
    assert all("GE" in text or "abstained" in text for text in said(told).values()), told
    head = events_of(mesh, target, "spoken-to", "message_sent", "message_answered")
    generation = mesh.json("run", "show", "spoken-to")["run"]["generation"]
    os.kill(int(mesh.json("run", "show", "spoken-to")["run"]["pid"]), signal.SIGKILL)

    def replaced() -> Any:
        run = mesh.json("run", "show", "spoken-to")["run"]
        return run["target"] if run["state"] == "RUN_STATE_RUNNING" and int(run["generation"]) > int(generation) else ""

    target = wait_until(replaced, 60, "the next gateway")
    assert mesh.grpcurl(target, SEND, first) == told
    assert events_of(mesh, target, "spoken-to", "message_sent", "message_answered") == head
    again = mesh.grpcurl(target, SEND, {**first, "request_id": ""})
    assert said(again) == said(told)
    assert again["messageId"] != told["messageId"]
    sent = [event["messageSent"] for event in events_of(mesh, target, "spoken-to", "message_sent")]
    assert [(one["sender"], one["text"], one.get("tickers", [])) for one in sent] == [
        ("person", "what do you think?", []),
        ("ann", "why GE and AAPL?", ["AAPL", "GE"]),
        ("ann", "why GE and AAPL?", ["AAPL", "GE"]),
    ]
    mesh.json("run", "stop", "spoken-to")
    assert mesh.json("run", "verify", "spoken-to")["verified"] is True


def test_a_run_that_has_ended_answers_while_its_gateway_lingers_and_its_desk_did_the_same_as_an_undisturbed_one(
    mesh: Mesh, undisturbed: dict[str, Any], two_years: Any
) -> None:
    outcome = mesh.cli("run", "start", str(two_years), "--run-id", "lingers", "--wait")
    assert outcome.returncode == 0, outcome.stderr
    # As early as may be: its sessions take a second.
    mesh.json("run", "say", "lingers", "what now?")
    before = mesh.summary("lingers")
    outcome = mesh.cli("run", "say", "lingers", "--to", "portfolio_manager", "--to", "risk_manager", "--from", "ann", "why GE?")
    assert outcome.returncode == 0, outcome.stderr
    manager, risk = outcome.stdout.splitlines()
    assert manager.startswith("portfolio_manager: 2009-06-01: GE: I ")
    assert risk.startswith("risk_manager: 2009-06-01: Net asset value $")
    assert " GE room to add " in risk
    mesh.json("run", "stop", "lingers")
    after = mesh.json("run", "verify", "lingers")
    assert after["verified"] is True
    for name in ("sessions", "trades", "final_nav_micros"):
        assert undisturbed[name] == before[name], name
    assert undisturbed["journal_sha256"] != after["journal_sha256"]
    outcome = mesh.cli("run", "say", "lingers", "hello?")
    assert (outcome.returncode, outcome.stderr) == (1, "error: run lingers has no gateway: its agents answer while it is live\n")
    tail = mesh.cli("feed", "tail", "lingers", "--after", "0", "--kind", "message_sent", "--kind", "message_answered").stdout.splitlines()
    assert len(tail) == 1 + 6 + 1 + 2
    assert tail[7].endswith("  message_sent  ann to portfolio_manager, risk_manager: why GE?")
    assert tail[8].endswith(f"  message_answered  {manager.partition(': ')[2]}")


def test_an_agent_that_is_not_at_work_is_a_usage_error_that_names_those_who_are(mesh: Mesh) -> None:
    start(mesh, "few", "agents: {risk_manager: {enabled: false}}", end="2007-06-29")
    outcome = mesh.cli("run", "say", "few", "--to", "risk_manager", "well?")
    there = ", ".join(agent_id for agent_id in DESK if agent_id != "risk_manager")
    assert (outcome.returncode, outcome.stderr) == (
        2,
        f"error: agent_ids[0]: risk_manager is not at work in this run; these are: {there}\n",
    )
    outcome = mesh.cli("run", "say", "few", "")
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: text: ")
    assert mesh.cli("run", "say", "nobody", "well?").returncode == 4
    mesh.json("run", "stop", "few")


def test_what_a_person_writes_cannot_steer_the_terminal_of_another(mesh: Mesh) -> None:
    start(mesh, "escaped", end="2007-06-29")
    assert mesh.cli("run", "say", "escaped", "--from", "\x1b[2Jeve", "--to", "risk_manager", "a\x1b[31mb\nc\u202ed").returncode == 0
    mesh.json("run", "stop", "escaped")
    (line,) = mesh.cli("feed", "tail", "escaped", "--after", "0", "--kind", "message_sent").stdout.splitlines()
    assert line.endswith("   [2Jeve to risk_manager: a [31mb c d")


async def test_a_browser_speaks_to_agents_and_reads_the_answers_in_the_feed(mesh: Mesh) -> None:
    target = start(mesh, "browsed", end="2007-06-29")
    request = pipeline.SendMessageRequest(run_id="browsed", text="why KO?", sender="browser", agent_ids=["technical_analyst"])
    async with edge_client(mesh.ports["edge"]) as browser:
        payload, status = await browser.unary(f"/{SEND}", request)
        assert status.code == 0, status
        told = pipeline.SendMessageResponse.FromString(payload)
        _, status = await browser.unary(f"/{SEND}", pipeline.SendMessageRequest(run_id="browsed", text="why?", agent_ids=["nobody"]))
        assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    found = events_of(mesh, target, "browsed", "message_answered")
    assert [(int(event["sequence"]), event["agentId"], event["messageAnswered"]["text"]) for event in found] == [
        (one.sequence, one.agent_id, one.text) for one in told.answers
    ]
    mesh.json("run", "stop", "browsed")


def test_the_sixty_first_message_of_a_minute_is_refused_and_says_when_to_come_back(mesh: Mesh) -> None:
    target = start(mesh, "flooded", end="2007-06-29")
    request = pipeline.SendMessageRequest(run_id="flooded", text="well?", agent_ids=["risk_manager"])
    with grpc.insecure_channel(target.removeprefix("dns:///")) as channel:
        stub: Any = pipeline_service_pb2_grpc.PipelineServiceStub(channel)
        for _ in range(60):
            stub.SendMessage(request, timeout=20)
        with pytest.raises(grpc.RpcError) as caught:
            stub.SendMessage(request, timeout=20)
    call: Any = caught.value
    assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = status_pb2.Status.FromString(dict(call.trailing_metadata())["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert 0 < retry.retry_delay.ToMilliseconds() <= 60_000
    assert len(events_of(mesh, target, "flooded", "message_sent")) == 60
    mesh.json("run", "stop", "flooded")


def test_say_prints_json_for_programs(mesh: Mesh) -> None:
    start(mesh, "for-programs", end="2007-06-29")
    outcome = mesh.cli("run", "say", "for-programs", "--to", "risk_manager", "well?", "--json")
    answer = json.loads(outcome.stdout)
    assert {"message_id", "sequence", "answers"} == set(answer)
    assert answer["answers"][0]["agent_id"] == "risk_manager"
    mesh.json("run", "stop", "for-programs")
