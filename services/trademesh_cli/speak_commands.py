"""`trademesh run say`: a person speaks to the agents of a run, and hears them."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from trademesh.gateway.v1 import pipeline_service_pb2
from trademesh_cli.rpc import as_record, call, plain, print_json
from trademesh_cli.run_arguments import AsJson, RunId
from trademesh_cli.run_gateway import gateway_of

speak_app = typer.Typer()


@speak_app.command("say")
def say(
    run_id: RunId,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="what you say, for example `why GE?`")],
    to: Annotated[list[str] | None, typer.Option(help="agent to speak to; may be repeated; left out = all at work")] = None,
    sender: Annotated[str, typer.Option("--from", help="your name, as others see it")] = "",
    as_json: AsJson = False,
) -> None:
    """Say something to the agents of a run, and print what they answer. It is kept with the run, and changes nothing that they decide."""
    request = pipeline_service_pb2.SendMessageRequest(run_id=run_id, text=text, agent_ids=to, sender=sender, request_id=str(uuid.uuid4()))

    async def work() -> pipeline_service_pb2.SendMessageResponse:
        async with gateway_of(run_id, "its agents answer") as (gateway, pipeline):
            answer: pipeline_service_pb2.SendMessageResponse = await gateway.call(pipeline.SendMessage, request, timeout_s=30)
            return answer

    answer = call(work)
    if as_json:
        print_json(as_record(answer))
        return
    for one in answer.answers:
        print(f"{one.agent_id}: {plain(one.text)}")
