"""What a service installs is what it imports, and what is shipped is whole."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "grpc_status": "grpcio-status",
    "prometheus_client": "prometheus-client",
    "pydantic": "pydantic-settings",
    "pydantic_settings": "pydantic-settings",
    "yaml": "pyyaml",
    "exchange_calendars": "exchange-calendars",
}
"""Distributions whose name is not that of what is imported."""
IMPLIED = {"googleapis-common-protos"}
"""Imported as google.rpc, which looks like protobuf's own."""
SERVICES = {
    "agent": "trademesh_agent",
    "trading": "trademesh_trading",
    "news": "trademesh_news",
    "gateway": "trademesh_gateway",
    "edge": "trademesh_edge",
    "cli": "trademesh_cli",
}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[ ]", requirement)[0] for requirement in requirements}


BASE = names(PROJECT["dependencies"])


def source_of(package: str) -> Path:
    return next(path for path in (ROOT / "services" / package, ROOT / "gateway" / package) if path.is_dir())


@cache
def imports_of(package: str) -> frozenset[str]:
    """Top-level names that a package imports, with those of our packages that it imports."""
    found = set[str]()
    for path in source_of(package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {module.partition(".")[0] for module in modules}
    ours = {name for name in found if name.startswith("trademesh_") and name != package}
    return frozenset(found.union(*(imports_of(name) for name in ours)))


def needed_by(package: str) -> set[str]:
    foreign = {
        name
        for name in imports_of(package)
        if name and not name.startswith("trademesh") and name not in sys.stdlib_module_names and name not in ("buf", "__future__")
    }
    return {DISTRIBUTIONS.get(name, name) for name in foreign}


@pytest.mark.parametrize("extra", SERVICES)
def test_an_extra_holds_what_its_service_imports_and_nothing_else(extra: str) -> None:
    assert needed_by(SERVICES[extra]) - BASE == names(PROJECT["optional-dependencies"][extra])


def test_runtime_service_has_what_its_gateways_need() -> None:
    assert names(PROJECT["optional-dependencies"]["runtime"]) == (needed_by("trademesh_runtime") | needed_by("trademesh_gateway")) - BASE


def test_the_base_holds_what_somebody_imports() -> None:
    assert set().union(*(needed_by(package) for package in (*SERVICES.values(), "trademesh_runtime"))) >= BASE - IMPLIED


def test_all_is_all() -> None:
    extras = PROJECT["optional-dependencies"]
    assert names(extras["all"]) == set().union(*(names(extras[extra]) for extra in (*SERVICES, "runtime")))


def test_generated_code_runs_on_the_oldest_versions_that_we_allow() -> None:
    floors = {re.split(r">=", requirement)[0]: requirement.partition(">=")[2] for requirement in PROJECT["dependencies"]}
    grpc_code = (ROOT / "gen/python/trademesh/news/v1/news_service_pb2_grpc.py").read_text()
    generated = re.search(r"GRPC_GENERATED_VERSION = '([^']+)'", grpc_code)
    assert generated is not None
    assert floors["grpcio"] == generated[1]
    message_code = (ROOT / "gen/python/trademesh/news/v1/news_service_pb2.py").read_text()
    version = re.search(r"Protobuf Python Version: (\S+)", message_code)
    assert version is not None
    assert floors["protobuf"] == version[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_holds_everything_that_runs(wheel: list[str]) -> None:
    packages = [
        Path(name).name
        for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    ]
    for package in packages:
        assert f"{package}/py.typed" in wheel
    for name in (
        "trademesh_edge/static/index.html",
        "trademesh_cli/demo/BOOTSTRAP.md",
        "trademesh_trading/data/us20/bars.parquet",
        "trademesh_trading/data/us20/LICENCE.txt",
        "trademesh_news/data/us20/news.parquet",
        "buf/validate/validate_pb2.py",
    ):
        assert name in wheel
    assert sum(name.startswith("trademesh_edge/static/assets/") for name in wheel) >= 2
    assert not [name for name in wheel if "/page/" in name or "node_modules" in name or name.startswith("tests")]
