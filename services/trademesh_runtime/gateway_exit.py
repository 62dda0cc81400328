"""How a gateway ended, from what its launcher saw, what it wrote last and the end of its log. What follows from it is the policy's."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

from google.protobuf import json_format

from trademesh.runtime.v1 import runtime_pb2 as wire
from trademesh_runs.layout import RunLayout
from trademesh_runtime.gateway_logs import last_lines
from trademesh_runtime.launcher import Exit

KEPT_LOG_LINES = 20
LOG_LINE_CHARACTERS = 500
LAST_WORDS_CHARACTERS = 2000
RUN_ENDED = "RUN_ENDED"


@dataclass(frozen=True)
class Ending:
    """The end of one gateway."""

    exit: wire.GatewayExit
    code: int | None
    signal: int | None
    progress: wire.RunProgress | None
    """How far it came by its own last words; None if it left none."""
    run_ended: bool
    """True if it ended since every session is settled."""

    @property
    def words(self) -> str:
        """What it said last."""
        return self.exit.reason

    @property
    def cause(self) -> str:
        """In words a person can act on."""
        how = f"signal {self.signal}" if self.signal is not None else f"exit {self.code}" if self.code is not None else "ended unseen"
        return f"{how}: {self.words}" if self.words else how


def printable(text: str) -> str:
    """Without what no message can carry: a file's name in the words of an error need not be text."""
    return text.encode(errors="replace").decode()


def unread_ending(generation: int, how: Exit) -> Ending:
    """The end of a gateway of which nothing that it left can be read."""
    told = wire.GatewayExit(generation=generation, code=how.code, signal=how.signal)
    told.exited_at.GetCurrentTime()
    return Ending(told, how.code, how.signal, None, run_ended=False)


def ending_of(layout: RunLayout, generation: int, how: Exit) -> Ending:
    """Reads what is left of a gateway. Last words of another generation are nothing to us."""
    code, words, progress = how.code, "", None
    with suppress(OSError, ValueError, KeyError, TypeError, json_format.ParseError):
        record = json.loads(layout.gateway_exit.read_text())
        if record["generation"] == generation:
            words = printable(str(record["reason"]))[:LAST_WORDS_CHARACTERS]
            # Of one that was adopted nobody else can know it.
            if code is None and how.signal is None and record["code"] in range(256):
                code = int(record["code"])
            progress = json_format.ParseDict(record["progress"], wire.RunProgress())
    # Shortened, since they are told with every change of every run.
    lines = [line[:LOG_LINE_CHARACTERS] for line in last_lines(layout.gateway_log(generation), KEPT_LOG_LINES)]
    run_ended = words == RUN_ENDED
    if not words and code and lines:
        words = lines[-1]
    told = wire.GatewayExit(generation=generation, code=code, signal=how.signal, reason=words, log_lines=lines)
    told.exited_at.GetCurrentTime()
    return Ending(told, code, how.signal, progress, run_ended)
