// Sends requests whose reply is a stream of events: generations with their tokens, and analyses with their progress.
import { send, Problem } from "./api.js";
import { readEvents } from "./stream-connection.js";

/**
 * Posts `body` with `stream: true`, calls `on[name](data)` for each event, and returns the data of the event `done`.
 * Throws a Problem if the request fails, or if the stream ends without a complete result.
 *
 * @template {string} const P
 * @param {P & Api.Known<P, "post">} path
 * @param {Api.Body<P, "post">} body
 * @param {{on: Api.AnswerHandlers, signal?: AbortSignal}} options
 * @returns {Promise<Api.Reply<P, "post">>}
 */
export async function postForEvents(path, body, { on, signal }) {
  const reply = await send(path, {
    method: "POST",
    body: { .../** @type {object} */ (body), stream: true },
    headers: { Accept: "text/event-stream" },
    signal,
  });
  try {
    for await (const { event, data } of readEvents(reply)) {
      if (event === "comment") continue;
      const found = JSON.parse(data);
      if (event === "error") throw new Problem(found.status ?? 500, { detail: found.message, code: found.code });
      if (event !== "done") on[/** @type {keyof Api.AnswerHandlers} */ (event)]?.(found);
      else if (found.finishReason !== "cancelled") return found;
      else throw new Problem(503, { detail: "The server cancelled the generation. Try again.", code: "cancelled" });
    }
  } catch (error) {
    if (error instanceof Problem || signal?.aborted) throw error;
  }
  throw new Problem(0, {
    detail: "The connection ended before the reply was complete. Try again.",
    code: "interrupted",
  });
}

/**
 * Generates text, calls `onToken(token)` for each token, and returns the complete reply.
 *
 * @param {Api.Body<"api/generate", "post">} body
 * @param {{onToken: (token: Api.Token) => void, signal: AbortSignal}} options
 */
export const generate = (body, { onToken, signal }) =>
  /** @type {Promise<Api.Generated>} */ (postForEvents("api/generate", body, { on: { token: onToken }, signal }));
