/** Events in words: one line each, and the reasons behind it, item by item. */

import { Action, Side } from "@trademesh/contracts/trademesh/common/v1/vocabulary_pb.js";
import { type CorporateActionApplied, Direction, type Event, ExpiryReason, LimitCode, LimitUnit, OrderOrigin, PipelineState, SessionMoment, Severity, type Signals, Stance, TimeInForce } from "@trademesh/contracts/trademesh/gateway/v1/event_pb.js";
import { dollars, exactly, percent, ratio, signedPercent, whole, words } from "./format";

export interface Description {
  /** Who: an agent, or the desk. */
  who: string;
  title: string;
  /** Computed when somebody looks. */
  details: () => string[];
}

const SHOWN_DECISIONS = 4;
const SHOWN_LETTERS = 120;
const none = () => [];

function named(agentId: string): string {
  return agentId.replaceAll("_", " ");
}

/** A text as a title, and what is to be read besides if it is longer. */
function shortened(text: string): [string, () => string[]] {
  return text.length > SHOWN_LETTERS ? [`${text.slice(0, SHOWN_LETTERS)}…`, () => [text]] : [text, none];
}

/** A limit's figure in its own unit. */
function measured(figure: number, unit: LimitUnit): string {
  switch (unit) {
    case LimitUnit.ORDERS:
      return `${figure} orders`;
    case LimitUnit.SUM_OF_SQUARED_WEIGHTS:
      return figure.toFixed(4);
    case LimitUnit.FRACTION_OF_PEAK:
      return `${percent(figure)} below the peak`;
    case LimitUnit.FRACTION_OF_PREVIOUS_NAV:
      return `${percent(figure)} lost in a session`;
    case LimitUnit.FRACTION_OF_VOLUME:
      return `${percent(figure)} of the usual volume`;
    default:
      return `${percent(figure)} of net asset value`;
  }
}

function count<T>(items: T[], test: (item: T) => boolean): number {
  return items.filter(test).length;
}

/** How long an order is in force, if not for a session. */
function lasting(timeInForce?: TimeInForce): string {
  switch (timeInForce) {
    case TimeInForce.GOOD_TILL_CANCELED:
      return " until canceled";
    case TimeInForce.AT_THE_OPENING:
      return ", at its open";
    case TimeInForce.AT_THE_CLOSE:
      return ", at its close";
    default:
      return "";
  }
}

function expiry(reason: ExpiryReason): string {
  switch (reason) {
    case ExpiryReason.PARTICIPATION:
      return ": the session's volume left no room for more";
    case ExpiryReason.SPLIT:
      return ": the ticker was split";
    case ExpiryReason.DELISTED:
      return ": the ticker trades no more";
    default:
      return "";
  }
}

function action(one: CorporateActionApplied): string {
  switch (one.action.case) {
    case "split":
      return `${one.ticker} is split ${whole(one.action.value.new)} for ${whole(one.action.value.old)}`;
    case "delistedAtMicros":
      return `${one.ticker} is delisted at ${exactly(one.action.value)}`;
    case "dividendPerShareMicros":
      return `${one.ticker} pays ${exactly(one.action.value)} a share`;
    default:
      return one.ticker;
  }
}

export function describe(event: Event): Description {
  const who = named(event.agentId) || "desk";
  const said = (title: string, details: () => string[] = none): Description => ({ who, title, details });
  const payload = event.payload;
  switch (payload.case) {
    case "gatewayStarted":
      return said(`gateway ${event.generation} began after event ${payload.value.resumedAfter}`);
    case "pipelineStateChanged":
      return said(`pipeline is ${words(PipelineState, payload.value.state)}${payload.value.reason ? `: ${payload.value.reason}` : ""}`);
    case "paceChanged":
      return said(payload.value.sessionsPerS ? `pace ${payload.value.sessionsPerS} sessions/s` : "as fast as it can");
    case "stateCheckpoint":
      return said(`checkpoint after ${whole(payload.value.sessionsSettled)} sessions`);
    case "runStarted": {
      const run = payload.value;
      return said(`run of ${whole(run.sessions)} sessions, ${run.firstSession} to ${run.lastSession}, with ${dollars(run.initialCashMicros)}`, () => [
        `trades ${run.tickers.join(", ")}`,
        `agents ${run.agentIds.join(", ")}`,
        `configuration sha256 ${run.configSha256}`,
        `data ${run.dataSha256}`,
      ]);
    }
    case "sessionOpened":
      return said(`session ${whole(payload.value.sessionNumber)} opened`);
    case "pricesObserved": {
      const { moment, priceMicros } = payload.value;
      const traded = count(priceMicros, (one) => one > 0n);
      return said(`prices of the ${words(SessionMoment, moment)}: ${whole(traded)} of ${whole(priceMicros.length)} tickers traded`);
    }
    case "signals":
      return signals(payload.value, said);
    case "predictions":
      return said(
        payload.value.predictions.length ? `predicts ${whole(payload.value.predictions.length)} tickers` : "predicts nothing",
        () => payload.value.predictions.map((one) => `${one.ticker} ${words(Direction, one.direction)}, confidence ${percent(one.confidence)}`),
      );
    case "riskNotes": {
      const notes = payload.value;
      return said(`gross ${percent(notes.gross)}, net ${percent(notes.net)}, drawdown ${percent(notes.drawdown)}`, () =>
        notes.notes.map(
          (note) =>
            `${note.ticker} ${words(Severity, note.severity)}: may buy ${whole(note.maxBuyShares)}, sell ${whole(note.maxSellShares)}` +
            (note.volatility === undefined ? "" : `, volatility ${percent(note.volatility)}`) +
            (note.limit ? `, bound by ${words(LimitCode, note.limit)}` : ""),
        ),
      );
    }
    case "decisions": {
      const acts = payload.value.decisions.filter((one) => one.quantity !== 0n);
      const first = acts.slice(0, SHOWN_DECISIONS).map((one) => `${words(Action, one.action)} ${whole(one.quantity)} ${one.ticker}`);
      if (acts.length > SHOWN_DECISIONS) first.push(`${acts.length - SHOWN_DECISIONS} more`);
      return said(first.join(", ") || "holds everything", () =>
        payload.value.decisions.map(
          (one) =>
            `${one.ticker} ${words(Action, one.action)}${one.quantity ? ` ${whole(one.quantity)}` : ""}: score ${one.score.toFixed(2)}, ` +
            `confidence ${percent(one.confidence)}, aims at ${percent(one.targetWeight)} of net asset value`,
        ),
      );
    }
    case "ordersGated": {
      const results = payload.value.results;
      const cut = results.filter((one) => one.limit !== LimitCode.UNSPECIFIED);
      return said(`${whole(results.length - cut.length)} of ${whole(results.length)} orders pass whole`, () =>
        results.map(
          (one) =>
            `${one.order?.ticker}: ${whole(one.requestedQuantity)} asked, ${whole(one.order?.quantity ?? 0n)} go on` +
            (one.limit ? `, ${words(LimitCode, one.limit)}${one.group ? ` of ${one.group}` : ""}` : "") +
            (one.figure === undefined || one.limitValue === undefined ? "" : ` (${measured(one.figure, one.unit)}, limit ${measured(one.limitValue, one.unit)})`),
        ),
      );
    }
    case "approvalRequested":
      return said(`asks a person about ${whole(payload.value.order?.quantity ?? 0n)} ${payload.value.order?.ticker ?? ""}`);
    case "approvalResolved":
      return said(`${payload.value.orderId} was ${payload.value.approved ? "approved" : "refused"}${payload.value.decidedBy ? ` by ${payload.value.decidedBy}` : ""}`, () =>
        payload.value.reason ? [payload.value.reason] : [],
      );
    case "orderFilled": {
      const fill = payload.value;
      const verb = fill.side === Side.LONG ? "bought" : "sold";
      const forced = fill.origin === OrderOrigin.FORCED_LIQUIDATION ? " by force of a margin call" : "";
      return said(`${verb} ${whole(fill.quantity)} ${fill.ticker} at ${dollars(fill.priceMicros)}${forced}`, () => [
        `order ${fill.orderId}${fill.remainingQuantity ? `, of which ${whole(fill.remainingQuantity)} stay in force` : ""}`,
        `fee ${dollars(fill.feeMicros)}, realised ${dollars(fill.realisedMicros)}`,
        `position ${whole(fill.positionQuantity)}, cash ${dollars(fill.cashMicros)}`,
      ]);
    }
    case "orderRejected":
      return said(`${whole(payload.value.quantity)} ${payload.value.ticker} not filled: ${words(LimitCode, payload.value.reason)}`);
    case "orderSubmitted": {
      const order = payload.value.order;
      const price = order?.limitPriceMicros ? ` limit ${dollars(order.limitPriceMicros)}` : order?.stopPriceMicros ? ` stop ${dollars(order.stopPriceMicros)}` : "";
      const verb = order?.side === Side.LONG ? "buy" : "sell";
      return said(`${order?.submittedBy ?? ""} orders to ${verb} ${whole(order?.quantity ?? 0n)} ${order?.ticker ?? ""}${price}`, () => [
        `order ${order?.orderId ?? ""}`,
        `in force from session ${whole(payload.value.fromSession)}${lasting(order?.timeInForce)}`,
      ]);
    }
    case "orderCanceled":
      return said(`${payload.value.canceledBy} takes an order in ${payload.value.ticker} back`, () => [`order ${payload.value.orderId}`]);
    case "orderExpired":
      return said(`${whole(payload.value.quantity)} ${payload.value.ticker} expired without being executed${expiry(payload.value.reason)}`, () => [
        `order ${payload.value.orderId}`,
      ]);
    case "corporateActionsApplied": {
      const actions = payload.value.actions;
      return said(actions.map(action).join(", "), () => [
        ...actions
          .filter((one) => one.quantityBefore !== 0n)
          .map((one) => `${one.ticker}: ${whole(one.quantityBefore)} shares become ${whole(one.quantityAfter)}, cash ${dollars(one.amountMicros)}`),
        `cash ${dollars(payload.value.cashMicros)}`,
      ]);
    }
    case "marginCalled": {
      const call = payload.value;
      return said(`margin call: ${dollars(call.missingMicros)} are missing`, () => [
        `net asset value ${dollars(call.navMicros)}, maintenance margin ${dollars(call.requiredMicros)}`,
        "what is still missing at the next session's first prices is closed by force",
      ]);
    }
    case "settled": {
      const settled = payload.value;
      return said(`net asset value ${dollars(settled.navMicros)}`, () => [
        `cash ${dollars(settled.portfolio?.cashMicros ?? 0n)}`,
        ...settled.borrow.map((one) => `${one.ticker} borrowed for ${one.days} days: ${dollars(one.chargeMicros)}`),
        ...settled.baselines.map((one) => `${one.name} ${dollars(one.navMicros)}, desk ${signedPercent(ratio(settled.navMicros - one.navMicros, one.navMicros))}`),
      ]);
    }
    case "runFinished":
      return said(`finished after ${whole(payload.value.sessions)} sessions with ${dollars(payload.value.navMicros)}`);
    case "messageSent": {
      const { sender, agentIds, text } = payload.value;
      const [title, whole] = shortened(text);
      return { who: sender, title: `to ${agentIds.map(named).join(", ")}: ${title}`, details: whole };
    }
    case "messageAnswered":
      return said(...shortened(payload.value.text));
    default:
      return said("an event that this page does not know");
  }
}

function signals(value: Signals, said: (title: string, details?: () => string[]) => Description): Description {
  if (!value.signals.length) return said(`abstains: ${value.abstainedBecause}`);
  const stances = [Stance.BULLISH, Stance.BEARISH, Stance.NEUTRAL, Stance.ABSTAIN]
    .map((stance) => [stance, count(value.signals, (one) => one.stance === stance)] as const)
    .filter(([, number]) => number > 0)
    .map(([stance, number]) => `${number} ${words(Stance, stance)}`);
  return said(stances.join(", "), () =>
    value.signals.map((one, place) => {
      const figures = value.figures
        .filter((column) => Number.isFinite(column.values[place]))
        .map((column) => `${column.name.replaceAll("_", " ")} ${(column.values[place] ?? 0).toPrecision(3)}`);
      const reasons = [one.note, ...figures].filter(Boolean).join(", ");
      return `${one.ticker} ${words(Stance, one.stance)}, score ${one.score.toFixed(2)}, confidence ${percent(one.confidence)}${reasons ? `: ${reasons}` : ""}`;
    }),
  );
}
