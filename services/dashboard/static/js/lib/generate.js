// Requests that are answered by a stream of events: generations token by token, analyses with their progress.
import { send, Problem } from "./api.js";
import { readEvents } from "./line.js";

/** Posts `body` with `stream`; `on[event](data)` for each event; gives the data of `done`. Throws a Problem. */
export async function postForEvents(path, body, { on, signal }) {
  const reply = await send(path, {
    method: "POST",
    body: { ...body, stream: true },
    headers: { Accept: "text/event-stream" },
    signal,
  });
  for await (const event of readEvents(reply)) {
    if (event.event === "comment") continue;
    const data = JSON.parse(event.data);
    if (event.event === "done") return data;
    if (event.event === "error") throw new Problem(data.status, { detail: data.message, code: data.code });
    on[event.event]?.(data);
  }
  throw new Problem(0, { detail: "The connection ended before the answer did.", code: "interrupted" });
}

/** Calls `onToken(token)` for each token; gives the whole reply. */
export const generate = (body, { onToken, signal }) => postForEvents("api/generate", body, { on: { token: onToken }, signal });
