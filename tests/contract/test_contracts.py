"""The contracts as a whole: everything is said, everything is answered, every constraint holds."""

from __future__ import annotations

import json
import re
from typing import Any

import grpc
import pytest
from descriptors import comments_of_enum, files, messages, methods, services, uncommented
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.rpc import error_details_pb2
from violations import MESSAGE_RULES, Violation, violations_in

from trademesh.common.v1.error_reason_pb2 import ErrorReason
from trademesh_agent.approval_service import ApprovalServicer
from trademesh_agent.registry_services import AgentServicer, SkillServicer, WorkspaceServicer
from trademesh_gateway.pipeline_service import PipelineServicer, SupervisionServicer
from trademesh_kernel import errors
from trademesh_kernel.status import internal_status, status_of
from trademesh_kernel.validation import has_constraints, violations_of
from trademesh_news.explain_service import ExplainServicer
from trademesh_news.news_service import NewsServicer
from trademesh_runs.feed_service import FeedServicer
from trademesh_runtime.runtime_service import RuntimeServicer
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.portfolio_service import PortfolioServicer

SERVICERS = (
    *(AgentServicer, ApprovalServicer, SkillServicer, WorkspaceServicer, RuntimeServicer, MarketDataServicer, PortfolioServicer),
    *(NewsServicer, ExplainServicer, FeedServicer, PipelineServicer, SupervisionServicer),
)
BY_SERVICE: dict[str, type[Any]] = {servicer.__name__.removesuffix("Servicer") + "Service": servicer for servicer in SERVICERS}
VIOLATIONS = [violation for message in messages() for violation in violations_in(message)]
# A request that nothing constrains: a fault of what it holds is its answer.
UNCONSTRAINED = {"ValidateRunConfigRequest"}

EXAMPLES: dict[str, errors.TrademeshError] = {
    "DEPENDENCY_FAILED": errors.RemoteError("not built", remote_code=grpc.StatusCode.UNIMPLEMENTED, remote_reason="UNIMPLEMENTED"),
    "INVALID_REQUEST": errors.InvalidRequest([errors.FieldViolation("a", "b")]),
    "RUN_CONFIG_INVALID": errors.RunConfigInvalid([errors.FieldViolation("a", "b")]),
    "PAGE_TOKEN_INVALID": errors.PageTokenInvalid("ListRuns"),
    "REQUEST_ID_REUSED": errors.RequestIdReused("0b7a"),
    "RESOURCE_NOT_FOUND": errors.NotFound("run", "demo"),
    "DATA_ABSENT": errors.DataAbsent("no", set="us20", ticker="TSLA", what="bars"),
    "RESOURCE_ALREADY_EXISTS": errors.AlreadyExists("run", "demo", "RUNNING"),
    "ETAG_MISMATCH": errors.EtagMismatch("agent", "w/pm", "9f2c"),
    "STATE_CONFLICT": errors.StateConflict("no", resource_type="run", name="demo", state="FAILED"),
    "APPROVAL_SETTLED": errors.ApprovalSettled("a-1", "APPROVED", "ann"),
    "SEQUENCE_AHEAD": errors.SequenceAhead(7, 3),
    "HISTORY_COMPACTED": errors.HistoryCompacted(12, 4096),
    "EPOCH_CHANGED": errors.EpochChanged(2, 1),
    "JOURNAL_UNREADABLE": errors.JournalUnreadable("no", run_id="demo", sequence=7),
    "NOT_ALLOWED": errors.NotAllowed("no", "/x/Y"),
    "LIMIT_REACHED": errors.LimitReached("no", limit="live_gateways", value=32, retry_after_s=5.0),
    "DISK_LOW": errors.DiskLow(100 * 1024 * 1024, 512 * 1024 * 1024),
    "NOT_CONFIGURED": errors.NotConfigured("no", setting="TRADEMESH_FINNHUB_API_KEY"),
    "DEADLINE_EXCEEDED": errors.DeadlinePassed("trading_service"),
    "DEPENDENCY_UNAVAILABLE": errors.DependencyUnavailable("trading_service"),
    "DRAINING": errors.Draining("trading_service"),
}


def test_everything_in_the_contracts_has_a_comment() -> None:
    assert list(uncommented()) == []


@pytest.mark.parametrize("service", services(), ids=lambda service: service.full_name)
def test_every_method_has_a_handler(service: Any) -> None:
    servicer = BY_SERVICE[service.name]
    generated = next(base for base in servicer.__mro__ if base.__module__.endswith("_pb2_grpc"))
    for method in service.methods:
        assert getattr(servicer, method.name) is not getattr(generated, method.name), method.full_name


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
def test_every_request_is_constrained_and_belongs_to_its_method(method: MethodDescriptor) -> None:
    assert method.input_type.name == f"{method.name}Request"
    assert method.output_type.name == f"{method.name}Response"
    if method.input_type.fields and method.input_type.name not in UNCONSTRAINED:
        assert has_constraints(method.input_type), method.input_type.full_name


@pytest.mark.parametrize("violation", VIOLATIONS, ids=str)
def test_every_constraint_is_enforced_and_names_its_field(violation: Violation) -> None:
    found = [one.field for one in violations_of(violation.instance())]
    assert any(re.match(rf"{violation.field.name}\b", path) for path in found), found


def test_no_rule_is_over_a_whole_message() -> None:
    # Violations are made field by field: one of a whole message would need a request of its own here.
    assert not {message.full_name for message in messages() if message.GetOptions().HasExtension(MESSAGE_RULES)}


@pytest.mark.parametrize("value", [name for name in ErrorReason.keys() if not name.endswith("UNSPECIFIED")])  # noqa: SIM118  # a protobuf wrapper
def test_every_reason_shows_a_whole_error_and_is_one_that_we_raise(value: str) -> None:
    comment = comments_of_enum("trademesh.common.v1.ErrorReason")[value]
    shown = json.loads(re.search(r"\{.*\}", comment, re.DOTALL)[0])  # type: ignore[index]  # fails if there is none
    reason = value.removeprefix("ERROR_REASON_")
    assert shown["reason"] == reason
    assert shown["domain"] == "trademesh"
    status = internal_status("4f") if reason == "INTERNAL" else status_of(EXAMPLES[reason])
    assert grpc.StatusCode[re.search(r"Status ([A-Z_]+)", comment)[1]].value[0] == status.code  # type: ignore[index]  # as above
    info = error_details_pb2.ErrorInfo()
    infos = [detail for detail in status.details if detail.Unpack(info)]
    assert len(infos) == 1
    assert (info.reason, info.domain) == (reason, "trademesh")
    assert set(info.metadata) == set(shown.get("metadata", {}))


def test_errors_that_pass_say_when_to_retry() -> None:
    for reason in ("LIMIT_REACHED", "DEPENDENCY_UNAVAILABLE", "DRAINING"):
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status_of(EXAMPLES[reason]).details), reason


def test_a_limit_is_named_as_a_quota() -> None:
    quota = error_details_pb2.QuotaFailure()
    assert any(detail.Unpack(quota) for detail in status_of(EXAMPLES["LIMIT_REACHED"]).details)
    assert [violation.subject for violation in quota.violations] == ["live_gateways"]


@pytest.mark.parametrize("method", [method for method in methods() if method.name.startswith("List")], ids=lambda method: method.full_name)
def test_lists_have_pages(method: MethodDescriptor) -> None:
    if method.name in ("ListInstruments", "ListSessions"):
        return  # Bounded by the set: an answer is whole.
    assert {"page_size", "page_token"} <= {field.name for field in method.input_type.fields}
    assert "next_page_token" in {field.name for field in method.output_type.fields}


@pytest.mark.parametrize("message", list(messages()), ids=lambda message: message.full_name)
def test_amounts_carry_their_unit_and_are_whole(message: Descriptor) -> None:
    for field in message.fields:
        if field.name.endswith("_micros"):
            assert field.cpp_type == field.CPPTYPE_INT64, field.full_name


def test_enums_begin_with_an_unspecified_value() -> None:
    for file in files():
        for enumeration in file.enum_types_by_name.values():
            assert enumeration.values[0].name.endswith("_UNSPECIFIED"), enumeration.full_name
