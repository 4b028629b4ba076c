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

/** Each event of a response as {id, event, data}; comments are passed on as event "comment". */
export async function* readEvents(response) {
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

function parse(block) {
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

/** Whether the event with id `a` comes before that with id `b`. */
export function before(a, b) {
  const [[ms, n = 0], [other, m = 0]] = [a, b].map((id) => id.split("-").map(Number));
  return ms === other ? n < m : ms < other;
}

class Line {
  constructor(address, token) {
    this.address = address;
    this.headers = { Accept: "text/event-stream", ...(token && { Authorization: `Bearer ${token}` }) };
    this.topics = new Map(); // name -> {users, at}: the event after which the server goes on
    this.wait = FIRST_WAIT_MS;
  }

  /** The event after which this user is served, where it is known. */
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

  tell(message) {
    for (const { line, subs, post } of members) {
      if (line === this && (!message.topic || Object.values(subs).some(([topic]) => topic === message.topic)))
        post(message);
    }
  }
}

const lines = new Map(); // by token: what one may see another may not
const members = new Set();

function change(member, subs) {
  const { line, subs: old, post } = member;
  member.subs = subs;
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
 * {topic, id} (where it stands), {online}, {refused: status}, {again: true} (say once more what you want), {} (a sign of
 * life).
 */
export function join(post) {
  const member = { post, line: null, subs: {} };
  return ({ address, token, subs }) => {
    member.heard = Date.now();
    if (!subs) return post({ again: !members.has(member) });
    members.add(member);
    if (!lines.has(token)) lines.set(token, new Line(address, token));
    member.line ??= lines.get(token);
    return change(member, subs);
  };
}

if ("SharedWorkerGlobalScope" in globalThis) {
  globalThis.onconnect = ({ ports: [port] }) => {
    const take = join((message) => port.postMessage(message));
    port.onmessage = ({ data }) => take(data);
  };
  setInterval(() => {
    for (const member of members) {
      if (Date.now() - member.heard < ABSENT_MS) continue;
      members.delete(member);
      change(member, {});
    }
  }, ABSENT_MS / 5);
}
