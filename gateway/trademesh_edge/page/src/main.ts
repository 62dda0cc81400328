/** The page: which run is looked at, and what the connection does. */

import type { Run } from "@trademesh/contracts/trademesh/runtime/v1/runtime_pb.js";
import { byId, element, setText } from "./elements";
import { connectToMesh } from "./mesh/clients";
import { keep } from "./mesh/follow";
import type { ConnectionState } from "./mesh/socket";
import "./style.css";
import { RunView } from "./views/run";
import { newestFirst, RunsView } from "./views/runs";

const badge = byId("connection");
const main = byId("main");
const runs = new Map<string, Run>();
const runsView = new RunsView(byId("runs"));
let view: RunView | undefined;
let selected = "";
let connection: ConnectionState = { kind: "connecting" };
let runsTrouble = "";
let allTold = false;
let drawing = false;

const mesh = connectToMesh((state) => {
  connection = state;
  showConnection();
});

function showConnection(): void {
  const seconds = connection.kind === "waiting" ? Math.max(0, Math.ceil((connection.retryAt - Date.now()) / 1000)) : 0;
  const text = {
    connecting: "connecting",
    open: runsTrouble ? `connected, but ${runsTrouble}` : "connected",
    waiting: `reconnecting in ${seconds} s`,
    stopped: connection.kind === "stopped" ? connection.reason : "",
  }[connection.kind];
  setText(badge, text);
  badge.dataset.state = connection.kind === "open" && runsTrouble ? "trouble" : connection.kind;
}

function route(): void {
  const wanted = /^#\/runs\/([a-z0-9][a-z0-9-]{0,62})$/.exec(location.hash)?.[1] ?? "";
  if (wanted === selected && (wanted === "" || view)) return;
  view?.leave();
  selected = wanted;
  view = wanted ? new RunView(mesh, wanted) : undefined;
  main.replaceChildren(view?.root ?? element("p", { class: "card empty" }, "Choose a run."));
  document.title = wanted ? `${wanted} · trademesh` : "trademesh";
  showRuns();
}

/** At most once per frame, however many runs are told at once. */
function drawRuns(): void {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    showRuns();
  });
}

function showRuns(): void {
  runsView.update(runs, selected);
  view?.tell(runs.get(selected));
  if (!selected && allTold && runs.size) {
    const newest = [...runs.values()].reduce((a, b) => (newestFirst(a, b) > 0 ? b : a));
    location.replace(`#/runs/${newest.runId}`);
  }
}

addEventListener("hashchange", route);
setInterval(showConnection, 1000);
route();
void keep(
  new AbortController().signal,
  async (progressed) => {
    for await (const { kind } of mesh.runtime.watchRuns({})) {
      progressed();
      if (kind.case === "run") runs.set(kind.value.runId, kind.value);
      // The first checkpoint says that every run was told: before it the newest is not known.
      if (kind.case === "checkpoint") allTold = true;
      drawRuns();
    }
    return false;
  },
  (text) => {
    runsTrouble = text;
    showConnection();
  },
);
