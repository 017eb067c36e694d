// Lets a program wait, in its middle, for its run to be terminated by somebody else.
import { once } from "node:events";

export async function untilTerminated() {
  console.log("waiting");
  await once(process.stdin, "data");
  process.stdin.pause();
}
