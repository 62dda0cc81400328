"""Orders of people, from the command line and by RPC, in a run that is live."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mesh_processes import Mesh, wait_until

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import pipeline_service_pb2 as pipeline
from trademesh.gateway.v1 import pipeline_service_pb2_grpc

pytestmark = pytest.mark.timeout(120)


def start(mesh: Mesh, run_id: str) -> None:
    """A run that waits for its start."""
    path = mesh.folder / f"{run_id}.md"
    path.write_text(
        "---\ntickers: [KO, PG]\nsessions: {start: 2007-06-01, end: 2008-12-31}\npipeline: {autostart: false}\n"
        "agents: {technical_analyst: {enabled: false}}\n---\n"
    )
    outcome = mesh.cli("run", "start", str(path), "--run-id", run_id, "--pace", "10", "--wait")
    assert outcome.returncode == 0, outcome.stderr


@contextmanager
def pipeline_of(mesh: Mesh, run_id: str) -> Iterator[Any]:
    """The pipeline's calls at the run's gateway."""
    target = str(mesh.json("run", "show", run_id)["run"]["target"])
    with grpc.insecure_channel(target.removeprefix("dns:///")) as channel:
        yield pipeline_service_pb2_grpc.PipelineServiceStub(channel)


def told(mesh: Mesh, run_id: str, *kinds: str) -> list[dict[str, Any]]:
    """Events of these kinds, once the run has ended."""
    arguments = [part for kind in kinds for part in ("--kind", kind)]
    outcome = mesh.cli("feed", "tail", run_id, "--after", "0", "--json", *arguments)
    assert outcome.returncode == 0, outcome.stderr
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def test_an_order_from_the_command_line_is_taken_in_once_listed_executed_and_survives_a_killed_gateway(mesh: Mesh) -> None:
    start(mesh, "orders")
    request_id = str(uuid.uuid4())
    for _ in range(2):
        answer = mesh.json("order", "submit", "orders", "buy", "10", "KO", "--request-id", request_id, "--by", "ada")
        assert (answer["order"]["order"]["order_id"], answer["order"]["from_session"]) == (request_id, 1)
    mesh.json("order", "submit", "orders", "sell", "5", "PG", "--limit", "99999.5", "--gtc")
    (bought, sold) = mesh.json("order", "list", "orders")
    assert (bought["order"]["submitted_by"], sold["order"]["limit_price_micros"]) == ("ada", "99999500000")
    before = mesh.json("run", "show", "orders")["run"]
    os.kill(int(before["pid"]), signal.SIGKILL)
    wait_until(lambda: mesh.json("run", "show", "orders")["run"].get("generation") == 2, 20, "the next gateway")
    wait_until(lambda: mesh.json("run", "show", "orders")["run"]["state"] == "RUN_STATE_RUNNING", 20, "the next gateway serving")
    again = mesh.json("order", "submit", "orders", "buy", "10", "KO", "--request-id", request_id, "--by", "ada")
    assert again == answer
    assert mesh.cli("order", "submit", "orders", "buy", "11", "KO", "--request-id", request_id, "--by", "ada").returncode == 2
    assert len(mesh.json("order", "list", "orders")) == 2
    with pipeline_of(mesh, "orders") as stub:
        stub.StartPipeline(pipeline.StartPipelineRequest(run_id="orders"), timeout=20)
        wait_until(lambda: stub.GetPipeline(pipeline.GetPipelineRequest(run_id="orders")).pipeline.sessions_settled >= 2, 30, "sessions")
        stub.PausePipeline(pipeline.PausePipelineRequest(run_id="orders"), timeout=20)
    (left,) = mesh.json("order", "list", "orders")
    assert left["order"]["order_id"] == sold["order"]["order_id"]
    assert mesh.cli("order", "cancel", "orders", sold["order"]["order_id"]).returncode == 0
    assert mesh.json("order", "list", "orders") == []
    with pipeline_of(mesh, "orders") as stub:
        stub.StopPipeline(pipeline.StopPipelineRequest(run_id="orders"), timeout=20)
    mesh.json("run", "stop", "orders")
    outcome = mesh.cli("order", "list", "orders", "--all", "--json")
    assert outcome.returncode == 0, outcome.stderr
    every = {one["order"]["order_id"]: one for one in map(json.loads, outcome.stdout.splitlines())}
    assert (every[request_id]["state"], every[request_id]["filled_quantity"]) == ("ORDER_STATE_FILLED", "10")
    assert every[sold["order"]["order_id"]]["state"] == "ORDER_STATE_CANCELED"
    fills = [one["order_filled"] for one in told(mesh, "orders", "order_filled")]
    assert {one["order_id"] for one in fills} <= set(every)
    assert [(one["order_id"], one["quantity"]) for one in fills if one["order_id"] == request_id] == [(request_id, "10")]
    assert mesh.json("run", "verify", "orders")["verified"] is True


def test_orders_that_make_no_sense_are_refused_with_what_is_wrong(mesh: Mesh) -> None:
    start(mesh, "nonsense")
    with pipeline_of(mesh, "nonsense") as stub:

        def refused(call: Any, request: Any) -> tuple[grpc.StatusCode, str]:
            with pytest.raises(grpc.RpcError) as error:
                call(request, timeout=20)
            info = error_details_pb2.ErrorInfo()
            assert rpc_status.from_call(error.value).details[0].Unpack(info)
            return error.value.code(), info.reason

        order = {"run_id": "nonsense", "ticker": "KO", "side": 1, "quantity": 1}
        for wrong in ({"ticker": "MOON"}, {"quantity": 0}, {"side": 0}, {"request_id": "x"}, {"limit_price_micros": 0}):
            assert refused(stub.SubmitOrder, pipeline.SubmitOrderRequest(**(order | wrong))) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_REQUEST",
            )
        cancel = pipeline.CancelOrderRequest(run_id="nonsense", order_id="nobody")
        assert refused(stub.CancelOrder, cancel) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
        taken = stub.SubmitOrder(pipeline.SubmitOrderRequest(**order), timeout=20).order.order.order_id
        canceled = stub.CancelOrder(pipeline.CancelOrderRequest(run_id="nonsense", order_id=taken), timeout=20)
        assert stub.CancelOrder(pipeline.CancelOrderRequest(run_id="nonsense", order_id=taken), timeout=20) == canceled
        stub.StopPipeline(pipeline.StopPipelineRequest(run_id="nonsense"), timeout=20)
        assert refused(stub.SubmitOrder, pipeline.SubmitOrderRequest(**order)) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT")
        state = stub.GetPipeline(pipeline.GetPipelineRequest(run_id="nonsense")).pipeline.state
        assert state == events.PIPELINE_STATE_STOPPED
    mesh.json("run", "stop", "nonsense")
    for price in ("0", "-1", "1.0000001", "ten"):
        assert mesh.cli("order", "submit", "nonsense", "buy", "1", "KO", "--limit", price).returncode == 2
    assert mesh.cli("order", "list", "nonsense").returncode == 1
