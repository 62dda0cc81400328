/** One WebSocket to the edge, with many calls on it. Reconnects by itself; what calls mean is not here. */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { CloseCode, type EdgeFrame, EdgeFrameSchema, type Status, UpstreamState } from "@trademesh/contracts/trademesh/edge/v1/frame_pb.js";

/** What a person is told about the connection. */
export type ConnectionState =
  | { kind: "connecting" }
  | { kind: "open" }
  | { kind: "waiting"; retryAt: number }
  | { kind: "stopped"; reason: string };

/** How a call ends: by the edge's word, or because the socket was lost. */
export type CallEnd = { kind: "status"; status: Status } | { kind: "lost" };

/** What a call hears. `onSource` is told what is missing while a feed has lost its source, and "" when it has it again. */
export interface CallListener {
  onMessage: (payload: Uint8Array) => void;
  onEnd: (end: CallEnd) => void;
  onSource: (missing: string) => void;
}

interface OpenCall extends CallListener {
  channel: number;
  sourceLost: boolean;
}

const SUBPROTOCOL = "trademesh.v1+proto";
const FIRST_RETRY_MS = 250;
const LONGEST_RETRY_MS = 10_000;
const LISTEN_EVERY_MS = 1_000;
const ASK_AFTER_MS = 10_000;
const GIVE_UP_AFTER_MS = 15_000;
/** Close codes after which coming back does not help. */
const STOP_CODES = new Map<number, string>([
  [1002, "the edge does not understand this browser"],
  [1007, "the edge does not understand this browser"],
  [1009, "the edge takes no request of this size"],
  [CloseCode.PROTOCOL, "the edge does not understand this page: reload it"],
  [CloseCode.UNAUTHENTICATED, "the edge wants credentials"],
  [CloseCode.FORBIDDEN, "the edge refuses this page"],
]);
/** After these the edge wants more than a moment. */
const LATER_CODES = new Set<number>([1013, CloseCode.RATE]);
const LATER_MS = 2_000;
/** The edge's token, if it wants one: kept for this tab, put there by whoever opens the page. */
const TOKEN_KEY = "trademesh.edge.token";

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
  call(method: string, request: Uint8Array, listener: CallListener): () => void {
    const id = ++this.lastId;
    this.calls.set(id, { channel: 0, sourceLost: false, ...listener });
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
    socket.onopen = () => this.send(create(EdgeFrameSchema, { kind: { case: "hello", value: { client: "page", token: sessionStorage.getItem(TOKEN_KEY) ?? "" } } }));
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
        if (call) {
          call.channel = frame.kind.value.channel;
          // A new channel has its source until it is said otherwise.
          this.tellSource(call, "");
        }
        break;
      }
      case "upstream": {
        const { channel, state, reason } = frame.kind.value;
        const missing = state === UpstreamState.LOST ? reason || "its source does not answer" : "";
        for (const call of [...this.calls.values()]) if (call.channel === channel) this.tellSource(call, missing);
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

  private tellSource(call: OpenCall, missing: string): void {
    if (call.sourceLost === (missing !== "")) return;
    call.sourceLost = missing !== "";
    call.onSource(missing);
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
      const wait = this.waitMs(event);
      this.change({ kind: "waiting", retryAt: Date.now() + wait });
      setTimeout(() => this.retry(), wait);
    }
    for (const call of calls) call.onEnd({ kind: "lost" });
  }

  /** How long to wait: as the edge asks when it restarts, which asks everyone for another moment; else longer each time, with chance. */
  private waitMs(event: CloseEvent): number {
    const asked = /^retry_after_ms=(\d+)$/.exec(event.reason)?.[1];
    if (event.code === 1012 && asked !== undefined && this.failures++ === 0) return Number(asked) + 100 * Math.random();
    const backoff = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.failures++);
    // Chance keeps a thousand pages from coming back in one moment.
    return Math.max(LATER_CODES.has(event.code) ? LATER_MS : 0, backoff) * (0.5 + Math.random());
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
