"""Where runs part, and why."""

from __future__ import annotations

from collections.abc import Sequence

from trademesh.gateway.v1 import event_pb2 as events
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh.trading.v1 import portfolio_service_pb2 as messages
from trademesh_runs.run_config import normalised
from trademesh_trading.run_comparison import RunFacts, divergence, figure_rows, setting_differences

DAYS = ("2008-01-02", "2008-01-03", "2008-01-04")
PLAIN = normalised(RunConfig())


def facts(
    navs: Sequence[int] = (10, 11, 12),
    *,
    config: RunConfig = PLAIN,
    config_sha256: str = "c",
    data_sha256: str = "d",
    quantities: Sequence[int] = (1, 1, 1),
    signals: Sequence[float] = (0.5, 0.5, 0.5),
    approval: str = "",
    approved: bool = True,
    days: Sequence[str] = DAYS,
) -> RunFacts:
    """What is known of a run of a few sessions."""
    found = RunFacts(config)
    started = events.RunStarted(config_sha256=config_sha256, data_sha256=data_sha256, initial_cash_micros=10)
    found.add(events.Event(run_started=started))
    for day, nav, quantity, score in zip(days, navs, quantities, signals, strict=False):
        analyst = events.Event(session_date=day, phase=events.PHASE_ANALYSIS, agent_id="technical_analyst")
        analyst.signals.signals.add(ticker="A", score=score)
        manager = events.Event(session_date=day, phase=events.PHASE_DECISION, agent_id="portfolio_manager")
        manager.decisions.decisions.add(ticker="A", quantity=quantity)
        found.add(analyst)
        found.add(manager)
        if approval:
            asked = events.ApprovalRequested(approval_id=approval)
            answered = events.ApprovalResolved(approval_id=approval, order_id="o", approved=approved)
            found.add(events.Event(session_date=day, phase=events.PHASE_APPROVAL, approval_requested=asked))
            found.add(events.Event(session_date=day, phase=events.PHASE_APPROVAL, approval_resolved=answered))
        settled = events.Settled(nav_micros=nav, portfolio=events.PortfolioState(initial_cash_micros=10))
        found.add(events.Event(session_date=day, phase=events.PHASE_SETTLEMENT, settled=settled))
    return found


def test_two_runs_of_one_configuration_do_not_part() -> None:
    found = divergence("other", facts(), facts())
    assert found == messages.RunDivergence(
        run_id="other", explanation="nothing differs up to 2008-01-04, the last session that both have settled"
    )


def test_names_and_times_of_approvals_are_each_runs_own_and_answers_are_not() -> None:
    assert not divergence("other", facts(approval="one"), facts(approval="two")).first_session
    denied = divergence("other", facts(approval="one"), facts(approval="two", approved=False))
    assert (denied.first_session, denied.first_phase) == (DAYS[0], events.PHASE_APPROVAL)
    assert list(denied.causes) == [messages.DIVERGENCE_CAUSE_DECISIONS]


def test_the_first_difference_is_named_by_session_phase_and_agent() -> None:
    other = facts(navs=(10, 11, 13), quantities=(1, 2, 2), signals=(0.5, 0.25, 0.5))
    found = divergence("other", facts(), other)
    assert (found.first_session, found.first_phase, list(found.agent_ids)) == (DAYS[1], events.PHASE_ANALYSIS, ["technical_analyst"])
    assert (found.first_decisions_session, found.first_nav_session) == (DAYS[1], DAYS[2])
    assert list(found.causes) == [messages.DIVERGENCE_CAUSE_DECISIONS]
    assert found.explanation.endswith("session 2008-01-03, phase ANALYSIS by technical_analyst")


def test_another_configuration_and_other_data_are_causes_with_the_settings_that_differ() -> None:
    config = RunConfig()
    config.CopyFrom(PLAIN)
    config.costs.fee_bp = 10
    config.run_id, config.pipeline.pace_sessions_per_s = "other", 3.0
    other = facts(navs=(10, 11, 13), config=config, config_sha256="e", data_sha256="f")
    found = divergence("other", facts(), other)
    assert list(found.causes) == [messages.DIVERGENCE_CAUSE_CONFIGURATION, messages.DIVERGENCE_CAUSE_DATA]
    assert list(found.configuration) == [messages.SettingDifference(path="costs.fee_bp", first="1", other="10")]
    assert "costs.fee_bp (1, 10)" in found.explanation


def test_settings_without_consequence_are_told_without_a_cause() -> None:
    config = RunConfig(prompt="Be bold.")
    found = divergence("other", facts(), facts(config=normalised(config), config_sha256="e"))
    assert (list(found.causes), [one.path for one in found.configuration]) == ([], ["prompt"])


def test_a_run_that_has_not_come_as_far_does_not_part_there_and_one_that_began_later_does() -> None:
    assert not divergence("other", facts(), facts(navs=(10, 11))).first_session
    assert divergence("other", facts(), facts(navs=())).explanation == "no session is settled in both"
    late = divergence("other", facts(), facts(navs=(11, 12), days=DAYS[1:]))
    assert (late.first_session, late.first_phase, late.first_nav_session) == (DAYS[0], 0, DAYS[0])
    assert "which only one of them has" in late.explanation


def test_at_most_a_hundred_settings_are_told() -> None:
    config = RunConfig()
    for number in range(60):
        config.agents[f"agent-{number}"].enabled = True
        config.agents[f"agent-{number}"].skills.append("s")
    assert len(setting_differences(PLAIN, config)) == 100


def test_figures_stand_side_by_side_with_their_difference_from_the_first() -> None:
    first, other = (
        messages.GetPerformanceResponse(sharpe=1.0, sessions=3),
        messages.GetPerformanceResponse(sharpe=1.5, max_drawdown_sessions=4),
    )
    first.undefined["max_drawdown_sessions"] = "why"
    rows = {row.name: row for row in figure_rows([first, other])}
    assert list(rows["sharpe"].cells) == [messages.FigureCell(value=1.0, difference=0.0), messages.FigureCell(value=1.5, difference=0.5)]
    assert list(rows["max_drawdown_sessions"].cells) == [messages.FigureCell(undefined="why"), messages.FigureCell(value=4.0)]
    assert "as_of_sequence" not in rows
