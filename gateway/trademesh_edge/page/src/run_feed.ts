/** Follows one run: snapshot first, then every event; after a break from the last event that is in, and never with a gap. */

import { Code, ConnectError, createContextValues } from "@connectrpc/connect";
import { StreamEndReason } from "@trademesh/contracts/trademesh/gateway/v1/feed_service_pb.js";
import type { Mesh } from "./mesh/clients";
import { keep } from "./mesh/follow";
import { onSourceKey } from "./mesh/transport";
import { GapError, type RunState } from "./run_state";

/** What is said of a cursor that no journal has any more. */
const STALE = new Set([Code.Aborted, Code.OutOfRange]);
const LISTED_EVENTS = 100;

export async function followRun(
  mesh: Mesh,
  runId: string,
  state: RunState,
  signal: AbortSignal,
  onChange: () => void,
  onTrouble: (text: string) => void,
  onSource: (missing: string) => void,
): Promise<void> {
  let loaded = false;
  const contextValues = createContextValues().set(onSourceKey, onSource);
  await keep(
    signal,
    async (progressed) => {
      // With both, a history that is no more is bridged by a snapshot: the curve begins anew from it.
      const from = loaded ? { afterSequence: state.cursor, epoch: state.epoch, snapshot: true } : { snapshot: true };
      try {
        for await (const { kind } of mesh.feed.subscribe({ runId, ...from }, { signal, contextValues })) {
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
        // Whatever is wrong with our cursor, a snapshot begins anew.
        if (reason instanceof GapError || STALE.has(ConnectError.from(reason).code)) loaded = false;
        throw reason;
      } finally {
        onSource("");
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
