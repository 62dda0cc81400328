"""The methods that a browser may call, and where each goes. Anything else, SupervisionService above all, is refused.

The list is checked against the generated descriptors at import: a misspelt name fails at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from trademesh.agent.v1 import agent_service_pb2, approval_service_pb2, skill_service_pb2, workspace_service_pb2
from trademesh.gateway.v1 import feed_service_pb2, pipeline_service_pb2
from trademesh.news.v1 import explain_service_pb2, news_service_pb2
from trademesh.runtime.v1 import runtime_service_pb2
from trademesh.trading.v1 import market_data_service_pb2, portfolio_service_pb2
from trademesh_kernel.errors import FieldViolation, InvalidRequest

SUBSCRIBE = "/trademesh.gateway.v1.FeedService/Subscribe"
"""The one method that the edge understands."""


class Destination(Enum):
    """Who answers a method."""

    RUNTIME = "runtime"
    TRADING = "trading"
    NEWS = "news"
    AGENT = "agent"
    RUN_GATEWAY = "run gateway"
    """The gateway of the run that the request names."""
    RUN_FEED = "run feed"
    """Whoever serves that run's feed now: its gateway, or trading_service."""


@dataclass(frozen=True)
class AllowedMethod:
    """A method that browsers may call."""

    name: str
    destination: Destination
    server_streaming: bool
    request_class: type[Any]
    response_class: type[Any]

    def run_id_of(self, request: bytes) -> str:
        """The run that a request names.

        Raises:
            InvalidRequest: the request is not the method's message, or names no run.
        """
        try:
            run_id = self.request_class.FromString(request).run_id
        except DecodeError:
            raise InvalidRequest([FieldViolation("request", f"is not a {self.request_class.DESCRIPTOR.full_name}")]) from None
        if not run_id:
            raise InvalidRequest([FieldViolation("run_id", "must name a run")])
        return str(run_id)


_ALLOWED: tuple[tuple[Any, str, Destination, tuple[str, ...]], ...] = (
    (
        runtime_service_pb2,
        "RuntimeService",
        Destination.RUNTIME,
        (
            "StartRun",
            "StopRun",
            "RestartRun",
            "GetRun",
            "ListRuns",
            "WatchRuns",
            "ValidateRunConfig",
            "TailLogs",
            "GetRunSnapshot",
            "ListRunSnapshots",
            "GetRunManifest",
        ),
    ),
    (
        pipeline_service_pb2,
        "PipelineService",
        Destination.RUN_GATEWAY,
        (
            "StartPipeline",
            "PausePipeline",
            "ResumePipeline",
            "StepPipeline",
            "StopPipeline",
            "GetPipeline",
            "WatchPipeline",
            "SetPace",
            "SubmitOrder",
            "CancelOrder",
            "SendMessage",
        ),
    ),
    (feed_service_pb2, "FeedService", Destination.RUN_FEED, ("Subscribe", "ListEvents", "GetSnapshot")),
    (
        market_data_service_pb2,
        "MarketDataService",
        Destination.TRADING,
        (
            "ListInstruments",
            "GetInstrument",
            "ListSessions",
            "ListCorporateActions",
            "ListFundamentals",
            "ListInsiderTrades",
            "ListBars",
            "StreamBars",
            "GetQuotes",
            "StreamQuotes",
        ),
    ),
    (
        portfolio_service_pb2,
        "PortfolioService",
        Destination.TRADING,
        ("GetPortfolio", "ListPositions", "ListOrders", "ListFills", "ListEquity", "GetPerformance", "GetLeaderboard", "CompareRuns"),
    ),
    (
        news_service_pb2,
        "NewsService",
        Destination.NEWS,
        ("ListNews", "GetNewsItem", "SearchNews", "StreamNews", "ListSentiment"),
    ),
    (explain_service_pb2, "ExplainService", Destination.NEWS, ("ExplainMove",)),
    (workspace_service_pb2, "WorkspaceService", Destination.AGENT, ("GetWorkspace", "ListWorkspaces")),
    (agent_service_pb2, "AgentService", Destination.AGENT, ("GetAgent", "ListAgents")),
    (skill_service_pb2, "SkillService", Destination.AGENT, ("GetSkill", "ListSkills")),
    (approval_service_pb2, "ApprovalService", Destination.AGENT, ("GetApproval", "ListApprovals", "WatchApprovals", "DecideApproval")),
)


def _methods() -> dict[str, AllowedMethod]:
    methods = dict[str, AllowedMethod]()
    for module, service_name, destination, names in _ALLOWED:
        service = module.DESCRIPTOR.services_by_name[service_name]
        for name in names:
            descriptor = service.methods_by_name[name]
            full_name = f"/{service.full_name}/{name}"
            request_class = message_factory.GetMessageClass(descriptor.input_type)
            response_class = message_factory.GetMessageClass(descriptor.output_type)
            methods[full_name] = AllowedMethod(full_name, destination, bool(descriptor.server_streaming), request_class, response_class)
    return methods


ALLOWED_METHODS = _methods()
"""By full gRPC name."""
