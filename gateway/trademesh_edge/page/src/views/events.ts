/** What happened, newest first, each with its reasons on demand. */

import type { Event } from "@trademesh/contracts/trademesh/gateway/v1/event_pb.js";
import { describe } from "../describe";
import { element } from "../elements";
import type { RunState } from "../run_state";

const MOST_ROWS = 150;
/** Kinds that say little by themselves; they are shown on request. */
const QUIET = new Set(["sessionOpened", "stateCheckpoint", "predictions", "riskNotes"]);

export class EventsView {
  readonly root = element("section", { class: "card events", "aria-label": "Events" });
  private readonly list = element("ol", { "data-testid": "events", tabindex: "0" });
  private readonly everything = element("input", { type: "checkbox", id: "everything" });
  private readonly rows = new Map<bigint, HTMLLIElement>();
  private shown: Event[] | undefined;
  private state: RunState | undefined;

  constructor() {
    this.everything.addEventListener("change", () => {
      this.shown = undefined;
      if (this.state) this.update(this.state);
    });
    const label = element("label", { for: "everything" }, this.everything, " every kind");
    this.root.append(element("div", { class: "title" }, element("h2", {}, "Events"), label), this.list);
  }

  update(state: RunState): void {
    this.state = state;
    if (state.events === this.shown) return;
    this.shown = state.events;
    const wanted = state.events.filter((event) => this.everything.checked || !QUIET.has(event.payload.case ?? "")).slice(0, MOST_ROWS);
    const keep = new Set(wanted.map((event) => event.sequence));
    for (const [sequence, row] of this.rows) {
      if (!keep.has(sequence)) {
        row.remove();
        this.rows.delete(sequence);
      }
    }
    wanted.forEach((event, place) => {
      let row = this.rows.get(event.sequence);
      if (!row) {
        row = makeRow(event);
        this.rows.set(event.sequence, row);
      }
      if (this.list.children[place] !== row) this.list.insertBefore(row, this.list.children[place] ?? null);
    });
    if (!wanted.length) this.list.replaceChildren(element("li", { class: "empty" }, "Nothing has happened yet"));
    else this.list.querySelector(".empty")?.remove();
  }
}

function makeRow(event: Event): HTMLLIElement {
  const { who, title, details } = describe(event);
  const head = [
    element("span", { class: "sequence" }, `#${event.sequence}`),
    element("span", { class: "date" }, event.sessionDate),
    element("span", { class: "who" }, who),
    element("span", { class: "what" }, title),
  ];
  const row = element("li", { "data-testid": "event-row", "data-sequence": String(event.sequence), "data-kind": event.payload.case ?? "" });
  const reasons = details();
  if (!reasons.length) {
    row.append(element("div", { class: "line" }, ...head));
    return row;
  }
  const fold = element("details", {}, element("summary", { class: "line" }, ...head));
  fold.addEventListener("toggle", () => {
    if (fold.open && fold.childElementCount === 1) fold.append(element("ul", {}, ...reasons.map((reason) => element("li", {}, reason))));
  });
  row.append(fold);
  return row;
}
