// Server-sent events over fetch, because EventSource can send neither a token nor a body.
//
// `follow` keeps one stream alive: it goes on after the last id, takes 45 s of silence for a broken line, waits longer
// after each failure, and rests while the page is hidden (a browser has six connections to a host). `readEvents` takes
// one response apart.
import { send, connection } from "./api.js";

const SILENCE_MS = 45_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const HIDDEN_MS = 60_000;

/** Each event of a response as {id, event, data}; comments are passed on as event "comment". */
export async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      buffer += value.replaceAll("\r\n", "\n");
      let end;
      while ((end = buffer.indexOf("\n\n")) >= 0) {
        yield parse(buffer.slice(0, end));
        buffer = buffer.slice(end + 2);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  const found = { id: null, event: "message", data: [] };
  let comment = true;
  for (const line of block.split("\n")) {
    if (!line || line.startsWith(":")) continue;
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") found.data.push(value);
    else if (name === "id") found.id = value;
    else if (name === "event") found.event = value;
    if (name !== "retry") comment = false;
  }
  if (comment) found.event = "comment";
  return { ...found, data: found.data.join("\n") };
}

/**
 * Follow `path` from `since` until the returned function is called. `onEvent(name, data, id)` gets every event parsed;
 * `onState("live" | "waiting" | "ended", problem)` says how it goes.
 */
export function follow(path, { since = null, onEvent, onState = () => {} }) {
  let cursor = since;
  let wait = FIRST_WAIT_MS;
  let stopped = false;
  let current = null;
  let wake = () => {};
  let hiddenTimer = 0;

  async function once() {
    const aborter = new AbortController();
    current = aborter;
    let silence = 0;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => aborter.abort(), SILENCE_MS);
    };
    heard();
    try {
      const headers = { Accept: "text/event-stream" };
      if (cursor) headers["Last-Event-ID"] = cursor;
      const response = await send(path, { headers, signal: aborter.signal });
      onState("live");
      for await (const event of readEvents(response)) {
        heard();
        wait = FIRST_WAIT_MS;
        if (stopped) return;
        if (event.id) cursor = event.id;
        if (event.event !== "comment") onEvent(event.event, event.data ? JSON.parse(event.data) : null, event.id);
      }
    } finally {
      clearTimeout(silence);
      current = null;
    }
  }

  async function run() {
    while (!stopped) {
      try {
        await once();
      } catch (error) {
        if (stopped) return;
        if ([401, 403, 404, 422].includes(error.status)) {
          onState("ended", error);
          return;
        }
        if (error.name === "TypeError") connection.set("offline"); // the body broke off
      }
      if (stopped) return;
      onState("waiting");
      await new Promise((resolve) => {
        wake = resolve;
        if (!document.hidden) setTimeout(resolve, wait);
      });
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }

  function visibility() {
    clearTimeout(hiddenTimer);
    if (document.hidden) hiddenTimer = setTimeout(() => current?.abort(), HIDDEN_MS);
    else wake();
  }
  document.addEventListener("visibilitychange", visibility);
  run();
  return () => {
    stopped = true;
    clearTimeout(hiddenTimer);
    document.removeEventListener("visibilitychange", visibility);
    current?.abort();
    wake();
  };
}
