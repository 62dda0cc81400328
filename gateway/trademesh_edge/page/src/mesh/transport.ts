/** connect-es over the edge's socket: generated clients work in the page as anywhere else. Unary calls and server streams. */

import {
  create,
  type DescMessage,
  type DescMethodStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type ContextValues, createContextKey, createContextValues, type StreamResponse, type Transport, type UnaryResponse } from "@connectrpc/connect";
import type { Status } from "@trademesh/contracts/trademesh/edge/v1/frame_pb.js";
import type { CallEnd, EdgeSocket } from "./socket";

/** Messages that wait for a slow reader; above it the stream is given up, to be resumed from its cursor. */
const MOST_WAITING = 10_000;

/** Called with what is missing while a feed has lost its source, and with "" when it has it again. */
export const onSourceKey = createContextKey<(missing: string) => void>(() => {});

export function createEdgeTransport(socket: EdgeSocket): Transport {
  return {
    async unary<I extends DescMessage, O extends DescMessage>(
      method: DescMethodUnary<I, O>,
      signal: AbortSignal | undefined,
      timeoutMs: number | undefined,
      _header: HeadersInit | undefined,
      input: MessageInitShape<I>,
      _contextValues?: ContextValues,
    ): Promise<UnaryResponse<I, O>> {
      const stop = withTimeout(signal, timeoutMs);
      for await (const payload of payloads(socket, method, create(method.input, input), stop)) {
        return { stream: false, service: method.parent, method, header: new Headers(), trailer: new Headers(), message: fromBinary(method.output, payload) };
      }
      throw new ConnectError("the call ended without an answer", Code.Internal);
    },
    async stream<I extends DescMessage, O extends DescMessage>(
      method: DescMethodStreaming<I, O>,
      signal: AbortSignal | undefined,
      timeoutMs: number | undefined,
      _header: HeadersInit | undefined,
      input: AsyncIterable<MessageInitShape<I>>,
      contextValues: ContextValues = createContextValues(),
    ): Promise<StreamResponse<I, O>> {
      const request = await first(input);
      const stop = withTimeout(signal, timeoutMs);
      return {
        stream: true,
        service: method.parent,
        method,
        header: new Headers(),
        trailer: new Headers(),
        message: decoded(method.output, payloads(socket, method, create(method.input, request), stop, contextValues.get(onSourceKey))),
      };
    },
  };
}

function withTimeout(signal: AbortSignal | undefined, timeoutMs: number | undefined): AbortSignal {
  const signals = [signal, timeoutMs ? AbortSignal.timeout(timeoutMs) : undefined].filter((one) => one !== undefined);
  return AbortSignal.any(signals);
}

async function first<T>(items: AsyncIterable<T>): Promise<T> {
  for await (const item of items) return item;
  throw new ConnectError("a request is missing", Code.InvalidArgument);
}

async function* decoded<O extends DescMessage>(output: O, messages: AsyncIterable<Uint8Array>): AsyncIterable<MessageShape<O>> {
  for await (const message of messages) yield fromBinary(output, message);
}

async function* payloads<I extends DescMessage>(
  socket: EdgeSocket,
  method: { readonly name: string; readonly parent: { readonly typeName: string }; readonly input: I },
  request: MessageShape<I>,
  signal: AbortSignal,
  onSource: (missing: string) => void = () => {},
): AsyncGenerator<Uint8Array> {
  await socket.ready(signal);
  const waiting: Uint8Array[] = [];
  let ended: CallEnd | undefined;
  let wake = () => {};
  const name = `/${method.parent.typeName}/${method.name}`;
  const cancel = socket.call(name, toBinary(method.input, request), {
    onMessage: (payload) => {
      waiting.push(payload);
      wake();
    },
    onEnd: (end) => {
      ended = end;
      wake();
    },
    onSource,
  });
  const aborted = () => wake();
  signal.addEventListener("abort", aborted);
  try {
    while (true) {
      signal.throwIfAborted();
      const payload = waiting.shift();
      if (payload) {
        if (waiting.length > MOST_WAITING) throw new ConnectError("too many messages are waiting", Code.ResourceExhausted);
        yield payload;
      } else if (ended) {
        if (ended.kind === "lost") throw new ConnectError("the connection was lost", Code.Unavailable);
        if (ended.status.code) throw connectError(ended.status);
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    signal.removeEventListener("abort", aborted);
    cancel();
  }
}

function connectError(status: Status): ConnectError {
  return new ConnectError(status.message, status.code as Code, status.retryAfterMs === undefined ? {} : { "retry-after-ms": String(status.retryAfterMs) });
}
