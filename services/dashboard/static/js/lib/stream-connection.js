// One connection for the live streams of all windows of a browser, because a browser opens only six per host.
//
// This module runs as a SharedWorker. In a browser that does not support that, `lib/sse.js` runs it in each window. A
// window sends the names of the streams (topics) that it follows, each with the id of the last event that it has. It
// receives every later event of these topics. Some events may arrive twice; the window ignores those that it already
// has. After an interruption, the connection resumes after the last event of each topic. It treats 45 s without data as
// an interruption. After each failure, it waits longer before it reconnects. This module imports nothing, so that the
// worker is a single file.
const SILENCE_MS = 45_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const SETTLE_MS = 20;
const ABSENT_MS = 150_000; // longer than two pauses between pings of a hidden window, which sends one ping a minute

/**
 * Yields each event of a response as {id, event, data}. For a comment, `event` is "comment".
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

class StreamConnection {
  /**
   * @param {string} address
   * @param {string | null} token
   */
  constructor(address, token) {
    this.address = address;
    /** @type {Record<string, string>} */
    this.headers = { Accept: "text/event-stream", ...(token && { Authorization: `Bearer ${token}` }) };
    /** @type {Map<string, {users: number, at: string | null}>} */
    this.topics = new Map(); // keyed by name; `at` is the id of the last event received
    this.wait = FIRST_WAIT_MS;
    this.timer = 0;
    /** @type {AbortController | null} */
    this.aborter = null;
  }

  /**
   * Adds a window or component that follows a topic and has its events up to the id `since`. The window or component
   * will receive the events after the returned id, which is null if it is not known yet.
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
      topic.at = since; // other windows ignore events that they receive a second time
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

  /**
   * Reconnects with the current topics. The old connection is closed first, so that its events no longer change the
   * positions (`at`) of the topics.
   */
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
      // An error without status means that there was no reply or that the connection broke.
      this.broadcast(error.status ? { refused: error.status } : { online: false });
      if ([401, 403, 422].includes(error.status)) return;
    }
    if (signal.aborted) return;
    this.later(this.wait);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS);
  }

  /** @param {AbortSignal} signal */
  async read(signal) {
    const query = new URLSearchParams([...this.topics].map(([name, { at }]) => ["topic", at ? `${name}@${at}` : name]));
    const reply = await fetch(`${this.address}?${query}`, { headers: this.headers, signal, cache: "no-store" });
    this.broadcast({ online: true });
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
      else if (event === "error") this.topics.delete(name); // the stream does not exist on the server
      this.broadcast({ topic: name, name: event, data, id });
    }
  }

  /**
   * Sends a message to the windows of this connection. A message about a topic is only sent to windows that follow it.
   *
   * @param {Ui.ConnectionMessage} message
   */
  broadcast(message) {
    for (const { connection, subs, post } of members) {
      if (connection === this && (!message.topic || Object.values(subs).some(([topic]) => topic === message.topic)))
        post(message);
    }
  }
}

/** @type {Map<string | null, StreamConnection>} */
const connections = new Map(); // keyed by token, because tokens may have different scopes
/**
 * A window and the connection that it uses.
 *
 * @typedef {Record<string, Ui.Sub>} Subs
 * @typedef {{post: (message: Ui.ConnectionMessage) => void, connection: StreamConnection | null, subs: Subs,
 *   lastMessageAt: number}} Member
 * @type {Set<Member>}
 */
const members = new Set();

/**
 * Replaces all subscriptions of a window.
 *
 * @param {Member} member
 * @param {Subs} subs
 */
function subscribe(member, subs) {
  const { connection, subs: old, post } = member;
  member.subs = subs;
  if (!connection) return;
  for (const [key, [topic, since]] of Object.entries(subs)) {
    if (key in old) continue;
    const at = connection.open(topic, since);
    if (at) post({ topic, id: at });
  }
  for (const [key, [topic]] of Object.entries(old)) if (!(key in subs)) connection.close(topic);
}

/**
 * Adds a window, and returns the function that receives the messages of the window. A message with `subs` replaces all
 * subscriptions of the window; `subs` maps a key to [topic, since]. The `token` of a window must always be the same. A
 * message without `subs` is a ping. `post` sends messages to the window. These are:
 *
 * - {topic, name, data, id}: an event of a topic
 * - {topic, id}: the position of a topic
 * - {online}: whether the server answers
 * - {refused}: the status of an HTTP error
 * - {again: true}: the reply to a ping if the window must send its subscriptions again
 * - {again: false}: the reply to any other ping
 *
 * @param {(message: Ui.ConnectionMessage) => void} post
 * @returns {(message: Ui.ConnectionRequest) => void}
 */
export function join(post) {
  /** @type {Member} */
  const member = { post, connection: null, subs: {}, lastMessageAt: 0 };
  return (request) => {
    member.lastMessageAt = Date.now();
    if (!request.subs) return post({ again: !members.has(member) });
    const { address, token, subs } = request;
    members.add(member);
    const connection = connections.get(token) ?? new StreamConnection(address, token);
    connections.set(token, connection);
    member.connection ??= connection;
    return subscribe(member, subs);
  };
}

if ("SharedWorkerGlobalScope" in globalThis) {
  globalThis.addEventListener("connect", (event) => {
    const [port] = /** @type {MessageEvent} */ (event).ports;
    const receive = join((message) => port.postMessage(message));
    port.onmessage = ({ data }) => receive(data);
  });
  setInterval(() => {
    for (const member of members) {
      if (Date.now() - member.lastMessageAt < ABSENT_MS) continue;
      members.delete(member);
      subscribe(member, {});
    }
  }, ABSENT_MS / 5);
}
