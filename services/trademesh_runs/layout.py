"""Where the parts of a run are. Nothing is read or written here, and no folder of older systems is known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

RUN_ID = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")


@dataclass(frozen=True)
class RunLayout:
    """The folder of one run."""

    runs_dir: Path
    run_id: str

    def __post_init__(self) -> None:
        if not RUN_ID.match(self.run_id):
            raise ValueError(f"{self.run_id!r} is not a run id: {RUN_ID.pattern}")

    @property
    def root(self) -> Path:
        """runs/<run_id>/."""
        return self.runs_dir / self.run_id

    @property
    def bootstrap(self) -> Path:
        """Configuration and prompt."""
        return self.root / "BOOTSTRAP.md"

    @property
    def manifest(self) -> Path:
        """Hashes of all inputs."""
        return self.root / "manifest.json"

    @property
    def journal(self) -> Path:
        """The events: the one truth."""
        return self.root / "journal.db"

    @property
    def gateway_lock(self) -> Path:
        """Held for a gateway's life."""
        return self.root / "gateway.lock"

    @property
    def state(self) -> Path:
        """Derived state, and words of gateways."""
        return self.root / "state"

    @property
    def runtime_state(self) -> Path:
        """What runtime_service says of the run."""
        return self.state / "runtime_state.json"

    @property
    def server_state(self) -> Path:
        """The newest state of the fold."""
        return self.state / "server_state.json"

    def state_history(self, generation: int) -> Path:
        """The two states above when a gateway had ended."""
        return self.state / "history" / str(generation)

    @property
    def gateway_identity(self) -> Path:
        """Who the gateway is and where it listens."""
        return self.state / "gateway.json"

    @property
    def gateway_exit(self) -> Path:
        """Last words of a gateway."""
        return self.state / "exit.json"

    @property
    def ballast(self) -> Path:
        """Holds a little room back, so that a full disk can still be journaled."""
        return self.state / "ballast"

    @property
    def dashboard(self) -> Path:
        """Compatibility exports."""
        return self.root / "team_dashboard"

    def agent(self, agent_id: str) -> Path:
        """Folder of an agent."""
        return self.root / "agents" / agent_id

    def gateway_log(self, generation: int) -> Path:
        """What a gateway wrote on stderr."""
        return self.root / "logs" / f"gateway.{generation}.log"

    def make_folders(self) -> None:
        """Makes the folders that every run has."""
        for folder in (self.state, self.root / "logs", self.root / "agents", self.dashboard):
            folder.mkdir(parents=True, exist_ok=True)
