// The log of a job: all attempts in order, followed while it runs, searched in what is loaded.
//
// The pages by cursor are the truth; an event of the stream only says that there is more to fetch. Only the lines in
// view are in the document.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../lib/html.js";
import { get, query } from "../lib/api.js";
import { integer } from "../lib/format.js";
import { Empty, Failed, Loading } from "./parts.js";
import { Icon } from "./icons.js";

const ROW = 20;
const PAGE = 5000;
const MOST_LINES = 100_000;
const BELL_MS = 250;

/** Lines of `jobId`; asks for more whenever `bell` (a store) changes. */
function useLines(jobId, bell) {
  const [state, setState] = useState({ lines: [], loaded: false, error: null, dropped: 0 });
  useEffect(() => {
    let cursor = null;
    let busy = false;
    let again = false;
    let left = false;
    let timer = 0;
    async function fetchAll() {
      if (busy) {
        again = true;
        return;
      }
      busy = true;
      try {
        for (;;) {
          again = false;
          const page = await get(`api/jobs/${jobId}/logs${query({ limit: PAGE, cursor })}`);
          if (left) return;
          cursor = page.nextCursor ?? cursor;
          setState((old) => {
            const lines = page.lines.length ? [...old.lines, ...page.lines] : old.lines;
            const over = Math.max(0, lines.length - MOST_LINES);
            return { lines: over ? lines.slice(over) : lines, loaded: true, error: null, dropped: old.dropped + over };
          });
          if (page.complete && !again) return;
        }
      } catch (error) {
        if (left) return;
        setState((old) => ({ ...old, error }));
        if (error.status === 0) timer = setTimeout(fetchAll, 2000);
      } finally {
        busy = false;
      }
    }
    fetchAll();
    const stop = bell.watch(() => {
      clearTimeout(timer);
      timer = setTimeout(fetchAll, BELL_MS);
    });
    return () => {
      left = true;
      clearTimeout(timer);
      stop();
    };
  }, [jobId]);
  return state;
}

export function LogView({ jobId, bell, live }) {
  const { lines, loaded, error, dropped } = useLines(jobId, bell);
  const [search, setSearch] = useState("");
  const [only, setOnly] = useState(false);
  const [follow, setFollow] = useState(live);
  const [at, setAt] = useState(0);
  const box = useRef(null);
  const [top, setTop] = useState(0);

  const needle = search.toLowerCase();
  const hits = useMemo(() => {
    if (!needle) return [];
    const found = [];
    lines.forEach((line, i) => line.text.toLowerCase().includes(needle) && found.push(i));
    return found;
  }, [lines, needle]);
  const filtered = needle && only;
  const shown = useMemo(() => (filtered ? hits.map((i) => lines[i]) : lines), [lines, hits, filtered]);

  useLayoutEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [shown.length, follow, loaded]);
  const jump = (step) => {
    if (!hits.length) return;
    const next = (at + step + hits.length) % hits.length;
    setAt(next);
    setFollow(false);
    box.current.scrollTop = (filtered ? next : hits[next]) * ROW - box.current.clientHeight / 2;
  };
  const onScroll = (event) => {
    const { scrollTop, clientHeight, scrollHeight } = event.currentTarget;
    setTop(scrollTop);
    if (follow && scrollHeight - scrollTop - clientHeight > 3 * ROW) setFollow(false);
  };
  if (!loaded && error) return html`<${Failed} error=${error} />`;
  if (!loaded) return html`<${Loading} rows=${8} />`;
  if (!lines.length) {
    return live
      ? html`<${Empty} title="No lines yet"><p>What the trainer prints appears here, as soon as it prints something.</p><//>`
      : html`<${Empty} title="There are no lines"><p>The trainer printed nothing, or retention deleted the log: the history says so.</p><//>`;
  }
  const first = Math.max(0, Math.floor(top / ROW) - 20);
  const count = Math.ceil((box.current?.clientHeight ?? 600) / ROW) + 40;
  const current = hits.length ? lines[hits[Math.min(at, hits.length - 1)]] : null;
  return html`<div class="stack">
    <div class="log-tools">
      <input
        type="search"
        aria-label="Search in the log"
        placeholder="Search"
        value=${search}
        onInput=${(event) => { setSearch(event.target.value); setAt(0); }}
        onKeyDown=${(event) => event.key === "Enter" && jump(event.shiftKey ? -1 : 1)}
      />
      <button class="button" aria-label="Match before" disabled=${!hits.length} onClick=${() => jump(-1)}><${Icon} name="up" /></button>
      <button class="button" aria-label="Next match" disabled=${!hits.length} onClick=${() => jump(1)}><${Icon} name="down" /></button>
      <span class="note" role="status">${needle ? `${integer(hits.length)} of ${integer(lines.length)} lines` : `${integer(lines.length)} lines`}</span>
      <label class="check"><input type="checkbox" checked=${only} onChange=${(event) => setOnly(event.target.checked)} />Only matches</label>
      ${live && html`<label class="check"><input type="checkbox" checked=${follow} onChange=${(event) => setFollow(event.target.checked)} />Follow</label>`}
    </div>
    ${dropped > 0 && html`<p class="note">The first ${integer(dropped)} lines are not shown; <code>tidal jobs logs</code> has all of them.</p>`}
    <div class="log" ref=${box} onScroll=${onScroll} role="log" aria-label="Log" tabindex="0">
      <div style=${{ height: `${shown.length * ROW}px` }}>
        <div style=${{ transform: `translateY(${first * ROW}px)` }}>
          ${shown.slice(first, first + count).map(
            (line) => html`<div class=${`line ${line === current ? "here" : ""}`} key=${`${line.attempt}-${line.line}`}>
              <span class="where">${line.attempt > 1 ? `${line.attempt}:` : ""}${line.line}</span>${mark(line.text, needle)}
            </div>`,
          )}
        </div>
      </div>
    </div>
  </div>`;
}

function mark(text, needle) {
  const at = needle ? text.toLowerCase().indexOf(needle) : -1;
  if (at < 0) return text;
  return html`${text.slice(0, at)}<mark>${text.slice(at, at + needle.length)}</mark>${text.slice(at + needle.length)}`;
}
