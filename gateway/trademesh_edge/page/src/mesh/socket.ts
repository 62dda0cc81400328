/** One WebSocket to the edge, with many calls on it. Reconnects by itself; what calls mean is not here. */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type EdgeFrame, EdgeFrameSchema, type Status } from "@trademesh/contracts/trademesh/edge/v1/frame_pb.js";

/** What a person is told about the connection. */
export type ConnectionState =
  | { kind: "connecting" }
  | { kind: "open" }
  | { kind: "waiting"; retryAt: number }
  | { kind: "stopped"; reason: string };

/** How a call ends: by the edge's word, or because the socket was lost. */
export type CallEnd = { kind: "status"; status: Status } | { kind: "lost" };

interface OpenCall {
  channel: number;
  onMessage: (payload: Uint8Array) => void;
  onEnd: (end: CallEnd) => void;
}

const SUBPROTOCOL = "trademesh.v1+proto";
const FIRST_RETRY_MS = 250;
const LONGEST_RETRY_MS = 10_000;
const LISTEN_EVERY_MS = 1_000;
const ASK_AFTER_MS = 10_000;
const GIVE_UP_AFTER_MS = 15_000;
/** Close codes after which coming back does not help. */
const STOP_CODES = new Map([
  [4400, "the edge does not understand this page: reload it"],
  [4401, "the edge wants credentials"],
  [4403, "the edge refuses this page"],
]);

export class EdgeSocket {
  private socket: WebSocket | undefined;
  private readonly calls = new Map<number, OpenCall>();
  private readonly waiters = new Set<() => void>();
  private lastId = 0;
  private failures = 0;
  private heardAt = 0;
  state: ConnectionState = { kind: "connecting" };

  constructor(
    private readonly url: string,
    private readonly onState: (state: ConnectionState) => void,
  ) {
    this.connect();
    addEventListener("online", () => this.hurry());
    setInterval(() => this.listen(), LISTEN_EVERY_MS);
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  /** Resolves when calls can be made; rejects if the signal is aborted first. */
  ready(signal?: AbortSignal): Promise<void> {
    if (this.state.kind === "open") return Promise.resolve();
    return new Promise((resolve, reject) => {
      const settle = (work: () => void) => () => {
        this.waiters.delete(opened);
        signal?.removeEventListener("abort", aborted);
        work();
      };
      const opened = settle(resolve);
      const aborted = settle(() => reject(signal?.reason));
      this.waiters.add(opened);
      signal?.addEventListener("abort", aborted);
    });
  }

  /** Begins a call on an open socket; returns what cancels it. `onEnd` is called once, unless the call is cancelled. */
  call(method: string, request: Uint8Array, onMessage: OpenCall["onMessage"], onEnd: OpenCall["onEnd"]): () => void {
    const id = ++this.lastId;
    this.calls.set(id, { channel: 0, onMessage, onEnd });
    this.send(create(EdgeFrameSchema, { kind: { case: "call", value: { id, method, request } } }));
    return () => {
      if (this.calls.delete(id) && this.state.kind === "open") {
        this.send(create(EdgeFrameSchema, { kind: { case: "cancel", value: { id } } }));
      }
    };
  }

  private connect(): void {
    this.change({ kind: "connecting" });
    const socket = new WebSocket(this.url, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => this.send(create(EdgeFrameSchema, { kind: { case: "hello", value: { client: "page" } } }));
    socket.onmessage = (event) => {
      this.heardAt = performance.now();
      this.take(fromBinary(EdgeFrameSchema, new Uint8Array(event.data as ArrayBuffer)));
    };
    socket.onclose = (event) => this.lost(socket, event);
  }

  /** A connection can die without a word, as when a laptop sleeps: silence is asked, and given up if it does not answer. */
  private listen(): void {
    const silence = performance.now() - this.heardAt;
    if (this.state.kind !== "open" || silence < ASK_AFTER_MS) return;
    if (silence < GIVE_UP_AFTER_MS) {
      this.send(create(EdgeFrameSchema, { kind: { case: "ping", value: { nonce: BigInt(Date.now()) } } }));
    } else if (this.socket) {
      // Its own close event would wait for the other side, which is not there.
      const socket = this.socket;
      socket.close();
      this.lost(socket, new CloseEvent("close", { code: 1006 }));
    }
  }

  private send(frame: EdgeFrame): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(toBinary(EdgeFrameSchema, frame) as Uint8Array<ArrayBuffer>);
  }

  private take(frame: EdgeFrame): void {
    switch (frame.kind.case) {
      case "welcome":
        this.failures = 0;
        this.heardAt = performance.now();
        this.change({ kind: "open" });
        for (const waiter of [...this.waiters]) waiter();
        break;
      case "opened": {
        const call = this.calls.get(frame.kind.value.id);
        if (call) call.channel = frame.kind.value.channel;
        break;
      }
      case "message": {
        const { channel, payload } = frame.kind.value;
        for (const call of [...this.calls.values()]) if (call.channel === channel) call.onMessage(payload);
        break;
      }
      case "status": {
        const call = this.calls.get(frame.kind.value.id);
        this.calls.delete(frame.kind.value.id);
        call?.onEnd({ kind: "status", status: frame.kind.value });
        break;
      }
    }
  }

  private lost(socket: WebSocket, event: CloseEvent): void {
    if (socket !== this.socket) return;
    this.socket = undefined;
    const calls = [...this.calls.values()];
    this.calls.clear();
    const stop = STOP_CODES.get(event.code);
    if (stop) {
      this.change({ kind: "stopped", reason: event.reason || stop });
    } else {
      const asked = /retry_after_ms=(\d+)/.exec(event.reason);
      const backoff = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.failures++);
      // Chance keeps a thousand pages from coming back in one moment.
      const wait = Math.max(asked ? Number(asked[1]) : 0, backoff) * (0.5 + Math.random());
      this.change({ kind: "waiting", retryAt: Date.now() + wait });
      setTimeout(() => this.retry(), wait);
    }
    for (const call of calls) call.onEnd({ kind: "lost" });
  }

  private retry(): void {
    if (this.state.kind === "waiting") this.connect();
  }

  private hurry(): void {
    this.retry();
  }

  private change(state: ConnectionState): void {
    this.state = state;
    this.onState(state);
  }
}
