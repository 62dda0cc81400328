/** The figures of a run at its last settled session. */

import { element, setText } from "../elements";
import { dollars, percent, ratio, signedPercent, whole } from "../format";
import type { RunState } from "../run_state";

const NAMES = ["Net asset value", "Return", "Against the index", "Drawdown", "Cash", "Fees paid", "Fills", "Session"] as const;

export class FiguresView {
  readonly root = element("dl", { class: "figures-grid" });
  private readonly values = new Map<string, HTMLElement>();

  constructor() {
    for (const name of NAMES) {
      const value = element("dd");
      this.values.set(name, value);
      this.root.append(element("div", {}, element("dt", {}, name), value));
    }
    this.value("Net asset value").dataset.testid = "nav";
  }

  private value(name: (typeof NAMES)[number]): HTMLElement {
    return this.values.get(name) as HTMLElement;
  }

  update(state: RunState): void {
    const nav = this.value("Net asset value");
    setText(nav, dollars(state.navMicros));
    nav.dataset.micros = String(state.navMicros);
    nav.dataset.sequence = String(state.settledAt);
    const change = ratio(state.navMicros - state.initialCashMicros, state.initialCashMicros);
    this.tell("Return", signedPercent(change), change);
    const desk = state.desk.at(-1) ?? Number.NaN;
    const market = state.market.at(-1) ?? Number.NaN;
    this.tell("Against the index", signedPercent(desk / market - 1), desk - market);
    setText(this.value("Drawdown"), percent(ratio(state.navMicros - state.peakMicros, state.peakMicros)));
    setText(this.value("Cash"), dollars(state.cashMicros));
    setText(this.value("Fees paid"), dollars(state.feesMicros));
    setText(this.value("Fills"), whole(state.fills));
    setText(this.value("Session"), `${state.sessionDate || "–"} · ${whole(state.sessionsSettled)} of ${whole(state.sessionsTotal)}`);
  }

  private tell(name: (typeof NAMES)[number], text: string, sign: number): void {
    const value = this.value(name);
    setText(value, text);
    value.dataset.sign = sign > 0 ? "up" : sign < 0 ? "down" : "";
  }
}
