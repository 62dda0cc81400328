"""The commands of `trademesh`. What they do is in the modules that they call."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from trademesh_cli.command_groups import add_group
from trademesh_kernel.logs import configure_logs

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

RUN_COMMANDS = ("run_commands.run_app", "journal_commands.journal_app", "speak_commands.speak_app", "report_commands.report_app")
add_group(app, "run", "Start, watch and stop runs.", RUN_COMMANDS)
add_group(app, "data", "Import market data and news, and show what there is.", ["data_commands.data_app"])
add_group(app, "feed", "Read the events of runs.", ["feed_commands.feed_app"])
add_group(
    app, "order", "Orders of people: they pass the same limits, approvals and ledger as the desk's own.", ["order_commands.order_app"]
)

EXIT_USAGE = 2
EXIT_PROBE_USAGE = 1


@app.callback()
def trademesh() -> None:
    """Run and look at a mesh of trading agents."""
    # On stderr, and nothing that went as it should: stdout is the command's answer.
    configure_logs("trademesh", level="warning")


@app.command("up")
def up_command(
    run_to_end: Annotated[bool, typer.Option("--exit", help="run the demo to its end, print its summary as JSON, stop")] = False,
    reload: Annotated[bool, typer.Option("--reload", help="restart a service when its source changes")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print where things are as JSON on stdout")] = False,
) -> None:
    """Start the whole mesh on this machine, and the demo run on it. Ctrl-C stops everything."""
    # Here and below: what one command alone needs, no other pays for.
    from trademesh_cli.up import run_mesh

    raise typer.Exit(asyncio.run(run_mesh(run_to_end=run_to_end, reload=reload, as_json=as_json and not run_to_end)))


@app.command("probe")
def probe_command(
    target: Annotated[str, typer.Argument(help="gRPC target, for example 127.0.0.1:8000")],
    service: Annotated[str, typer.Option(help="full service name; empty asks for the whole server")] = "",
    connect_timeout_s: Annotated[float, typer.Option(min=0.001)] = 1.0,
    rpc_timeout_s: Annotated[float, typer.Option(min=0.001)] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Ask a server for its health.

    Exit codes are those of grpc-health-probe: 0 healthy, 1 bad arguments, 2 no connection, 3 the call failed, 4 unhealthy.
    """
    from trademesh_kernel.probe import ProbeExit, probe

    result = asyncio.run(probe(target, service, connect_timeout_s=connect_timeout_s, rpc_timeout_s=rpc_timeout_s))
    if as_json:
        print(json.dumps({"exit_code": int(result.exit_code), "message": result.message}))
    else:
        print(result.message, file=sys.stdout if result.exit_code is ProbeExit.HEALTHY else sys.stderr)
    raise typer.Exit(int(result.exit_code))


def main() -> None:
    """Entry point. A usage error ends `probe` with 1, as grpc-health-probe does, and everything else with 2."""
    try:
        status = app(standalone_mode=False)
    except TyperException as error:
        # A group without a command has printed its help and says nothing more.
        if error.format_message():
            print(f"error: {error.format_message()} (`trademesh --help` and `trademesh COMMAND --help` tell more)", file=sys.stderr)
        raise SystemExit(EXIT_PROBE_USAGE if "probe" in sys.argv[1:2] else EXIT_USAGE) from None
    except (typer.Abort, KeyboardInterrupt):
        raise SystemExit(130) from None
    raise SystemExit(status or 0)


if __name__ == "__main__":
    main()
