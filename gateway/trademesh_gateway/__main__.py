"""`python -m trademesh_gateway`: runs the gateway that a launch ticket tells of. Refuses to run without one."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import sys

# Modules are 700 and live as long as the process: nothing in them is garbage while they load, nor later. `main` goes on collecting.
gc.disable()

from trademesh_gateway import launch  # noqa: E402  # after what is said of garbage: here and below
from trademesh_gateway.exit_codes import exit_of  # noqa: E402  # likewise
from trademesh_gateway.gateway import Gateway  # noqa: E402  # likewise
from trademesh_kernel.logs import configure_logs, get_logger  # noqa: E402  # likewise


def main() -> int:
    """Runs the gateway; returns the exit status."""
    gc.freeze()
    gc.enable()
    try:
        ticket, launcher = launch.accept_launch()
    except launch.NotLaunchedError:
        print("trademesh gateway: only runtime_service starts a gateway; use `trademesh run start`", file=sys.stderr)
        return launch.EXIT_USAGE
    # A supervisor that takes us for hung sends SIGABRT: the stacks then tell where we were.
    faulthandler.enable()
    configure_logs("gateway", log_format="json")
    log = get_logger("gateway")
    gateway = Gateway(ticket, launcher)
    try:
        # The lock's descriptor lives as long as the process.
        launch.take_lock(ticket.layout)
        code, reason = asyncio.run(gateway.run())
    except Exception as error:
        code, reason = exit_of(error)
        if code == launch.EXIT_BUG:
            log.exception("the gateway failed")
    log.info("gateway ends", code=code, reason=reason)
    try:
        launch.write_last_words(ticket, code, reason, gateway.progress())
    except OSError as error:
        log.error("last words could not be written", reason=str(error))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
