"""The pipeline of a run, steered and watched as people do it: by RPC, and through the edge."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from edge_client import edge_client
from mesh_processes import Mesh, wait_until

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import event_pb2 as events
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import pipeline_service_pb2 as pipeline
from trademesh.gateway.v1 import pipeline_service_pb2_grpc

pytestmark = pytest.mark.timeout(120)
SERVICE = "/trademesh.gateway.v1.PipelineService"


def start(mesh: Mesh, run_id: str, supervision: str) -> str:
    """A slow run; returns its gateway's target."""
    path = mesh.folder / f"{run_id}.md"
    path.write_text(f"---\nsessions: {{start: 2007-06-01, end: 2008-12-31}}\nsupervision: {supervision}\n---\n")
    outcome = mesh.cli("run", "start", str(path), "--run-id", run_id, "--pace", "10", "--wait")
    assert outcome.returncode == 0, outcome.stderr
    return str(mesh.json("run", "show", run_id)["run"]["target"])


@pytest.mark.parametrize("restart", ["on_failure", "always"])
def test_a_run_whose_pipeline_was_stopped_ends_as_stopped_and_is_not_started_again(mesh: Mesh, restart: str) -> None:
    run_id = f"stopped-{restart.replace('_', '-')}"
    target = start(mesh, run_id, f"{{linger_s: 0, restart: {restart}}}")
    with grpc.insecure_channel(target.removeprefix("dns:///")) as channel:
        stub: Any = pipeline_service_pb2_grpc.PipelineServiceStub(channel)
        answer = stub.StopPipeline(pipeline.StopPipelineRequest(run_id=run_id, reason="enough"), timeout=20).pipeline
        assert answer.state == events.PIPELINE_STATE_STOPPED

    def ended() -> Any:
        run = mesh.json("run", "show", run_id)["run"]
        return run if run["state"] in ("RUN_STATE_STOPPED", "RUN_STATE_FAILED", "RUN_STATE_SUCCEEDED") else None

    run = wait_until(ended, 20, "the run's end")
    assert (run["state"], run["reason"]) == ("RUN_STATE_STOPPED", "PIPELINE_STOPPED: enough")
    assert run["last_exit"]["reason"] == "PIPELINE_STOPPED: enough"
    assert run["generation"] == 1
    assert mesh.json("run", "verify", run_id)["verified"] is True


async def test_a_browser_watches_a_pipeline_to_its_end_and_ends_it(mesh: Mesh) -> None:
    start(mesh, "watched", "{linger_s: 2}")
    request = pipeline.WatchPipelineRequest(run_id="watched")
    seen = list[pipeline.WatchPipelineResponse]()
    async with edge_client(mesh.ports["edge"]) as watcher, edge_client(mesh.ports["edge"]) as person:
        async for item in watcher.payloads(await watcher.begin(f"{SERVICE}/WatchPipeline", request.SerializeToString())):
            if isinstance(item, frame_pb2.Status):
                assert item.code == 0, item
                continue
            seen.append(pipeline.WatchPipelineResponse.FromString(item))
            if len(seen) == 3:
                stop = pipeline.StopPipelineRequest(run_id="watched", reason="enough")
                payload, status = await person.unary(f"{SERVICE}/StopPipeline", stop)
                assert status.code == 0, status
                assert pipeline.StopPipelineResponse.FromString(payload).pipeline.reason == "enough"
    pipelines = [one.pipeline for one in seen if one.HasField("pipeline")]
    assert [one.sessions_settled for one in pipelines] == sorted(one.sessions_settled for one in pipelines)
    assert (pipelines[-1].state, pipelines[-1].reason) == (events.PIPELINE_STATE_STOPPED, "enough")
    assert seen[-1].end.reason == feed.STREAM_END_REASON_RUN_ENDED
