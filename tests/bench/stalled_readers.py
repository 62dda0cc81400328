"""`python -m bench.stalled_readers TARGET RUN_ID COUNT`: Subscribe calls that ask for everything and read nothing, each on a connection of its
own. Says `ready`, and holds them until its standard input ends."""

from __future__ import annotations

import asyncio
import sys

import grpc

from trademesh.gateway.v1 import feed_service_pb2, feed_service_pb2_grpc


async def hold(target: str, run_id: str, count: int) -> None:
    """Begins the calls and leaves them alone."""
    request = feed_service_pb2.SubscribeRequest(run_id=run_id, after_sequence=0)
    held = list[object]()
    for _ in range(count):
        channel = grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)])
        call = feed_service_pb2_grpc.FeedServiceStub(channel).Subscribe(request)  # type: ignore[no-untyped-call]  # generated
        await call.read()
        held.append((channel, call))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], sys.argv[2], int(sys.argv[3])))
