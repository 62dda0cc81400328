/** What the pipeline does, and the buttons that change it. */

import { ConnectError } from "@connectrpc/connect";
import { PipelineState } from "@trademesh/contracts/trademesh/gateway/v1/event_pb.js";
import { StepSize } from "@trademesh/contracts/trademesh/gateway/v1/pipeline_service_pb.js";
import { element, setText } from "../elements";
import { words } from "../format";
import type { Mesh } from "../mesh/clients";
import type { RunState } from "../run_state";

const PACES = [1, 5, 20, 100, 0];
const CALL_TIMEOUT_MS = 10_000;

export class ControlsView {
  readonly root = element("div", { class: "controls" });
  private readonly state = element("span", { class: "state", "data-testid": "pipeline-state" });
  private readonly reason = element("span", { class: "reason" });
  private readonly toggle = element("button", { type: "button", "data-testid": "toggle" });
  private readonly step = element("button", { type: "button", "data-testid": "step" }, "Step one session");
  private readonly pace = element("select", { "aria-label": "Pace", "data-testid": "pace" });
  private readonly trouble = element("p", { class: "trouble", role: "alert" });
  private pipeline = PipelineState.UNSPECIFIED;

  constructor(mesh: Mesh, runId: string) {
    const options = { timeoutMs: CALL_TIMEOUT_MS };
    for (const value of PACES) this.pace.append(element("option", { value: String(value) }, value ? `${value} sessions/s` : "as fast as it can"));
    this.toggle.addEventListener("click", () =>
      this.attempt(() =>
        this.pipeline === PipelineState.RUNNING
          ? mesh.pipeline.pausePipeline({ runId, reason: "paused on the page" }, options)
          : this.pipeline === PipelineState.READY
            ? mesh.pipeline.startPipeline({ runId }, options)
            : mesh.pipeline.resumePipeline({ runId }, options),
      ),
    );
    this.step.addEventListener("click", () => this.attempt(() => mesh.pipeline.stepPipeline({ runId, size: StepSize.CYCLE }, options)));
    this.pace.addEventListener("change", () => this.attempt(() => mesh.pipeline.setPace({ runId, sessionsPerS: Number(this.pace.value) }, options)));
    this.root.append(this.state, this.reason, this.toggle, this.step, this.pace, this.trouble);
  }

  update(state: RunState, alive: boolean): void {
    this.pipeline = state.pipeline;
    const name = words(PipelineState, state.pipeline);
    setText(this.state, name);
    this.state.dataset.state = name;
    setText(this.reason, state.pipelineReason);
    const running = state.pipeline === PipelineState.RUNNING;
    setText(this.toggle, running ? "Pause" : state.pipeline === PipelineState.READY ? "Start" : "Resume");
    this.toggle.disabled = !alive || state.pipeline === PipelineState.FINISHED;
    this.step.disabled = !alive || state.pipeline !== PipelineState.PAUSED;
    this.pace.disabled = !alive;
    if (document.activeElement !== this.pace) this.showPace(state.pace);
  }

  private showPace(pace: number): void {
    if (![...this.pace.options].some((option) => Number(option.value) === pace)) {
      this.pace.append(element("option", { value: String(pace) }, `${pace} sessions/s`));
    }
    this.pace.value = String(pace);
  }

  private async attempt(work: () => Promise<unknown>): Promise<void> {
    setText(this.trouble, "");
    try {
      await work();
    } catch (reason) {
      setText(this.trouble, ConnectError.from(reason).rawMessage);
    }
  }
}
