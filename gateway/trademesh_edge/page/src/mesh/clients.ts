/** Typed clients of the mesh's services, all on the one socket of the page. */

import { createClient } from "@connectrpc/connect";
import { FeedService } from "@trademesh/contracts/trademesh/gateway/v1/feed_service_pb.js";
import { PipelineService } from "@trademesh/contracts/trademesh/gateway/v1/pipeline_service_pb.js";
import { RuntimeService } from "@trademesh/contracts/trademesh/runtime/v1/runtime_service_pb.js";
import { type ConnectionState, EdgeSocket } from "./socket";
import { createEdgeTransport } from "./transport";

export function connectToMesh(onState: (state: ConnectionState) => void) {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const transport = createEdgeTransport(new EdgeSocket(`${scheme}://${location.host}/v1/socket`, onState));
  return {
    runtime: createClient(RuntimeService, transport),
    pipeline: createClient(PipelineService, transport),
    feed: createClient(FeedService, transport),
  };
}

export type Mesh = ReturnType<typeof connectToMesh>;
