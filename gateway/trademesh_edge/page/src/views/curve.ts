/** The equity curve of the desk against the index. */

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { element } from "../elements";
import type { RunState } from "../run_state";

const SHORT = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 });
const EXACT = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export class CurveView {
  readonly root = element("section", { class: "card curve", "aria-label": "Equity curve" });
  private readonly holder = element("div", { class: "plot", "data-testid": "equity", "data-points": "0" });
  private plot: uPlot | undefined;
  private shown = -1;

  private readonly resized = new ResizeObserver(() => this.resize());
  private readonly destroyed = new AbortController();
  private last: RunState | undefined;

  constructor() {
    this.root.append(element("h2", {}, "Equity, US dollars"), this.holder);
    this.resized.observe(this.holder);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild(), { signal: this.destroyed.signal });
  }

  private get size() {
    const width = Math.max(200, this.holder.clientWidth);
    return { width, height: Math.round(Math.min(380, Math.max(220, width * 0.42))) };
  }

  update(state: RunState): void {
    this.last = state;
    if (state.times.length === this.shown) return;
    this.shown = state.times.length;
    // The index has no name before its first value.
    if (!this.plot && !this.shown) return;
    const data: uPlot.AlignedData = [state.times, state.desk, state.market];
    if (!this.plot) this.plot = new uPlot(this.options(state.marketName), data, this.holder);
    else this.plot.setData(data);
    this.holder.dataset.points = String(state.times.length);
  }

  private resize(): void {
    this.plot?.setSize(this.size);
  }

  private rebuild(): void {
    this.plot?.destroy();
    this.plot = undefined;
    this.shown = -1;
    if (this.last) this.update(this.last);
  }

  destroy(): void {
    this.resized.disconnect();
    this.destroyed.abort();
    this.plot?.destroy();
  }

  private options(marketName: string): uPlot.Options {
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    const value = (_plot: uPlot, raw: number | null) => (raw === null || Number.isNaN(raw) ? "–" : `$${EXACT.format(raw)}`);
    return {
      ...this.size,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
      cursor: { y: false },
      scales: { x: { time: true } },
      axes: [axis, { ...axis, size: 62, values: (_plot, marks) => marks.map((mark) => `$${SHORT.format(mark)}`) }],
      series: [
        { value: "{YYYY}-{MM}-{DD}" },
        { label: "desk", stroke: colour("--desk"), width: 2, value },
        { label: marketName || "index", stroke: colour("--market"), width: 1.5, dash: [5, 4], value },
      ],
    };
  }
}
