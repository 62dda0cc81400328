/** What the page knows of one run: the fold of its snapshot and the events after it. The ledger's figures are taken over, never computed. */

import type { Event } from "@trademesh/contracts/trademesh/gateway/v1/event_pb.js";
import { PipelineState, type Position } from "@trademesh/contracts/trademesh/gateway/v1/event_pb.js";
import type { ServerState } from "@trademesh/contracts/trademesh/gateway/v1/state_pb.js";

const MOST_EVENTS = 400;

/** A break in the story: events were missed or doubled. It must never happen, and is shown if it does. */
export class GapError extends Error {}

export class RunState {
  epoch = 0;
  /** Everything up to this sequence is in. */
  cursor = 0n;
  /** Sequence of the settlement that the figures are of. */
  settledAt = 0n;
  initialCashMicros = 0n;
  navMicros = 0n;
  peakMicros = 0n;
  cashMicros = 0n;
  feesMicros = 0n;
  sessionsSettled = 0;
  sessionsTotal = 0;
  sessionDate = "";
  fills = 0;
  pipeline = PipelineState.UNSPECIFIED;
  pipelineReason = "";
  pace = 0;
  positions: Position[] = [];
  /** The curve, one entry per settled session: days since 1970 in seconds, and dollars. */
  readonly times: number[] = [];
  readonly desk: number[] = [];
  readonly market: number[] = [];
  marketName = "";
  /** The newest events, newest first. */
  events: Event[] = [];

  load(state: ServerState): void {
    this.epoch = state.epoch;
    this.cursor = state.asOfSequence;
    this.initialCashMicros = state.portfolio?.initialCashMicros ?? 0n;
    this.navMicros = this.peakMicros = state.navMicros;
    this.cashMicros = state.portfolio?.cashMicros ?? 0n;
    this.feesMicros = state.portfolio?.feesMicros ?? 0n;
    this.positions = state.portfolio?.positions ?? [];
    this.fills = state.fills;
    const pipeline = state.pipeline;
    if (pipeline) {
      this.pipeline = pipeline.state;
      this.pipelineReason = pipeline.reason;
      this.sessionsSettled = pipeline.sessionsSettled;
      this.sessionsTotal = pipeline.sessionsTotal;
      this.sessionDate = pipeline.sessionDate;
      this.pace = pipeline.paceSessionsPerS;
    }
    for (const column of [this.times, this.desk, this.market]) column.length = 0;
    for (const point of state.equity) this.addPoint(point.sessionDate, point.navMicros, point.baselines);
    this.settledAt = state.equity.at(-1)?.sequence ?? 0n;
    this.events = [];
  }

  /** Takes in a batch that covers a span of sequences. */
  apply(firstSequence: bigint, lastSequence: bigint, events: Event[]): void {
    if (firstSequence !== this.cursor + 1n) throw new GapError(`after ${this.cursor} came ${firstSequence}`);
    for (const event of events) this.applyOne(event);
    this.cursor = lastSequence;
    if (events.length) this.events = [...events.toReversed(), ...this.events].slice(0, MOST_EVENTS);
  }

  /** Older events, for the list only; newest first. */
  addOlder(events: Event[]): void {
    const oldest = this.events.at(-1)?.sequence ?? this.cursor + 1n;
    this.events = [...this.events, ...events.filter((event) => event.sequence < oldest)].slice(0, MOST_EVENTS);
  }

  private applyOne(event: Event): void {
    const payload = event.payload;
    switch (payload.case) {
      case "runStarted":
        this.initialCashMicros = this.navMicros = this.peakMicros = this.cashMicros = payload.value.initialCashMicros;
        this.sessionsTotal = payload.value.sessions;
        break;
      case "pipelineStateChanged":
        this.pipeline = payload.value.state;
        this.pipelineReason = payload.value.reason;
        break;
      case "paceChanged":
        this.pace = payload.value.sessionsPerS;
        break;
      case "sessionOpened":
        this.sessionDate = event.sessionDate;
        break;
      case "orderFilled":
        this.fills += 1;
        break;
      case "settled":
        this.navMicros = payload.value.navMicros;
        this.sessionsSettled = payload.value.sessionNumber;
        this.sessionDate = event.sessionDate;
        this.settledAt = event.sequence;
        this.cashMicros = payload.value.portfolio?.cashMicros ?? 0n;
        this.feesMicros = payload.value.portfolio?.feesMicros ?? 0n;
        this.positions = payload.value.portfolio?.positions ?? [];
        this.addPoint(event.sessionDate, payload.value.navMicros, payload.value.baselines);
        break;
    }
  }

  private addPoint(date: string, navMicros: bigint, baselines: { name: string; navMicros: bigint }[]): void {
    const index = baselines.find((one) => one.name.startsWith("index:"));
    if (index) this.marketName = index.name.slice("index:".length);
    if (navMicros > this.peakMicros) this.peakMicros = navMicros;
    this.times.push(Date.parse(date) / 1000);
    this.desk.push(Number(navMicros) / 1e6);
    this.market.push(index ? Number(index.navMicros) / 1e6 : Number.NaN);
  }
}
