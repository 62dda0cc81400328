"""The edge as a process: `python -m trademesh_edge`."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import sys

from trademesh_edge.server import EdgeBindError, EdgeServer
from trademesh_edge.settings import EdgeSettings
from trademesh_kernel.logs import configure_logs
from trademesh_kernel.settings import EXIT_CONFIG, load_settings


async def _serve(settings: EdgeSettings) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = EdgeServer(settings)
    await server.start()
    try:
        await stopped.wait()
    finally:
        await server.stop()


def main() -> None:
    """Serves until SIGTERM or SIGINT. Ends with 78 if a setting or the address is at fault."""
    faulthandler.enable()
    settings = load_settings(EdgeSettings)
    configure_logs("edge", log_format=settings.log_format, level=settings.log_level)
    try:
        asyncio.run(_serve(settings))
    except EdgeBindError as error:
        print(f"edge: {error.message}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIG) from None


if __name__ == "__main__":
    main()
