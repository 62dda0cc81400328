/** A line to speak to the agents of a run. What they answer comes as events, as it does to everybody else. */

import { ConnectError } from "@connectrpc/connect";
import { element, setText } from "../elements";
import type { Mesh } from "../mesh/clients";

const CALL_TIMEOUT_MS = 10_000;

export class SayView {
  private readonly text = element("input", {
    type: "text",
    maxlength: "4000",
    placeholder: "Ask the agents, for example: why GE?",
    "aria-label": "Message to the agents",
    "data-testid": "say",
  });
  private readonly button = element("button", { type: "submit" }, "Ask");
  private readonly trouble = element("p", { class: "trouble", role: "alert" });
  readonly root = element("form", { class: "card say" }, this.text, this.button, this.trouble);

  constructor(mesh: Mesh, runId: string) {
    this.root.addEventListener("submit", (submit) => {
      submit.preventDefault();
      void this.say(mesh, runId);
    });
  }

  update(alive: boolean): void {
    this.button.disabled = !alive;
  }

  private async say(mesh: Mesh, runId: string): Promise<void> {
    const text = this.text.value.trim();
    if (!text) return;
    setText(this.trouble, "");
    // Only a page from this machine or by https can make an id; without one the call is not safe to repeat, and nobody here repeats it.
    const requestId = "randomUUID" in crypto ? crypto.randomUUID() : "";
    try {
      await mesh.pipeline.sendMessage({ runId, text, requestId, sender: "a person on the page" }, { timeoutMs: CALL_TIMEOUT_MS });
      this.text.value = "";
    } catch (reason) {
      setText(this.trouble, ConnectError.from(reason).rawMessage);
    }
  }
}
