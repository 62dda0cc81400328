"""`trademesh.liveness` of a gateway: whether its pipeline makes progress. A cycle past its deadline is given up by the controller; one that
cannot even be given up means that we hang, and the supervisor is to see it. Who is paused, waits or drains does not hang.
"""

from __future__ import annotations

import asyncio

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.pipeline.controller import Controller
from trademesh_kernel.health import Health
from trademesh_kernel.logs import get_logger

GRACE_S = 1.0
"""What a cycle gets after its deadline to be given up."""
CHECK_S = 0.25


async def watch_progress(controller: Controller, health: Health) -> None:
    """Turns liveness whenever the pipeline gets stuck or goes on again. Never returns."""
    stuck, clock = False, controller.clock
    while True:
        await asyncio.sleep(CHECK_S)
        was_stuck, stuck = stuck, clock.left_s < -GRACE_S and not controller.stopping
        if stuck != was_stuck:
            await health.set_liveness(not stuck)
            phase = events.Phase.Name(events.Phase.ValueType(clock.phase)).removeprefix("PHASE_")
            if stuck:
                get_logger("liveness").error(
                    "the pipeline is stuck: its cycle cannot be given up", phase=phase, spent_s=round(clock.spent_s, 1)
                )
            else:
                get_logger("liveness").info("the pipeline goes on", phase=phase)
