// One streamed generation: POST /api/generate with `stream`, its tokens as they come.
import { send, Problem } from "./api.js";
import { readEvents } from "./sse.js";

/** Calls `onToken(token)` for each; gives the whole reply. A Problem when it fails, also in the middle. */
export async function generate(body, { onToken, signal }) {
  const reply = await send("api/generate", {
    method: "POST",
    body: { ...body, stream: true },
    headers: { Accept: "text/event-stream" },
    signal,
  });
  for await (const event of readEvents(reply)) {
    if (event.event === "comment") continue;
    const data = JSON.parse(event.data);
    if (event.event === "token") onToken(data);
    else if (event.event === "done") return data;
    else if (event.event === "error") throw new Problem(data.status, { detail: data.message, code: data.code });
  }
  throw new Problem(0, { detail: "The connection ended before the text did.", code: "interrupted" });
}
