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

// Only these end a line; U+2028 and the like are text.
const LINE_END = /\r\n|\r|\n/;

/** Each event of a response as {id, event, data}; comments are passed on as event "comment". */
export async function* readEvents(response) {
  let found = empty();
  for await (const line of readLines(response)) {
    if (line) {
      take(found, line);
      continue;
    }
    if (found.data.length || found.comment) {
      yield { id: found.id, event: found.data.length ? found.event : "comment", data: found.data.join("\n") };
    }
    found = empty();
  }
}

/** The lines of a response as soon as each is complete; the decoder takes a byte order mark off. */
async function* readLines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let unfinished = "";
  let afterReturn = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      if (!value) continue;
      // The carriage return at the end of the last chunk has ended its line; this is the rest of that line end.
      const lines = (afterReturn && value[0] === "\n" ? value.slice(1) : value).split(LINE_END);
      afterReturn = value.endsWith("\r");
      lines[0] = unfinished + lines[0];
      unfinished = lines.pop();
      yield* lines;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function empty() {
  return { id: null, event: "message", data: [], comment: false };
}

function take(found, line) {
  const colon = line.indexOf(":");
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (colon === 0) found.comment = true;
  else if (name === "data") found.data.push(value);
  else if (name === "id" && !value.includes("\0")) found.id = value;
  else if (name === "event") found.event = value || "message";
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
