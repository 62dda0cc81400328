"""agent_service by RPC: workspaces, agents and skills on disk; approvals that are decided once."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from trademesh.agent.v1 import (
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    approval_service_pb2,
    approval_service_pb2_grpc,
    skill_pb2,
    skill_service_pb2,
    skill_service_pb2_grpc,
    workspace_pb2,
    workspace_service_pb2,
    workspace_service_pb2_grpc,
)
from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh_agent.__main__ import AgentSettings, assemble
from trademesh_kernel.errors import RemoteError
from trademesh_kernel.server import MeshServer
from trademesh_kernel.status import error_of

Workspaces = workspace_service_pb2_grpc.WorkspaceServiceStub
Agents = agent_service_pb2_grpc.AgentServiceStub
Skills = skill_service_pb2_grpc.SkillServiceStub
Approvals = approval_service_pb2_grpc.ApprovalServiceStub


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    """agent_service on a folder, and a channel to it."""
    settings = AgentSettings(workspaces_dir=folder)
    assembly = await assemble(settings)
    server = MeshServer(settings, assembly.registrations, listen="127.0.0.1:0", readiness=assembly.readiness)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.target) as channel:
            yield channel
    finally:
        await server.stop(drain_delay_s=0.0, grace_s=0.0)
        for close in assembly.closers:
            await close()


async def refused(call: Awaitable[Any]) -> RemoteError:
    """The error that a call must end with."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error_of(error.value)


async def workspace(channel: Any, name: str = "desk", **request: Any) -> workspace_pb2.Workspace:
    asked = workspace_service_pb2.CreateWorkspaceRequest(
        workspace_id=name, workspace=workspace_pb2.Workspace(description="d", prompt="p"), **request
    )
    return (await Workspaces(channel).CreateWorkspace(asked)).workspace


async def test_a_workspace_is_kept_across_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        made = await workspace(channel)
    async with serving(tmp_path) as channel:
        found = (await Workspaces(channel).GetWorkspace(workspace_service_pb2.GetWorkspaceRequest(workspace_id="desk"))).workspace
    assert found == made
    assert found.etag


async def test_creating_with_one_request_id_is_done_once(tmp_path: Path) -> None:
    request_id = str(uuid.uuid4())
    async with serving(tmp_path) as channel:
        first = await workspace(channel, request_id=request_id)
        assert await workspace(channel, request_id=request_id) == first
        assert (await refused(workspace(channel))).remote_reason == "RESOURCE_ALREADY_EXISTS"
        assert (await refused(workspace(channel, "other", request_id=request_id))).remote_reason == "REQUEST_ID_REUSED"
    async with serving(tmp_path) as channel:
        assert await workspace(channel, request_id=request_id) == first


@pytest.mark.parametrize("name", ["..", "../up", "a/b", "A", "", ".hidden", "x" * 64])
async def test_a_name_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path / "workspaces") as channel:
        error = await refused(workspace(channel, name))
    assert error.remote_reason == "INVALID_REQUEST"
    assert [violation.field for violation in error.violations] == ["workspace_id"]
    assert [path.name for path in tmp_path.iterdir()] == ["workspaces"]  # noqa: ASYNC240  # a test may wait


async def test_an_update_changes_what_its_mask_names_and_only_if_the_etag_fits(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        made = await workspace(channel)
        stub = Workspaces(channel)

        def update(etag: str, mask: list[str], **fields: str) -> Any:
            return stub.UpdateWorkspace(
                workspace_service_pb2.UpdateWorkspaceRequest(
                    workspace_id="desk", workspace=workspace_pb2.Workspace(**fields), update_mask=FieldMask(paths=mask), etag=etag
                )
            )

        changed = (await update(made.etag, ["prompt"], prompt="new", description="not asked")).workspace
        assert (changed.prompt, changed.description) == ("new", "d")
        assert changed.etag != made.etag
        assert (await refused(update(made.etag, ["prompt"], prompt="late"))).remote_reason == "ETAG_MISMATCH"
        assert (await refused(update("", ["etag"]))).remote_reason == "INVALID_REQUEST"


async def test_only_one_of_many_writers_with_one_etag_gets_through(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        made = await workspace(channel)
        updates = [
            Workspaces(channel).UpdateWorkspace(
                workspace_service_pb2.UpdateWorkspaceRequest(
                    workspace_id="desk",
                    workspace=workspace_pb2.Workspace(prompt=f"by {number}"),
                    update_mask=FieldMask(paths=["prompt"]),
                    etag=made.etag,
                )
            )
            for number in range(20)
        ]
        outcomes = await asyncio.gather(*(update for update in updates), return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1


async def test_calls_with_one_request_id_at_the_same_time_are_one(tmp_path: Path) -> None:
    request_id = str(uuid.uuid4())
    async with serving(tmp_path) as channel:
        answers = await asyncio.gather(*(workspace(channel, request_id=request_id) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)


TEXTS = ["trend ---", "first\n---\nsecond", "---", "---\n", "a\r\nb", "a\u2028b", "# é: [x] {y} 'q' \"p\"", " \ttrailing \n\n"]


@pytest.mark.parametrize("text", TEXTS)
async def test_texts_come_back_to_the_letter_and_with_the_same_etag(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path) as channel:
        asked = workspace_service_pb2.CreateWorkspaceRequest(
            workspace_id="desk", workspace=workspace_pb2.Workspace(description=text, prompt=text)
        )
        made = (await Workspaces(channel).CreateWorkspace(asked)).workspace
        skills = Skills(channel)
        wanted = skill_service_pb2.CreateSkillRequest(
            workspace="desk", skill_id="carry", skill=skill_pb2.Skill(description=text, instructions=text)
        )
        skill = (await skills.CreateSkill(wanted)).skill
    async with serving(tmp_path) as channel:
        found = (await Workspaces(channel).GetWorkspace(workspace_service_pb2.GetWorkspaceRequest(workspace_id="desk"))).workspace
        assert found == made
        assert (found.description, found.prompt) == (text, text)
        read = (await Skills(channel).GetSkill(skill_service_pb2.GetSkillRequest(workspace="desk", skill_id="carry"))).skill
        assert read == skill
        assert (read.description, read.instructions) == (text, text)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"description": "d", "created_at": "soon", "updated_at": "soon"}'])
async def test_a_file_that_somebody_has_spoilt_is_named_and_hides_no_other(tmp_path: Path, content: str) -> None:
    async with serving(tmp_path) as channel:
        await workspace(channel, "good")
        await workspace(channel, "spoilt")
        (tmp_path / "spoilt" / "workspace.json").write_text(content)
        listed = await Workspaces(channel).ListWorkspaces(workspace_service_pb2.ListWorkspacesRequest())
        assert [one.workspace_id for one in listed.workspaces] == ["good"]
        assert listed.damaged == ["spoilt"]
        error = await refused(Workspaces(channel).GetWorkspace(workspace_service_pb2.GetWorkspaceRequest(workspace_id="spoilt")))
    assert error.remote_reason == "STATE_CONFLICT"
    assert "workspace.json" in error.message


async def test_an_update_that_names_nothing_or_empties_what_must_be_said_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        await workspace(channel)
        skills = Skills(channel)
        asked = skill_service_pb2.CreateSkillRequest(workspace="desk", skill_id="carry", skill=skill_pb2.Skill(description="d"))
        await skills.CreateSkill(asked)
        for mask in ([], ["description"]):
            request = skill_service_pb2.UpdateSkillRequest(
                workspace="desk", skill_id="carry", skill=skill_pb2.Skill(), update_mask=FieldMask(paths=mask)
            )
            assert (await refused(skills.UpdateSkill(request))).remote_reason == "INVALID_REQUEST"


async def test_a_page_is_never_larger_than_a_client_takes(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        stub = Approvals(channel)
        for _ in range(40):
            asked = question()
            asked.subject_json = '{"x":"' + "y" * 65_000 + '"}'
            await stub.RequestApproval(asked)
        request, found = approval_service_pb2.ListApprovalsRequest(page_size=500), set[str]()
        while True:
            page = await stub.ListApprovals(request)
            assert page.ByteSize() < 2_000_000
            found |= {one.approval_id for one in page.approvals}
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
    assert len(found) == 40


async def test_a_watch_ends_with_a_word_as_soon_as_the_service_drains(tmp_path: Path) -> None:
    settings = AgentSettings(workspaces_dir=tmp_path)
    assembly = await assemble(settings)
    server = MeshServer(settings, assembly.registrations, listen="127.0.0.1:0", readiness=assembly.readiness)
    server.drain_hooks += assembly.drain_hooks
    await server.start()
    async with grpc.aio.insecure_channel(server.target) as channel:
        stream = Approvals(channel).WatchApprovals(approval_service_pb2.WatchApprovalsRequest())
        watching = asyncio.create_task(watched(stream, lambda seen: seen[-1].HasField("end")))
        await asyncio.wait({watching}, timeout=0.2)
        # Neither the grace nor the next checkpoint is waited for.
        await asyncio.wait_for(server.stop(drain_delay_s=0.0, grace_s=60.0), 3)
        seen = await watching
    assert seen[-1].end.retry_after.seconds == 1
    for close in assembly.closers:
        await close()


async def test_pages_hold_every_workspace_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        for number in range(7):
            await workspace(channel, f"desk-{number}")
        request = workspace_service_pb2.ListWorkspacesRequest(page_size=3)
        names = list[str]()
        while True:
            page = await Workspaces(channel).ListWorkspaces(request)
            names += [one.workspace_id for one in page.workspaces]
            assert len(page.workspaces) <= 3
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert names == [f"desk-{number}" for number in range(7)]
        request.page_token = "x" + page.next_page_token
        assert (await refused(Workspaces(channel).ListWorkspaces(request))).remote_reason == "PAGE_TOKEN_INVALID"


async def test_agents_and_skills_live_in_their_workspace(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        skills, agents = Skills(channel), Agents(channel)
        asked = skill_service_pb2.CreateSkillRequest(
            workspace="desk", skill_id="carry", skill=skill_pb2.Skill(description="what it is for", instructions="# do this")
        )
        assert (await refused(skills.CreateSkill(asked))).remote_reason == "RESOURCE_NOT_FOUND"
        await workspace(channel)
        skill = (await skills.CreateSkill(asked)).skill
        assert skill.content_sha256.startswith("sha256:")
        agent = (
            await agents.CreateAgent(
                agent_service_pb2.CreateAgentRequest(
                    workspace="desk",
                    agent_id="analyst",
                    agent=agent_pb2.Agent(role=words.AGENT_ROLE_TECHNICAL_ANALYST, skills=["momentum"], profile="calm"),
                )
            )
        ).agent
        found = (await agents.GetAgent(agent_service_pb2.GetAgentRequest(workspace="desk", agent_id="analyst"))).agent
        assert found == agent
        assert [one.agent_id for one in (await agents.ListAgents(agent_service_pb2.ListAgentsRequest(workspace="desk"))).agents] == [
            "analyst"
        ]
        assert [one.skill_id for one in (await skills.ListSkills(skill_service_pb2.ListSkillsRequest(workspace="desk"))).skills] == [
            "carry"
        ]
        await agents.DeleteAgent(agent_service_pb2.DeleteAgentRequest(workspace="desk", agent_id="analyst", etag=agent.etag))
        gone = agents.GetAgent(agent_service_pb2.GetAgentRequest(workspace="desk", agent_id="analyst"))
        assert (await refused(gone)).remote_reason == "RESOURCE_NOT_FOUND"
        stale = skills.DeleteSkill(skill_service_pb2.DeleteSkillRequest(workspace="desk", skill_id="carry", etag="stale"))
        assert (await refused(stale)).remote_reason == "ETAG_MISMATCH"


SUBJECT = '{"ticker":"AAPL"}'
SUBJECT_SHA256 = hashlib.sha256(SUBJECT.encode()).hexdigest()


def question(run_id: str = "demo", ttl_s: int = 60, approval_id: str = "") -> approval_service_pb2.RequestApprovalRequest:
    return approval_service_pb2.RequestApprovalRequest(
        approval_id=approval_id or str(uuid.uuid4()),
        run_id=run_id,
        title="buy 5 AAPL",
        subject_json=SUBJECT,
        ttl=Duration(seconds=ttl_s),
    )


def answer(approval_id: str, approve: bool, who: str) -> approval_service_pb2.DecideApprovalRequest:
    return approval_service_pb2.DecideApprovalRequest(
        approval_id=approval_id, approve=approve, decided_by=who, reason="because", subject_sha256=SUBJECT_SHA256
    )


async def test_the_first_decision_wins_and_the_others_are_told_whose_it_was(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        stub = Approvals(channel)
        asked = question()
        await stub.RequestApproval(asked)
        calls = [stub.DecideApproval(answer(asked.approval_id, number % 2 == 0, f"person {number}")) for number in range(20)]
        outcomes = await asyncio.gather(*(call for call in calls), return_exceptions=True)
        winners = [outcome.approval for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert len(winners) == 1
        for outcome in outcomes:
            if isinstance(outcome, grpc.aio.AioRpcError):
                error = error_of(outcome)
                assert error.remote_reason == "APPROVAL_SETTLED"
                assert error.metadata["decided_by"] == winners[0].decided_by
    async with serving(tmp_path) as channel:
        kept = await Approvals(channel).GetApproval(approval_service_pb2.GetApprovalRequest(approval_id=asked.approval_id))
        assert kept.approval == winners[0]


async def test_asking_again_is_the_same_approval(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        stub = Approvals(channel)
        asked = question()
        first = (await stub.RequestApproval(asked)).approval
        assert (await stub.RequestApproval(asked)).approval == first
        other = question(approval_id=asked.approval_id)
        other.subject_json = '{"ticker":"MSFT"}'
        assert (await refused(stub.RequestApproval(other))).remote_code is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_approval_that_nobody_answers_expires(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        stub = Approvals(channel)
        asked = question(ttl_s=1)
        await stub.RequestApproval(asked)
        request = approval_service_pb2.GetApprovalRequest(approval_id=asked.approval_id)
        approval = (await stub.GetApproval(request)).approval
        deadline = asyncio.get_running_loop().time() + 10
        while approval.state != approval_service_pb2.APPROVAL_STATE_EXPIRED and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
            approval = (await stub.GetApproval(request)).approval
        assert approval.state == approval_service_pb2.APPROVAL_STATE_EXPIRED
        assert approval.decided_by == ""
        assert (await refused(stub.DecideApproval(answer(asked.approval_id, True, "late")))).remote_reason == "APPROVAL_SETTLED"


async def watched(stream: Any, enough: Callable[[list[Any]], bool]) -> list[Any]:
    """Messages of a watch until there are enough of them."""
    seen = list[Any]()
    async with asyncio.timeout(10):
        async for message in stream:
            seen.append(message)
            if enough(seen):
                stream.cancel()
                return seen
    raise AssertionError("the watch ended")


async def test_a_watcher_sees_what_is_and_then_every_change(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        stub = Approvals(channel)
        before = question()
        await stub.RequestApproval(before)
        stream = stub.WatchApprovals(approval_service_pb2.WatchApprovalsRequest(run_id="demo"))
        first = await asyncio.wait_for(anext(aiter(stream)), 10)
        assert first.approval.approval_id == before.approval_id
        await stub.RequestApproval(question(run_id="another"))
        await stub.DecideApproval(answer(before.approval_id, False, "ann"))
        seen = await watched(stream, lambda seen: seen[-1].approval.state == approval_service_pb2.APPROVAL_STATE_DENIED)
        assert {one.approval.run_id for one in seen if one.HasField("approval")} == {"demo"}


async def test_approvals_are_listed_by_state_in_pages(tmp_path: Path) -> None:
    async with serving(tmp_path) as channel:
        stub = Approvals(channel)
        asked = [question() for _ in range(5)]
        for one in asked:
            await stub.RequestApproval(one)
        await stub.DecideApproval(answer(asked[0].approval_id, True, "ann"))
        request = approval_service_pb2.ListApprovalsRequest(run_id="demo", state=approval_service_pb2.APPROVAL_STATE_PENDING, page_size=3)
        page = await stub.ListApprovals(request)
        request.page_token = page.next_page_token
        more = await stub.ListApprovals(request)
        found = [one.approval_id for one in [*page.approvals, *more.approvals]]
        assert sorted(found) == sorted(one.approval_id for one in asked[1:])
