"""Desks from agent_service, and orders that wait for a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mesh_processes import Mesh, wait_until

pytestmark = pytest.mark.timeout(300)

ASKING = "---\nsessions: {start: 2008-01-02, end: 2008-03-31}\napprovals: {orders_over_nav: 0.0}\n---\n"


LIST_APPROVALS = "trademesh.agent.v1.ApprovalService/ListApprovals"


def test_orders_wait_for_a_person_and_neither_pause_nor_stop_does(mesh: Mesh) -> None:
    path = mesh.folder / "asking.md"
    path.write_text(ASKING)
    assert mesh.cli("run", "start", str(path), "--run-id", "asking", "--wait").returncode == 0
    target = mesh.json("run", "show", "asking")["run"]["target"]

    def pending() -> list[Any]:
        answer = mesh.grpcurl("agent", LIST_APPROVALS, {"run_id": "asking", "state": "APPROVAL_STATE_PENDING"})
        return list(answer.get("approvals", []))

    (asked,) = wait_until(pending, 30, "a question")
    control = "trademesh.gateway.v1.PipelineService/"
    paused = mesh.grpcurl(target, control + "PausePipeline", {"run_id": "asking"})["pipeline"]
    assert paused["state"] == "PIPELINE_STATE_PAUSED"
    assert mesh.grpcurl(target, control + "ResumePipeline", {"run_id": "asking"})["pipeline"]["state"] == "PIPELINE_STATE_RUNNING"
    decision = {
        "approval_id": asked["approvalId"],
        "approve": True,
        "decided_by": "ann",
        "reason": "fine",
        "subject_sha256": asked["subjectSha256"],
    }
    mesh.grpcurl("agent", "trademesh.agent.v1.ApprovalService/DecideApproval", decision)
    (another,) = wait_until(lambda: [one for one in pending() if one["approvalId"] != asked["approvalId"]], 30, "the next question")
    assert another["requestedAt"] > asked["requestedAt"]
    stopped = mesh.json("run", "stop", "asking")
    assert stopped["state"] == "RUN_STATE_STOPPED"
    assert "signal" not in stopped["last_exit"]
    assert stopped["last_exit"]["code"] == 0
    assert mesh.json("run", "verify", "asking")["verified"] is True


def test_a_run_of_the_same_name_as_an_earlier_one_does_not_get_its_approvals(mesh: Mesh) -> None:
    path = mesh.folder / "again.md"
    path.write_text(ASKING)

    def asked() -> list[Any]:
        return list(mesh.grpcurl("agent", LIST_APPROVALS, {"run_id": "again"}).get("approvals", []))

    for attempt in range(2):
        small = Mesh(mesh.folder / f"again-{attempt}")
        small.folder.mkdir()
        for name in ("TRADEMESH_AGENT_TARGET", "TRADEMESH_TRADING_TARGET", "TRADEMESH_NEWS_TARGET"):
            small.environment[name] = mesh.environment[name]
        try:
            small.start("runtime")
            small.wait_ready("runtime")
            assert small.cli("run", "start", str(path), "--run-id", "again", "--wait").returncode == 0

            wait_until(lambda attempt=attempt: len(asked()) > attempt, 30, "a question of its own")
        finally:
            small.stop()
    assert len(asked()) == 2


def test_a_desk_is_not_begun_without_an_agent_that_cannot_be_read(mesh: Mesh, tmp_path: Path) -> None:
    service = "trademesh.agent.v1."
    mesh.grpcurl("agent", service + "WorkspaceService/CreateWorkspace", {"workspace_id": "desk", "workspace": {"prompt": "calm"}})
    for role in ("technical_analyst", "risk_manager", "portfolio_manager"):
        agent = {"workspace": "desk", "agent_id": role.replace("_", "-"), "agent": {"role": f"AGENT_ROLE_{role.upper()}"}}
        mesh.grpcurl("agent", service + "AgentService/CreateAgent", agent)
    path = tmp_path / "BOOTSTRAP.md"
    path.write_text("---\nworkspace: desk\nsessions: {start: 2008-01-02, end: 2008-01-31}\n---\n")
    assert mesh.cli("run", "start", str(path), "--run-id", "of-the-desk").returncode == 0
    assert int(mesh.summary("of-the-desk")["sessions"]) == 21
    assert mesh.json("run", "show", "of-the-desk")["run"]["config"]["prompt"] == "calm"
    spoilt = mesh.folder / "workspaces" / "desk" / "agents" / "risk-manager" / "agent.json"
    spoilt.write_text(spoilt.read_text().replace('"role"', '"rolle"'))
    outcome = mesh.cli("run", "start", str(path))
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: workspace: agent risk-manager cannot be read")
