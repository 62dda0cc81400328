/** One run: its controls, figures, curve, positions and events, kept up to date until it is left. */

import { type Run, RunState as State } from "@trademesh/contracts/trademesh/runtime/v1/runtime_pb.js";
import { element, setText } from "../elements";
import { words } from "../format";
import type { Mesh } from "../mesh/clients";
import { followRun } from "../run_feed";
import { RunState } from "../run_state";
import { ControlsView } from "./controls";
import { CurveView } from "./curve";
import { EventsView } from "./events";
import { FiguresView } from "./figures";
import { PositionsView } from "./positions";
import { SayView } from "./say";

const ENDED = new Set([State.STOPPED, State.SUCCEEDED, State.FAILED]);

export class RunView {
  readonly root = element("div", { class: "run" });
  private readonly state = new RunState();
  private readonly leaving = new AbortController();
  private readonly supervision = element("p", { class: "supervision", "data-testid": "run-state" });
  private readonly trouble = element("p", { class: "trouble", role: "alert", "data-testid": "feed-trouble" });
  private readonly source = element("p", { class: "source", role: "status", "data-testid": "feed-source" });
  private readonly controls: ControlsView;
  private readonly figures = new FiguresView();
  private readonly curve = new CurveView();
  private readonly positions = new PositionsView();
  private readonly say: SayView;
  private readonly events = new EventsView();
  private run: Run | undefined;
  private drawing = false;

  constructor(mesh: Mesh, runId: string) {
    this.controls = new ControlsView(mesh, runId);
    this.say = new SayView(mesh, runId);
    this.root.append(
      element("div", { class: "card head" }, element("h1", {}, runId), this.supervision, this.controls.root, this.trouble, this.source, this.figures.root),
      element("div", { class: "columns" }, element("div", {}, this.curve.root, this.positions.root), element("div", {}, this.say.root, this.events.root)),
    );
    void followRun(
      mesh,
      runId,
      this.state,
      this.leaving.signal,
      () => this.draw(),
      (text) => setText(this.trouble, text),
      (missing) => setText(this.source, missing && `The run's feed is lost and looked for: ${missing}. What is shown is what was last known.`),
    );
  }

  /** What runtime_service says of the run. */
  tell(run: Run | undefined): void {
    this.run = run;
    this.draw();
  }

  leave(): void {
    this.leaving.abort();
    this.curve.destroy();
  }

  /** At most once per frame, however fast events come. */
  private draw(): void {
    if (this.drawing || this.leaving.signal.aborted) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      if (this.leaving.signal.aborted) return;
      const run = this.run;
      const restarts = run?.restartCount ? `, restarted ${run.restartCount} ${run.restartCount === 1 ? "time" : "times"}` : "";
      setText(this.supervision, run ? `gateway ${words(State, run.state)}${run.reason ? `: ${run.reason}` : ""}${restarts}` : "");
      const alive = run !== undefined && !ENDED.has(run.state) && run.target !== "";
      this.controls.update(this.state, alive);
      this.say.update(alive);
      this.figures.update(this.state);
      this.curve.update(this.state);
      this.positions.update(this.state);
      this.events.update(this.state);
    });
  }
}
