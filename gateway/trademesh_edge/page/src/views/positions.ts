/** Open positions at the last settled close, largest first. */

import type { Position } from "@trademesh/contracts/trademesh/gateway/v1/event_pb.js";
import { element } from "../elements";
import { dollars, percent, price, ratio, whole } from "../format";
import type { RunState } from "../run_state";

const COLUMNS = ["Ticker", "Shares", "Mark", "Value", "Weight", "Unrealised"];

export class PositionsView {
  readonly root = element("section", { class: "card", "aria-label": "Positions" });
  private readonly body = element("tbody", { "data-testid": "positions" });
  private shownAt = -1n;

  constructor() {
    const head = element("tr", {}, ...COLUMNS.map((name) => element("th", { scope: "col" }, name)));
    this.root.append(element("h2", {}, "Positions"), element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), this.body)));
  }

  update(state: RunState): void {
    if (state.settledAt === this.shownAt) return;
    this.shownAt = state.settledAt;
    const rows = state.positions
      .map((position) => ({ position, value: position.quantity * (position.markMicros ?? 0n) }))
      .sort((a, b) => Math.abs(Number(b.value)) - Math.abs(Number(a.value)))
      .map(({ position, value }) => row(position, value, state.navMicros));
    const empty = element("tr", {}, element("td", { colspan: String(COLUMNS.length), class: "empty" }, "No positions"));
    this.body.replaceChildren(...(rows.length ? rows : [empty]));
  }
}

function row(position: Position, value: bigint, nav: bigint): HTMLTableRowElement {
  const unrealised = value - position.costMicros;
  const cell = (text: string, sign?: bigint) => element("td", sign === undefined ? {} : { "data-sign": sign > 0n ? "up" : sign < 0n ? "down" : "" }, text);
  return element(
    "tr",
    { "data-ticker": position.ticker },
    element("th", { scope: "row" }, position.ticker),
    cell(whole(position.quantity)),
    cell(price(position.markMicros)),
    cell(dollars(value)),
    cell(percent(ratio(value, nav))),
    cell(dollars(unrealised), unrealised),
  );
}
