"""The contracts as they are served: every method is found by reflection, refuses what breaks its contract, and has an error that says why."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from descriptors import methods, services
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2
from mesh_processes import Mesh
from violations import Violation, violations_in

pytestmark = pytest.mark.timeout(120)

NOBODY = {"run_id": "nobody"}
MOON = {"set": "moon", "as_of": "2008-09-15T21:00:00Z"}
IN_NO_WORKSPACE = {"workspace": "nobody"}
MASK = {"update_mask": "description"}
WRONG = {"generation": 1, "nonce": "not the gateway's own"}
NOT_A_TOKEN = {"page_token": "x"}

# For every method a request that its contract allows, and the reason for which it is refused all the same.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "agent.v1.WorkspaceService.CreateWorkspace": ({"workspace_id": "twice", "workspace": {}}, "RESOURCE_ALREADY_EXISTS"),
    "agent.v1.WorkspaceService.GetWorkspace": ({"workspace_id": "nobody"}, "RESOURCE_NOT_FOUND"),
    "agent.v1.WorkspaceService.ListWorkspaces": (NOT_A_TOKEN, "PAGE_TOKEN_INVALID"),
    "agent.v1.WorkspaceService.UpdateWorkspace": ({"workspace_id": "nobody", "workspace": {}, **MASK}, "RESOURCE_NOT_FOUND"),
    "agent.v1.WorkspaceService.DeleteWorkspace": ({"workspace_id": "nobody"}, "RESOURCE_NOT_FOUND"),
    "agent.v1.AgentService.CreateAgent": (
        {**IN_NO_WORKSPACE, "agent_id": "a", "agent": {"role": "AGENT_ROLE_RISK_MANAGER"}},
        "RESOURCE_NOT_FOUND",
    ),
    "agent.v1.AgentService.GetAgent": ({**IN_NO_WORKSPACE, "agent_id": "a"}, "RESOURCE_NOT_FOUND"),
    "agent.v1.AgentService.ListAgents": (IN_NO_WORKSPACE, "RESOURCE_NOT_FOUND"),
    "agent.v1.AgentService.UpdateAgent": (
        {**IN_NO_WORKSPACE, "agent_id": "a", "agent": {}, "update_mask": "profile"},
        "RESOURCE_NOT_FOUND",
    ),
    "agent.v1.AgentService.DeleteAgent": ({**IN_NO_WORKSPACE, "agent_id": "a"}, "RESOURCE_NOT_FOUND"),
    "agent.v1.SkillService.CreateSkill": ({**IN_NO_WORKSPACE, "skill_id": "s", "skill": {"description": "d"}}, "RESOURCE_NOT_FOUND"),
    "agent.v1.SkillService.GetSkill": ({**IN_NO_WORKSPACE, "skill_id": "s"}, "RESOURCE_NOT_FOUND"),
    "agent.v1.SkillService.ListSkills": (IN_NO_WORKSPACE, "RESOURCE_NOT_FOUND"),
    "agent.v1.SkillService.UpdateSkill": (
        {**IN_NO_WORKSPACE, "skill_id": "s", "skill": {"description": "d"}, **MASK},
        "RESOURCE_NOT_FOUND",
    ),
    "agent.v1.SkillService.DeleteSkill": ({**IN_NO_WORKSPACE, "skill_id": "s"}, "RESOURCE_NOT_FOUND"),
    "agent.v1.ApprovalService.RequestApproval": (
        {"approval_id": str(uuid.UUID(int=7, version=4)), "run_id": "other", "title": "t", "subject_json": "{}", "ttl": "60s"},
        "REQUEST_ID_REUSED",
    ),
    "agent.v1.ApprovalService.GetApproval": ({"approval_id": str(uuid.UUID(int=8, version=4))}, "RESOURCE_NOT_FOUND"),
    "agent.v1.ApprovalService.ListApprovals": (NOT_A_TOKEN, "PAGE_TOKEN_INVALID"),
    "agent.v1.ApprovalService.WatchApprovals": ({"run_id": "NO RUN"}, "INVALID_REQUEST"),
    "agent.v1.ApprovalService.DecideApproval": (
        {"approval_id": str(uuid.UUID(int=8, version=4)), "decided_by": "ann", "subject_sha256": "0" * 64},
        "RESOURCE_NOT_FOUND",
    ),
    "runtime.v1.RuntimeService.StartRun": ({"config": {"data": {"set": "moon"}}}, "RUN_CONFIG_INVALID"),
    "runtime.v1.RuntimeService.StopRun": (NOBODY, "RESOURCE_NOT_FOUND"),
    "runtime.v1.RuntimeService.RestartRun": (NOBODY, "RESOURCE_NOT_FOUND"),
    "runtime.v1.RuntimeService.DeleteRun": (NOBODY, "RESOURCE_NOT_FOUND"),
    "runtime.v1.RuntimeService.GetRunSnapshot": (NOBODY, "RESOURCE_NOT_FOUND"),
    "runtime.v1.RuntimeService.ListRunSnapshots": (NOBODY, "RESOURCE_NOT_FOUND"),
    "runtime.v1.RuntimeService.GetRunManifest": (NOBODY, "RESOURCE_NOT_FOUND"),
    "runtime.v1.RuntimeService.GetRun": (NOBODY, "RESOURCE_NOT_FOUND"),
    "runtime.v1.RuntimeService.ListRuns": (NOT_A_TOKEN, "PAGE_TOKEN_INVALID"),
    "runtime.v1.RuntimeService.WatchRuns": (NOBODY, "RESOURCE_NOT_FOUND"),
    "runtime.v1.RuntimeService.TailLogs": (NOBODY, "RESOURCE_NOT_FOUND"),
    "trading.v1.MarketDataService.ListInstruments": ({"set": "moon"}, "DATA_ABSENT"),
    "trading.v1.MarketDataService.ListSessions": ({"set": "moon"}, "DATA_ABSENT"),
    "trading.v1.MarketDataService.GetInstrument": ({"set": "us20", "ticker": "TSLA"}, "DATA_ABSENT"),
    "trading.v1.MarketDataService.ListCorporateActions": (MOON, "DATA_ABSENT"),
    "trading.v1.MarketDataService.ListFundamentals": ({**MOON, "set": "us20"}, "DATA_ABSENT"),
    "trading.v1.MarketDataService.ListInsiderTrades": ({**MOON, "set": "us20"}, "DATA_ABSENT"),
    "trading.v1.MarketDataService.ListBars": (MOON, "DATA_ABSENT"),
    "trading.v1.MarketDataService.StreamBars": (MOON, "DATA_ABSENT"),
    "trading.v1.MarketDataService.GetQuotes": ({"tickers": ["AAPL"]}, "NOT_CONFIGURED"),
    "trading.v1.MarketDataService.StreamQuotes": ({"tickers": ["AAPL"]}, "NOT_CONFIGURED"),
    "trading.v1.PortfolioService.GetPortfolio": (NOBODY, "RESOURCE_NOT_FOUND"),
    "trading.v1.PortfolioService.ListPositions": (NOBODY, "RESOURCE_NOT_FOUND"),
    "trading.v1.PortfolioService.ListOrders": (NOBODY, "RESOURCE_NOT_FOUND"),
    "trading.v1.PortfolioService.ListFills": (NOBODY, "RESOURCE_NOT_FOUND"),
    "trading.v1.PortfolioService.ListEquity": (NOBODY, "RESOURCE_NOT_FOUND"),
    "trading.v1.PortfolioService.GetPerformance": (NOBODY, "RESOURCE_NOT_FOUND"),
    "trading.v1.PortfolioService.GetLeaderboard": (NOBODY, "RESOURCE_NOT_FOUND"),
    "trading.v1.PortfolioService.CompareRuns": ({"run_ids": ["nobody", "nobody-else"]}, "RESOURCE_NOT_FOUND"),
    "news.v1.NewsService.ListNews": (MOON, "DATA_ABSENT"),
    "news.v1.NewsService.GetNewsItem": ({**MOON, "news_id": "n"}, "DATA_ABSENT"),
    "news.v1.NewsService.SearchNews": ({**MOON, "query": "moon"}, "DATA_ABSENT"),
    "news.v1.NewsService.StreamNews": ({"set": "moon"}, "DATA_ABSENT"),
    "news.v1.NewsService.ListSentiment": (MOON, "DATA_ABSENT"),
    "news.v1.ExplainService.ExplainMove": ({**MOON, "ticker": "AAPL", "start": "2008-09-15"}, "DATA_ABSENT"),
    "gateway.v1.PipelineService.StartPipeline": (NOBODY, "RESOURCE_NOT_FOUND"),
    "gateway.v1.PipelineService.PausePipeline": (NOBODY, "RESOURCE_NOT_FOUND"),
    "gateway.v1.PipelineService.ResumePipeline": (NOBODY, "RESOURCE_NOT_FOUND"),
    "gateway.v1.PipelineService.StepPipeline": ({**NOBODY, "size": "STEP_SIZE_PHASE"}, "RESOURCE_NOT_FOUND"),
    "gateway.v1.PipelineService.StopPipeline": (NOBODY, "RESOURCE_NOT_FOUND"),
    "gateway.v1.PipelineService.WatchPipeline": (NOBODY, "RESOURCE_NOT_FOUND"),
    "gateway.v1.PipelineService.GetPipeline": (NOBODY, "RESOURCE_NOT_FOUND"),
    "gateway.v1.PipelineService.SetPace": (NOBODY, "RESOURCE_NOT_FOUND"),
    "gateway.v1.PipelineService.SubmitOrder": (NOBODY | {"ticker": "AAPL", "side": 1, "quantity": 1}, "RESOURCE_NOT_FOUND"),
    "gateway.v1.PipelineService.CancelOrder": (NOBODY | {"order_id": "nothing"}, "RESOURCE_NOT_FOUND"),
    "gateway.v1.PipelineService.SendMessage": ({**NOBODY, "text": "why?"}, "RESOURCE_NOT_FOUND"),
    "gateway.v1.FeedService.Subscribe": (NOBODY, "RESOURCE_NOT_FOUND"),
    "gateway.v1.FeedService.ListEvents": (NOBODY, "RESOURCE_NOT_FOUND"),
    "gateway.v1.FeedService.GetSnapshot": (NOBODY, "RESOURCE_NOT_FOUND"),
    "gateway.v1.SupervisionService.Heartbeat": (WRONG, "NOT_ALLOWED"),
    "gateway.v1.SupervisionService.Drain": ({**WRONG, "within": "1s"}, "NOT_ALLOWED"),
}
# A fault of a configuration is its answer: only bytes that are no request are an error.
ANSWERS_EVERYTHING = "runtime.v1.RuntimeService.ValidateRunConfig"


def short(method: MethodDescriptor) -> str:
    return str(method.full_name.removeprefix("trademesh."))


@pytest.fixture(scope="module")
def gateway(mesh: Mesh) -> Iterator[str]:
    """The target of a gateway that has finished its sessions."""
    path = mesh.folder / "contracts.md"
    path.write_text("---\nsessions: {start: 2008-01-02, end: 2008-01-31}\n---\n")
    assert mesh.cli("run", "start", str(path), "--run-id", "contracts").returncode == 0
    mesh.summary("contracts")
    yield str(mesh.json("run", "show", "contracts")["run"]["target"])
    mesh.cli("run", "stop", "contracts")


@pytest.fixture(scope="module")
def targets(mesh: Mesh, gateway: str) -> dict[str, str]:
    """Where the services of each package are served."""
    return {name: f"127.0.0.1:{mesh.ports[name]}" for name in ("agent", "trading", "news", "runtime")} | {"gateway": gateway}


@pytest.fixture(scope="module", autouse=True)
def what_is_there_already(targets: dict[str, str]) -> None:
    for name, request in (
        ("agent.v1.WorkspaceService.CreateWorkspace", {"workspace_id": "twice", "workspace": {}}),
        (
            "agent.v1.ApprovalService.RequestApproval",
            {**REFUSED["agent.v1.ApprovalService.RequestApproval"][0], "run_id": "first"},
        ),
    ):
        method = next(method for method in methods() if short(method) == name)
        with grpc.insecure_channel(targets["agent"]) as channel:
            channel.unary_unary(path_of(method))(made(method, request).SerializeToString(), timeout=10)


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def made(method: MethodDescriptor, request: dict[str, Any]) -> Message:
    message: Message = message_factory.GetMessageClass(method.input_type)()
    ParseDict(request, message)
    return message


def error_of(target: str, method: MethodDescriptor, request: bytes) -> tuple[status_pb2.Status, error_details_pb2.ErrorInfo]:
    """How a call ends that must fail: its status, and the one ErrorInfo in it."""
    with grpc.insecure_channel(target) as channel:
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        with pytest.raises(grpc.RpcError) as caught:
            list(make(path_of(method))(request, timeout=10))
        call: Any = caught.value
        raw = dict(call.trailing_metadata()).get("grpc-status-details-bin")
        assert isinstance(raw, bytes), (call.code(), call.details())
    status = status_pb2.Status.FromString(raw)
    infos = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    info = error_details_pb2.ErrorInfo()
    infos[0].Unpack(info)
    return status, info


def package_of(method: MethodDescriptor) -> str:
    return short(method).partition(".")[0]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("service", services(), ids=lambda service: service.full_name)
def test_every_method_is_found_by_reflection(targets: dict[str, str], service: Any, version: str) -> None:
    target = targets[service.full_name.split(".")[1]]
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=service.full_name)
    with grpc.insecure_channel(target) as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        (answer,) = list(call(iter([request]), timeout=10))
    files = [FileDescriptorProto.FromString(raw) for raw in answer.file_descriptor_response.file_descriptor_proto]
    found = {
        f"{file.package}.{one.name}.{method.name}": (method.input_type, method.output_type, method.server_streaming)
        for file in files
        for one in file.service
        for method in one.method
    }
    for method in service.methods:
        assert found[method.full_name] == (
            f".{method.input_type.full_name}",
            f".{method.output_type.full_name}",
            method.server_streaming,
        )


@pytest.mark.parametrize("method", methods(), ids=short)
def test_every_violation_of_a_request_is_refused_by_its_server(targets: dict[str, str], method: MethodDescriptor) -> None:
    violations: list[Violation] = list(violations_in(method.input_type))
    for violation in violations:
        status, info = error_of(targets[package_of(method)], method, violation.instance().SerializeToString())
        assert (status.code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "INVALID_REQUEST"), str(violation)
        bad_request = error_details_pb2.BadRequest()
        assert any(detail.Unpack(bad_request) for detail in status.details), str(violation)
        named = [one.field for one in bad_request.field_violations]
        assert any(re.match(rf"{violation.field.name}\b", field) for field in named), (str(violation), named)


@pytest.mark.parametrize("method", methods(), ids=short)
def test_every_method_refuses_with_a_reason_that_fits(targets: dict[str, str], method: MethodDescriptor) -> None:
    if short(method) == ANSWERS_EVERYTHING:
        request, reason = b"\xff\xff", "INVALID_REQUEST"
    else:
        content, reason = REFUSED[short(method)]
        request = made(method, content).SerializeToString()
    assert error_of(targets[package_of(method)], method, request)[1].reason == reason


def test_the_table_of_errors_knows_no_method_that_is_not_there() -> None:
    assert set(REFUSED) | {ANSWERS_EVERYTHING} == {short(method) for method in methods()}
