/** Keeps a stream alive: whatever ends it, it is begun again, after a while that grows. */

import { Code, ConnectError } from "@connectrpc/connect";

const FIRST_WAIT_MS = 200;
const LONGEST_WAIT_MS = 5_000;

/** Runs `once` again and again until it returns true or the signal is aborted. `progressed` resets the waiting. */
export async function keep(
  signal: AbortSignal,
  once: (progressed: () => void) => Promise<boolean>,
  onTrouble: (text: string) => void,
): Promise<void> {
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    try {
      const done = await once(() => {
        wait = FIRST_WAIT_MS;
        onTrouble("");
      });
      if (done) return;
    } catch (reason) {
      if (signal.aborted) return;
      const error = ConnectError.from(reason);
      // A lost socket has its own badge.
      if (error.code !== Code.Unavailable || wait > 1_000) onTrouble(error.rawMessage);
    }
    await sleep(wait * (0.5 + Math.random()), signal);
    wait = Math.min(LONGEST_WAIT_MS, wait * 2);
  }
}

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
