/** Follows one run: snapshot first, then every event; after a break from the last event that is in, and never with a gap. */

import { Code, ConnectError } from "@connectrpc/connect";
import { StreamEndReason } from "@trademesh/contracts/trademesh/gateway/v1/feed_service_pb.js";
import type { Mesh } from "./mesh/clients";
import { keep } from "./mesh/follow";
import type { RunState } from "./run_state";

const LISTED_EVENTS = 100;

export async function followRun(
  mesh: Mesh,
  runId: string,
  state: RunState,
  signal: AbortSignal,
  onChange: () => void,
  onTrouble: (text: string) => void,
): Promise<void> {
  let loaded = false;
  await keep(
    signal,
    async (progressed) => {
      const from = loaded ? { afterSequence: state.cursor, epoch: state.epoch } : { snapshot: true };
      try {
        for await (const { kind } of mesh.feed.subscribe({ runId, ...from }, { signal })) {
          progressed();
          if (kind.case === "snapshot") {
            state.load(kind.value);
            loaded = true;
            void listOlder(mesh, runId, state, signal, onChange);
          } else if (kind.case === "events") {
            state.epoch = kind.value.epoch;
            state.apply(kind.value.firstSequence, kind.value.lastSequence, kind.value.events);
          } else if (kind.case === "end") {
            return kind.value.reason === StreamEndReason.RUN_ENDED;
          }
          onChange();
        }
        return false;
      } catch (reason) {
        if (ConnectError.from(reason).code === Code.Aborted) loaded = false;
        throw reason;
      }
    },
    onTrouble,
  );
}

async function listOlder(mesh: Mesh, runId: string, state: RunState, signal: AbortSignal, onChange: () => void): Promise<void> {
  try {
    const request = { runId, newestFirst: true, pageSize: LISTED_EVENTS, afterSequence: state.cursor + 1n };
    state.addOlder((await mesh.feed.listEvents(request, { signal })).events);
    onChange();
  } catch {
    // The list then begins with what happens from now on.
  }
}
