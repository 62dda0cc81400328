"""Clients that know nothing of our code: grpcurl and buf curl by reflection, and Python generated elsewhere from proto/ alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mesh_processes import SERVICES, Mesh

pytestmark = pytest.mark.timeout(180)
ROOT = Path(__file__).resolve().parents[2]
SERVES = {
    "agent": ("AgentService", "ApprovalService", "SkillService", "WorkspaceService"),
    "trading": ("MarketDataService", "PortfolioService", "gateway.v1.FeedService"),
    "news": ("NewsService", "ExplainService"),
    "runtime": ("RuntimeService",),
}
AS_OF = "2008-09-15T21:00:00Z"
# One call of each service, and what its answer must hold.
CALLS: list[tuple[str, str, dict[str, Any], str]] = [
    ("agent", "trademesh.agent.v1.WorkspaceService/ListWorkspaces", {}, ""),
    ("agent", "trademesh.agent.v1.ApprovalService/ListApprovals", {}, ""),
    ("trading", "trademesh.trading.v1.MarketDataService/ListInstruments", {"set": "us20"}, "sets"),
    ("trading", "trademesh.trading.v1.MarketDataService/ListBars", {"set": "us20", "tickers": ["AAPL"], "as_of": AS_OF}, "bars"),
    # One block, whose columns are varints of one width: readers of other languages must take them.
    ("trading", "trademesh.trading.v1.MarketDataService/StreamBars", {"set": "mock-9@7", "end": "1990-03-30", "as_of": AS_OF}, "block"),
    ("news", "trademesh.news.v1.NewsService/ListNews", {"set": "us20", "as_of": AS_OF}, "items"),
    ("runtime", "trademesh.runtime.v1.RuntimeService/ListRuns", {}, ""),
]


def run(*command: str) -> str:
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


@pytest.fixture(scope="module")
def foreign_run(mesh: Mesh) -> dict[str, Any]:
    """A live run that has finished its sessions."""
    path = mesh.folder / "foreign.md"
    path.write_text("---\nsessions: {start: 2008-01-02, end: 2008-03-31}\n---\n")
    assert mesh.cli("run", "start", str(path), "--run-id", "foreign").returncode == 0
    mesh.summary("foreign")
    found: dict[str, Any] = mesh.json("run", "show", "foreign")["run"]
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_grpcurl_lists_and_describes_every_service(mesh: Mesh, name: str) -> None:
    target = f"127.0.0.1:{mesh.ports[name]}"
    listed = run("grpcurl", "-plaintext", target, "list").split()
    for service in SERVES[name]:
        full_name = next(one for one in listed if one.endswith(service))
        assert "rpc " in run("grpcurl", "-plaintext", target, "describe", full_name)
    assert {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} <= set(listed)
    assert "SERVING" in run("grpcurl", "-plaintext", target, "grpc.health.v1.Health/Check")


@pytest.mark.parametrize(("name", "method", "request_", "field"), CALLS, ids=[call[1] for call in CALLS])
def test_grpcurl_and_buf_curl_get_the_same_answer(mesh: Mesh, name: str, method: str, request_: dict[str, Any], field: str) -> None:
    target = f"127.0.0.1:{mesh.ports[name]}"
    data = json.dumps(request_)
    # grpcurl speaks v1alpha of reflection here, buf curl v1.
    by_grpcurl = json.loads(run("grpcurl", "-plaintext", "-d", data, target, method))
    by_buf = json.loads(
        run(
            "buf",
            "curl",
            "--protocol",
            "grpc",
            "--http2-prior-knowledge",
            "--reflect-protocol",
            "grpc-v1",
            "-d",
            data,
            f"http://{target}/{method}",
        )
    )
    assert by_grpcurl == by_buf
    if field:
        assert by_grpcurl[field]


def test_grpcurl_sees_a_gateway(foreign_run: dict[str, Any]) -> None:
    listed = run("grpcurl", "-plaintext", foreign_run["target"], "list")
    for service in ("PipelineService", "FeedService", "SupervisionService"):
        assert f"trademesh.gateway.v1.{service}" in listed
    answer = run(
        "grpcurl", "-plaintext", "-d", '{"run_id": "foreign"}', foreign_run["target"], "trademesh.gateway.v1.PipelineService/GetPipeline"
    )
    assert json.loads(answer)["pipeline"]["state"] == "PIPELINE_STATE_FINISHED"


def test_the_client_of_the_readme_prints_what_happens(mesh: Mesh, tmp_path: Path) -> None:
    path = mesh.folder / "of-the-readme.md"
    path.write_text("---\nsessions: {start: 2008-01-02, end: 2008-03-31}\n---\n")
    assert mesh.cli("run", "start", str(path), "--run-id", "of-the-readme").returncode == 0
    mesh.summary("of-the-readme")
    code = (ROOT / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line]) <= 10
    script = tmp_path / "client.py"
    script.write_text(code.replace("127.0.0.1:8003", f"127.0.0.1:{mesh.ports['runtime']}"))
    with subprocess.Popen([sys.executable, "-u", str(script)], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        try:
            lines = [client.stdout.readline().split() for _ in range(5)]
        finally:
            client.kill()
    assert [line[-1] for line in lines] == ["gateway_started", "run_started", "pipeline_state_changed", "session_opened", "signals"]


CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
import grpc
from trademesh.gateway.v1 import feed_service_pb2, feed_service_pb2_grpc
from trademesh.runtime.v1 import runtime_service_pb2, runtime_service_pb2_grpc
runtime = runtime_service_pb2_grpc.RuntimeServiceStub(grpc.insecure_channel(sys.argv[2]))
run = runtime.GetRun(runtime_service_pb2.GetRunRequest(run_id="foreign")).run
feed = feed_service_pb2_grpc.FeedServiceStub(grpc.insecure_channel(run.feed_target))
seen = []
for message in feed.Subscribe(feed_service_pb2.SubscribeRequest(run_id="foreign", after_sequence=0), timeout=30):
    seen += [event.sequence for event in message.events.events]
    if seen and seen[-1] == run.progress.head_sequence:
        break
assert seen == list(range(1, len(seen) + 1)), "a gap"
print(len(seen))
"""


def test_a_client_generated_elsewhere_reads_the_whole_feed(mesh: Mesh, foreign_run: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "proto" / "trademesh", tmp_path / "proto" / "trademesh")
    shutil.copytree(ROOT / ".deps" / "protovalidate" / "buf", tmp_path / "proto" / "buf")
    generated = tmp_path / "generated"
    generated.mkdir()
    sources = sorted(str(path.relative_to(tmp_path / "proto")) for path in (tmp_path / "proto").rglob("*.proto"))
    protoc = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I",
        str(tmp_path / "proto"),
        f"--python_out={generated}",
        f"--grpc_python_out={generated}",
    ]
    run(*protoc, *sources)
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    # -I keeps our source roots out; the editable install would still offer ours, so the generated code goes first.
    printed = run(sys.executable, "-I", str(script), str(generated), f"127.0.0.1:{mesh.ports['runtime']}")
    assert int(printed) == int(foreign_run["progress"]["head_sequence"])
