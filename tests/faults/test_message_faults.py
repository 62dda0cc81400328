"""A person speaks to the agents of a gateway that is in trouble: without services, drained, killed in the middle of a session."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from lone_gateway import LoneGateway, configuration, lone_gateway
from mesh_processes import Mesh, running_mesh, wait_until

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import pipeline_service_pb2 as pipeline
from trademesh_runs.verification import verify_run

pytestmark = pytest.mark.timeout(120)

PATIENT: dict[str, Any] = {"lease_s": 600.0, "orphan_s": 1200.0}


def say(gateway: LoneGateway, text: str, **fields: Any) -> pipeline.SendMessageResponse:
    """Speaks to all agents."""
    request = pipeline.SendMessageRequest(run_id=gateway.run_id, text=text, **fields)
    answer: pipeline.SendMessageResponse = gateway.pipeline_stub.SendMessage(request, timeout=20)
    return answer


def test_agents_answer_while_every_service_is_away_until_the_gateway_drains(tmp_path: Path) -> None:
    with lone_gateway(Mesh(tmp_path), "alone", configuration(), **PATIENT) as gateway:
        assert {one.text for one in say(gateway, "well?").answers} == {"The pipeline has not begun: I know nothing yet."}
        gateway.drain()
        with pytest.raises(grpc.RpcError) as caught:
            say(gateway, "and now?")
        call: Any = caught.value
        assert (call.code(), "draining" in call.details()) == (grpc.StatusCode.UNAVAILABLE, True)
        gateway.terminate()
    assert [event.message_sent.text for event in gateway.events("message_sent")] == ["well?"]


def test_a_session_that_is_done_again_after_a_kill_neither_swallows_nor_doubles_what_was_said_in_it(tmp_path: Path) -> None:
    with running_mesh(tmp_path, "agent", "trading", "news") as mesh:
        config = configuration(pipeline={"autostart": False})
        ids = [str(uuid.uuid4()) for _ in range(3)]
        with lone_gateway(mesh, "cut", config, **PATIENT) as gateway:
            wait_until(gateway.serving, 20, "serving")
            gateway.call("PausePipeline")
            said = list[pipeline.SendMessageResponse]()
            for request_id in ids:
                # ANALYSIS is done after the first two steps, RISK after the third.
                gateway.call("StepPipeline", size=pipeline.STEP_SIZE_PHASE)
                said.append(say(gateway, "why GE?", request_id=request_id))
            gateway.process.kill()
            gateway.process.wait(10)
        with lone_gateway(mesh, "cut", None, generation=2, **PATIENT) as gateway:
            wait_until(gateway.serving, 20, "serving")
            assert [say(gateway, "why GE?", request_id=request_id) for request_id in ids] == said
            gateway.call("StepPipeline", size=pipeline.STEP_SIZE_CYCLE)
            assert say(gateway, "why GE?", request_id=ids[0]) == said[0]
            gateway.terminate()
    assert [one.answers[4].text[:12] for one in said] == ["No session h", "No session h", "2008-01-02: "]
    found = gateway.events()
    assert len({event.event_id for event in found}) == len(found)
    of_session = [event.WhichOneof("payload") for event in found if event.session_date == "2008-01-02"]
    assert (of_session.count("signals"), of_session.count("settled")) == (4, 1)
    assert [event.sequence for event in found if event.WhichOneof("payload") == "message_sent"] == [one.sequence for one in said]
    assert sum(event.WhichOneof("payload") == "message_answered" for event in found) == 18
    assert all(event.phase == events.PHASE_UNSPECIFIED for event in found if event.HasField("message_answered"))
    verify_run(gateway.layout)
