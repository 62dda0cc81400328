"""The page in a real browser: what it shows is what the mesh says, and it comes back without a gap."""

from __future__ import annotations

import os
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from mesh_processes import Mesh, wait_until
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must have no error in its console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    errors = list[str]()
    found.on("pageerror", lambda error: errors.append(str(error)))
    yield found
    context.close()
    assert errors == []


def start(mesh: Mesh, run_id: str, pace: int, end: str = "2010-06-01") -> None:
    path = mesh.folder / f"{run_id}.md"
    path.write_text(f"---\nsessions: {{start: 2007-06-01, end: {end}}}\n---\n")
    outcome = mesh.cli("run", "start", str(path), "--run-id", run_id, "--pace", str(pace), "--wait")
    assert outcome.returncode == 0, outcome.stderr


def points(page: Page) -> int:
    return int(page.get_by_test_id("equity").get_attribute("data-points") or 0)


def newest(page: Page) -> int:
    return int(page.get_by_test_id("event-row").first.get_attribute("data-sequence") or 0)


def address(mesh: Mesh, path: str = "") -> str:
    return f"http://127.0.0.1:{mesh.ports['edge']}/{path}"


def test_the_page_is_served_with_its_policy(mesh: Mesh) -> None:
    with urllib.request.urlopen(address(mesh), timeout=10) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
        etag = answer.headers["ETag"]
    with pytest.raises(urllib.error.HTTPError) as same:
        urllib.request.urlopen(urllib.request.Request(address(mesh), headers={"If-None-Match": etag}), timeout=10)
    same.value.close()
    assert same.value.code == 304
    with pytest.raises(urllib.error.HTTPError) as absent:
        urllib.request.urlopen(address(mesh, "../pyproject.toml"), timeout=10)
    absent.value.close()
    assert absent.value.code == 404


def test_the_curve_moves_and_survives_a_reload_a_dead_gateway_and_a_dead_edge(mesh: Mesh, page: Page) -> None:
    start(mesh, "on-the-page", 30)
    page.goto(address(mesh, "#/runs/on-the-page"))
    expect(page.get_by_test_id("connection")).to_have_text("connected")
    expect(page.get_by_test_id("pipeline-state")).to_have_text("running")
    before = wait_until(lambda: points(page) > 20 and points(page), 30, "a curve")
    wait_until(lambda: points(page) > before, 30, "a curve that moves")

    page.reload()
    wait_until(lambda: points(page) > before, 30, "the whole curve after a reload")

    before = points(page)
    os.kill(int(mesh.json("run", "show", "on-the-page")["run"]["pid"]), signal.SIGKILL)
    source = page.get_by_test_id("feed-source")
    expect(source).to_contain_text("lost", timeout=10_000)
    expect(source).to_have_text("", timeout=30_000)
    wait_until(lambda: points(page) > before + 40, 60, "the curve after the gateway's death")
    expect(page.get_by_test_id("run-state")).to_contain_text("restarted 1 time")

    before = points(page)
    mesh.processes["edge"].kill()
    mesh.processes["edge"].wait(10)
    expect(page.get_by_test_id("connection")).not_to_have_text("connected")
    mesh.start("edge")
    wait_until(lambda: points(page) > before + 40, 60, "the curve after the edge's death")
    expect(page.get_by_test_id("connection")).to_have_text("connected")
    expect(page.get_by_test_id("feed-trouble")).to_have_text("")
    shown = page.get_by_test_id("nav")
    settled = int(mesh.json("run", "show", "on-the-page")["run"]["progress"]["sessions_settled"])
    wait_until(lambda: points(page) >= settled, 20, "as many points as sessions")
    assert int(shown.get_attribute("data-micros") or 0) > 0
    mesh.cli("run", "stop", "on-the-page")


def test_an_edge_that_falls_silent_is_noticed_and_found_again(mesh: Mesh, page: Page) -> None:
    page.goto(address(mesh))
    badge = page.get_by_test_id("connection")
    expect(badge).to_have_text("connected")
    mesh.processes["edge"].send_signal(signal.SIGSTOP)
    try:
        expect(badge).not_to_have_text("connected", timeout=30_000)
    finally:
        mesh.processes["edge"].send_signal(signal.SIGCONT)
    expect(badge).to_have_text("connected", timeout=30_000)


def test_without_a_name_the_newest_run_is_shown(mesh: Mesh, page: Page) -> None:
    for name in ("newest-but-one", "newest"):
        start(mesh, name, 1, end="2007-06-30")
    page.goto(address(mesh))
    expect(page.locator("h1")).to_have_text("newest")
    for name in ("newest-but-one", "newest"):
        mesh.cli("run", "stop", name)


def test_the_buttons_pause_step_and_resume(mesh: Mesh, page: Page) -> None:
    start(mesh, "with-buttons", 20)
    page.goto(address(mesh, "#/runs/with-buttons"))
    state = page.get_by_test_id("pipeline-state")
    expect(state).to_have_text("running")
    page.get_by_role("button", name="Pause").click()
    expect(state).to_have_text("paused")
    settled = wait_until(lambda: points(page), 20, "some sessions")
    page.get_by_role("button", name="Step one session").click()
    wait_until(lambda: points(page) > settled, 20, "one session more")
    page.get_by_test_id("pace").select_option("100")
    page.get_by_role("button", name="Resume").click()
    expect(state).to_have_text("running")
    wait_until(lambda: points(page) > settled + 60, 20, "many sessions more")
    mesh.cli("run", "stop", "with-buttons")


def test_page_command_line_and_grpcurl_show_the_same_net_asset_value(mesh: Mesh, page: Page) -> None:
    start(mesh, "one-truth", 0, end="2007-12-31")
    summary = mesh.summary("one-truth")
    page.goto(address(mesh, "#/runs/one-truth"))
    expect(page.get_by_test_id("pipeline-state")).to_have_text("finished")
    nav = page.get_by_test_id("nav")
    sequence = int(nav.get_attribute("data-sequence") or 0)
    shown = mesh.json("run", "show", "one-truth")["run"]
    answer = mesh.grpcurl(shown["target"], "trademesh.gateway.v1.FeedService/GetSnapshot", {"run_id": "one-truth", "at_sequence": sequence})
    account = mesh.grpcurl(
        "trading", "trademesh.trading.v1.PortfolioService/GetPortfolio", {"run_id": "one-truth", "at_sequence": sequence}
    )
    figures = {nav.get_attribute("data-micros"), answer["state"]["navMicros"], account["navMicros"], shown["progress"]["nav_micros"]}
    assert figures == {summary["final_nav_micros"]}
    assert page.get_by_test_id("positions").locator("tr").count() == len(answer["state"]["portfolio"]["positions"])
    mesh.cli("run", "stop", "one-truth")
    page.reload()
    wait_until(lambda: nav.get_attribute("data-micros") == summary["final_nav_micros"], 30, "the finished run from its journal")


def test_an_event_tells_its_reasons(mesh: Mesh, page: Page) -> None:
    start(mesh, "with-reasons", 0, end="2007-09-30")
    mesh.summary("with-reasons")
    page.goto(address(mesh, "#/runs/with-reasons"))
    decision = page.locator("[data-kind=decisions]").first
    decision.locator("summary").click()
    expect(decision.locator("li").first).to_contain_text("score")
    rows = page.get_by_test_id("event-row")
    sequences = [int(value) for value in rows.evaluate_all("rows => rows.map(row => row.dataset.sequence)")]
    assert sequences == sorted(sequences, reverse=True)
    assert sequences[0] == newest(page)
    mesh.cli("run", "stop", "with-reasons")


def test_a_person_asks_the_agents_and_reads_their_answers_as_text(mesh: Mesh, page: Page) -> None:
    start(mesh, "asked-on-the-page", 0, end="2007-09-30")
    mesh.summary("asked-on-the-page")
    page.goto(address(mesh, "#/runs/asked-on-the-page"))
    field = page.get_by_test_id("say")
    field.fill("why <b>GE</b>? " + "x" * 200)
    page.get_by_role("button", name="Ask").click()
    asked = page.locator("[data-kind=messageSent]")
    expect(asked).to_contain_text("a person on the page")
    expect(asked.locator(".what")).to_contain_text("to fundamentals analyst, technical analyst")
    expect(asked.locator(".what")).to_contain_text("why <b>GE</b>? xx")
    expect(asked.locator("b")).to_have_count(0)
    asked.locator("summary").click()
    expect(asked.locator("li")).to_contain_text("x" * 200)
    answers = page.locator("[data-kind=messageAnswered]")
    expect(answers).to_have_count(6)
    expect(answers.filter(has_text="portfolio manager").locator(".what")).to_contain_text("2007-09-28: GE: I ")
    expect(field).to_have_value("")
    mesh.cli("run", "stop", "asked-on-the-page")
    expect(page.get_by_role("button", name="Ask")).to_be_disabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window(mesh: Mesh, browser: Browser, scheme: Any, width: int) -> None:
    if "fitting" not in {run["run_id"] for run in mesh.json("run", "list")}:
        start(mesh, "fitting", 0, end="2007-09-30")
        mesh.summary("fitting")
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.goto(address(mesh, "#/runs/fitting"))
        wait_until(lambda: points(page), 20, "a curve")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(14, 19, 24)") == (scheme == "dark")
    finally:
        context.close()
