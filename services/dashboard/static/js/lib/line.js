// One connection for the live streams of all windows of a browser, which has six connections to a host.
//
// Runs as a SharedWorker; where there is none, `lib/sse.js` runs it in the window. A window says which streams (topics)
// it wants and after which event; it gets every event of them, maybe some twice, and drops those it knows. The line
// goes on after the last event of each topic, takes 45 s of silence for a broken connection, and waits longer after
// each failure. Imports nothing, so that the worker is one file.
const SILENCE_MS = 45_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const SETTLE_MS = 20;
const ABSENT_MS = 150_000; // the timers of a hidden window run once a minute

/**
 * Each event of a response as {id, event, data}; comments are passed on as event "comment".
 *
 * @param {Response} response
 */
export async function* readEvents(response) {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let silence = 0;
  let buffer = "";
  try {
    for (;;) {
      clearTimeout(silence);
      silence = setTimeout(() => reader.cancel().catch(() => {}), SILENCE_MS);
      const { done, value } = await reader.read();
      if (done) return;
      buffer = (buffer + value).replace(/\r\n|\r(?=[^\n])/g, "\n");
      let end;
      while ((end = buffer.indexOf("\n\n")) >= 0) {
        yield parse(buffer.slice(0, end));
        buffer = buffer.slice(end + 2);
      }
    }
  } finally {
    clearTimeout(silence);
    reader.cancel().catch(() => {});
  }
}

/** @param {string} block */
function parse(block) {
  /** @type {{id: string | null, event: string, data: string[]}} */
  const found = { id: null, event: "message", data: [] };
  let comment = true;
  for (const line of block.split("\n")) {
    if (!line || line.startsWith(":")) continue;
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") found.data.push(value);
    else if (name === "id" && !value.includes("\0")) found.id = value;
    else if (name === "event") found.event = value;
    if (name !== "retry") comment = false;
  }
  if (comment) found.event = "comment";
  return { ...found, data: found.data.join("\n") };
}

/**
 * Returns whether the event with id `a` precedes the one with id `b`.
 *
 * @param {string} a
 * @param {string} b
 */
export function before(a, b) {
  const [[ms, n = 0], [other, m = 0]] = [a, b].map((id) => id.split("-").map(Number));
  return ms === other ? n < m : ms < other;
}

class Line {
  /**
   * @param {string} address
   * @param {string | null} token
   */
  constructor(address, token) {
    this.address = address;
    /** @type {Record<string, string>} */
    this.headers = { Accept: "text/event-stream", ...(token && { Authorization: `Bearer ${token}` }) };
    /** @type {Map<string, {users: number, at: string | null}>} */
    this.topics = new Map(); // by name; the server goes on after the event `at`
    this.wait = FIRST_WAIT_MS;
    this.timer = 0;
    /** @type {AbortController | null} */
    this.aborter = null;
  }

  /**
   * The event after which this user is served, where it is known.
   *
   * @param {string} name
   * @param {string | null} since
   */
  open(name, since) {
    const topic = this.topics.get(name) ?? { users: 0, at: since };
    this.topics.set(name, topic);
    topic.users += 1;
    if (topic.users > 1) {
      if (!since || (topic.at && !before(since, topic.at))) return topic.at;
      topic.at = since; // the others drop what they get again
    }
    this.restart();
    return since;
  }

  /** @param {string} name */
  close(name) {
    const topic = this.topics.get(name);
    if (!topic || (topic.users -= 1)) return;
    this.topics.delete(name);
    this.restart();
  }

  /** With the topics of now. The connection of before ends at once, so that it moves no position any more. */
  restart() {
    this.aborter?.abort();
    this.later(SETTLE_MS);
  }

  /** @param {number} pause */
  later(pause) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), pause);
  }

  async connect() {
    if (!this.topics.size) return;
    const { signal } = (this.aborter = new AbortController());
    try {
      await this.read(signal);
    } catch (error) {
      if (signal.aborted) return;
      this.tell(error.status ? { refused: error.status } : { online: false }); // no answer, or its body broke off
      if ([401, 403, 422].includes(error.status)) return;
    }
    if (signal.aborted) return;
    this.later(this.wait);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS);
  }

  /** @param {AbortSignal} signal */
  async read(signal) {
    const asked = new URLSearchParams([...this.topics].map(([name, { at }]) => ["topic", at ? `${name}@${at}` : name]));
    const reply = await fetch(`${this.address}?${asked}`, { headers: this.headers, signal, cache: "no-store" });
    this.tell({ online: true });
    if (!reply.ok) throw reply;
    let name = "";
    for await (const { event, data, id } of readEvents(reply)) {
      if (signal.aborted) return;
      this.wait = FIRST_WAIT_MS;
      if (event === "topic") name = JSON.parse(data);
      const topic = this.topics.get(name);
      if (!topic || event === "topic" || event === "comment") continue;
      if (event === "reset") topic.at = null;
      else if (id) topic.at = id;
      else if (event === "error") this.topics.delete(name); // there is no such stream
      this.tell({ topic: name, name: event, data, id });
    }
  }

  /** @param {Ui.LineMessage} message */
  tell(message) {
    for (const { line, subs, post } of members) {
      if (line === this && (!message.topic || Object.values(subs).some(([topic]) => topic === message.topic)))
        post(message);
    }
  }
}

/** @type {Map<string | null, Line>} */
const lines = new Map(); // by token: what one may see another may not
/**
 * @typedef {Record<string, Ui.Sub>} Subs
 * @typedef {{post: (message: Ui.LineMessage) => void, line: Line | null, subs: Subs, heard: number}} Member
 * @type {Set<Member>}
 */
const members = new Set();

/**
 * @param {Member} member
 * @param {Subs} subs
 */
function change(member, subs) {
  const { line, subs: old, post } = member;
  member.subs = subs;
  if (!line) return;
  for (const [key, [topic, since]] of Object.entries(subs)) {
    if (key in old) continue;
    const at = line.open(topic, since);
    if (at) post({ topic, id: at });
  }
  for (const [key, [topic]] of Object.entries(old)) if (!(key in subs)) line.close(topic);
}

/**
 * A window joins; gives the function that takes its messages. {address, token, subs: {key: [topic, since]}} is all it
 * wants from now on (by one token only), anything else a sign of life. `post` gets {topic, name, data, id},
 * {topic, id} (where it stands), {online}, {refused: status}, {again: true} (say once more what you want), {} (a sign
 * of life).
 *
 * @param {(message: Ui.LineMessage) => void} post
 * @returns {(message: Ui.LineWish) => void}
 */
export function join(post) {
  /** @type {Member} */
  const member = { post, line: null, subs: {}, heard: 0 };
  return (wish) => {
    member.heard = Date.now();
    if (!wish.subs) return post({ again: !members.has(member) });
    const { address, token, subs } = wish;
    members.add(member);
    const line = lines.get(token) ?? new Line(address, token);
    lines.set(token, line);
    member.line ??= line;
    return change(member, subs);
  };
}

if ("SharedWorkerGlobalScope" in globalThis) {
  globalThis.addEventListener("connect", (event) => {
    const [port] = /** @type {MessageEvent} */ (event).ports;
    const take = join((message) => port.postMessage(message));
    port.onmessage = ({ data }) => take(data);
  });
  setInterval(() => {
    for (const member of members) {
      if (Date.now() - member.heard < ABSENT_MS) continue;
      members.delete(member);
      change(member, {});
    }
  }, ABSENT_MS / 5);
}
