/** The list of runs, newest first. */

import { type Run, RunState as State } from "@trademesh/contracts/trademesh/runtime/v1/runtime_pb.js";
import { element, setText } from "../elements";
import { dollars, whole, words } from "../format";

interface Row {
  root: HTMLLIElement;
  link: HTMLAnchorElement;
  state: HTMLElement;
  progress: HTMLProgressElement;
  figures: HTMLElement;
}

/** The order of runs in which the newest is the first. */
export function newestFirst(a: Run, b: Run): number {
  return created(b) > created(a) ? 1 : created(b) < created(a) ? -1 : 0;
}

function created(run: Run): bigint {
  return (run.createdAt?.seconds ?? 0n) * 1_000_000_000n + BigInt(run.createdAt?.nanos ?? 0);
}

export class RunsView {
  private readonly rows = new Map<string, Row>();

  constructor(private readonly list: HTMLElement) {}

  update(runs: Map<string, Run>, selected: string): void {
    const newest = [...runs.values()].sort(newestFirst);
    if (!newest.length) {
      this.list.replaceChildren(element("li", { class: "empty" }, "No runs yet. Start one: trademesh run start BOOTSTRAP.md"));
      this.rows.clear();
      return;
    }
    newest.forEach((run, place) => {
      const row = this.rows.get(run.runId) ?? this.add(run.runId);
      fill(row, run, run.runId === selected);
      if (this.list.children[place] !== row.root) this.list.insertBefore(row.root, this.list.children[place] ?? null);
    });
    for (const extra of [...this.list.children].slice(newest.length)) extra.remove();
  }

  private add(runId: string): Row {
    const state = element("span", { class: "state" });
    const progress = element("progress", { max: "1", value: "0", "aria-label": `progress of ${runId}` });
    const figures = element("span", { class: "figures" });
    const link = element("a", { href: `#/runs/${runId}` }, element("strong", {}, runId), state, progress, figures);
    const row = { root: element("li", { "data-testid": "run-row", "data-run-id": runId }, link), link, state, progress, figures };
    this.rows.set(runId, row);
    return row;
  }
}

function fill(row: Row, run: Run, selected: boolean): void {
  const name = words(State, run.state);
  setText(row.state, name);
  row.state.dataset.state = name;
  row.link.title = run.reason;
  if (selected) row.link.setAttribute("aria-current", "page");
  else row.link.removeAttribute("aria-current");
  const { sessionsSettled = 0, sessionsTotal = 0, navMicros = 0n } = run.progress ?? {};
  row.progress.max = Math.max(1, sessionsTotal);
  row.progress.value = sessionsSettled;
  setText(row.figures, sessionsTotal ? `${whole(sessionsSettled)} of ${whole(sessionsTotal)} · ${dollars(navMicros)}` : run.reason);
}
