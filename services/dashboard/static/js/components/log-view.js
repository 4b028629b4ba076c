// Shows the log of a job, oldest attempt first, and follows it while the job runs. The search covers the loaded lines.
//
// Lines are loaded only as pages of the API, because events of the stream announce new lines without containing them.
// The document contains only the visible lines. Long lines are wrapped after a fixed number of characters, so that the
// number of rows can be computed.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../lib/html.js";
import { get, isTemporary, query } from "../lib/api.js";
import { lastAt } from "../charts/series.js";
import { count, integer } from "../lib/format.js";
import { Empty, Failed, FileButton, Loading } from "./parts.js";
import { Icon } from "./icons.js";

const ROW = 20;
const PAGE = 5000;
const MAX_LINES = 100_000;
const RELOAD_MS = 250;
const WRAP = "tidal.log-wrap";
const PADDING = 24;
const GUTTER = 12;
const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uff60]/g; // characters of two columns
const TAB = 4; // width of a tab in columns; must be the same as in the style sheet

/**
 * Loads the log lines of `jobId`. Whenever the value of the store `newLines` changes, loads the new lines.
 *
 * @typedef {{lines: Api.LogLine[], loaded: boolean, error: Ui.Failure | null, dropped: number}} Lines
 * @param {string} jobId
 * @param {Ui.Store<number>} newLines
 */
function useLines(jobId, newLines) {
  const [state, setState] = useState(/** @type {Lines} */ ({ lines: [], loaded: false, error: null, dropped: 0 }));
  useEffect(() => {
    /** @type {string | null} */
    let cursor = null;
    let busy = false;
    let again = false;
    let cancelled = false;
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
          if (cancelled) return;
          cursor = page.nextCursor ?? cursor;
          setState((old) => {
            const lines = page.lines.length ? [...old.lines, ...page.lines] : old.lines;
            const over = Math.max(0, lines.length - MAX_LINES);
            return { lines: over ? lines.slice(over) : lines, loaded: true, error: null, dropped: old.dropped + over };
          });
          if (page.complete && !again) return;
        }
      } catch (error) {
        if (cancelled) return;
        setState((old) => ({ ...old, error }));
        if (isTemporary(error)) timer = setTimeout(fetchAll, 2000);
      } finally {
        busy = false;
      }
    }
    void fetchAll();
    const stop = newLines.watch(() => {
      clearTimeout(timer);
      timer = setTimeout(fetchAll, RELOAD_MS);
    });
    return () => {
      cancelled = true;
      clearTimeout(timer);
      stop();
    };
  }, [jobId]);
  return state;
}

/**
 * Returns true if long lines are wrapped, and a function that changes this setting. The setting is stored on this
 * device.
 *
 * @returns {[wrap: boolean, change: (on: boolean) => void]}
 */
function useWrap() {
  const [wrap, setWrap] = useState(() => {
    try {
      return localStorage.getItem(WRAP) === "1";
    } catch {
      return false; // the browser forbids storage
    }
  });
  /** @param {boolean} on */
  const change = (on) => {
    setWrap(on);
    try {
      localStorage.setItem(WRAP, on ? "1" : "0");
    } catch {
      // The browser forbids storage; the choice is lost when the page is closed.
    }
  };
  return [wrap, change];
}

/** @param {Api.LogLine} line */
const lineNumber = (line) => `${line.attempt > 1 ? `${line.attempt}:` : ""}${line.line}`;

/**
 * Returns the number of characters per row of the box, including the line number.
 *
 * @param {HTMLElement} box
 */
function columnsOf(box) {
  const probe = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
  probe.font = getComputedStyle(box).font;
  const width = probe.measureText("0".repeat(100)).width / 100;
  return (box.clientWidth - PADDING - GUTTER) / width;
}

/**
 * Returns the row number at which each line starts, followed by the total number of rows.
 *
 * @param {Api.LogLine[]} lines
 * @param {number} columns
 */
function rowsOf(lines, columns) {
  const starts = new Uint32Array(lines.length + 1);
  lines.forEach((line, i) => {
    const room = Math.max(10, Math.floor(columns - Math.max(5, lineNumber(line).length)));
    const length =
      line.text.length + (line.text.match(WIDE)?.length ?? 0) + (TAB - 1) * (line.text.split("\t").length - 1);
    starts[i + 1] = starts[i] + Math.max(1, Math.ceil(length / room));
  });
  return starts;
}

/** @param {{jobId: string, newLines: Ui.Store<number>, live: boolean}} props */
export function LogView({ jobId, newLines, live }) {
  const { lines, loaded, error, dropped } = useLines(jobId, newLines);
  const [search, setSearch] = useState("");
  const [only, setOnly] = useState(false);
  const [follow, setFollow] = useState(live);
  const [at, setAt] = useState(0);
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [top, setTop] = useState(0);
  const [wrap, setWrap] = useWrap();
  const [columns, setColumns] = useState(0); // characters per row; 0 if lines are not wrapped
  const [jumps, setJumps] = useState(0);
  // The line that must stay at the top when wrapping is switched on or off.
  const kept = useRef(/** @type {number | null} */ (null));

  const needle = search.toLowerCase();
  const hits = useMemo(() => {
    if (!needle) return [];
    /** @type {number[]} */
    const found = [];
    lines.forEach((line, i) => line.text.toLowerCase().includes(needle) && found.push(i));
    return found;
  }, [lines, needle]);
  const filtered = needle && only;
  const shown = useMemo(() => (filtered ? hits.map((i) => lines[i]) : lines), [lines, hits, filtered]);

  const starts = useMemo(() => (columns ? rowsOf(shown, columns) : null), [shown, columns]);
  /** @param {number} i */
  const row = (i) => (starts ? starts[i] : i);
  const seen = Math.floor(top / ROW);
  const topLine = starts ? lastAt(starts, seen) : seen;

  useLayoutEffect(() => {
    if (!box.current) return undefined;
    const measure = () => setColumns(wrap && box.current ? columnsOf(box.current) : 0);
    const observer = new ResizeObserver(measure);
    observer.observe(box.current);
    measure();
    return () => observer.disconnect();
  }, [wrap, loaded, lines.length > 0]);
  useLayoutEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [shown, follow, loaded, starts]);
  useLayoutEffect(() => {
    box.current?.querySelector(".here mark")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [jumps]);
  useLayoutEffect(() => {
    if (kept.current === null || Boolean(starts) !== wrap) return;
    if (!follow && box.current) box.current.scrollTop = row(kept.current) * ROW;
    kept.current = null;
  }, [starts, wrap]);
  useLayoutEffect(() => {
    if (needle) jump(0);
  }, [needle]);
  /** @param {1 | 0 | -1} step */
  const jump = (step) => {
    if (!hits.length || !box.current) return;
    const next = (at + step + hits.length) % hits.length;
    setAt(next);
    setFollow(false);
    box.current.scrollTop = row(filtered ? next : hits[next]) * ROW - box.current.clientHeight / 2;
    setTop(box.current.scrollTop);
    setJumps(jumps + 1);
  };
  /** @param {boolean} on */
  const toggleWrap = (on) => {
    kept.current = topLine;
    setWrap(on);
  };
  /** @type {Ui.Handler} */
  const onScroll = (event) => {
    const { scrollTop, clientHeight, scrollHeight } = event.currentTarget;
    setTop(scrollTop);
    if (follow && scrollHeight - scrollTop - clientHeight > 3 * ROW) setFollow(false);
  };
  if (!loaded && error) return html`<${Failed} error=${error} />`;
  if (!loaded) return html`<${Loading} rows=${8} />`;
  if (!lines.length) {
    return live
      ? html`<${Empty} title="No lines yet"><p>The output of the trainer will appear here.</p><//>`
      : html`<${Empty} title="The log is empty"
          ><p>The trainer printed nothing, or the log was deleted because of its age. See the tab History.</p><//
        >`;
  }
  const first = Math.max(0, topLine - 20);
  const visible = Math.ceil((box.current?.clientHeight ?? 600) / ROW) + 40;
  const current = hits.length ? lines[hits[Math.min(at, hits.length - 1)]] : null;
  return html`<div class="stack">
    <div class="log-tools">
      <input
        type="search"
        aria-label="Search in the log"
        placeholder="Search"
        value=${search}
        onInput=${(event) => {
          setSearch(event.target.value);
          setAt(0);
        }}
        onKeyDown=${(event) => event.key === "Enter" && jump(event.shiftKey ? -1 : 1)}
      />
      <button class="button" aria-label="Previous match" disabled=${!hits.length} onClick=${() => jump(-1)}>
        <${Icon} name="up" />
      </button>
      <button class="button" aria-label="Next match" disabled=${!hits.length} onClick=${() => jump(1)}>
        <${Icon} name="down" />
      </button>
      <span class="note" role="status"
        >${needle ? `${integer(hits.length)} of ` : ""}${count(lines.length, "line")}</span
      >
      <label class="check"
        ><input type="checkbox" checked=${only} onChange=${(event) => setOnly(event.target.checked)} />Only
        matches</label
      >
      <label class="check"
        ><input type="checkbox" checked=${wrap} onChange=${(event) => toggleWrap(event.target.checked)} />Wrap</label
      >
      ${
        live &&
        html`<label class="check"
          ><input
            type="checkbox"
            checked=${follow}
            onChange=${(event) => setFollow(event.target.checked)}
          />Follow</label
        >`
      }
      <${FileButton}
        path=${`api/jobs/${jobId}/logs/download`}
        name=${`${jobId}.log`}
        label="Download the complete log"
      />
    </div>
    ${
      dropped > 0 &&
      html`<p class="note">
        The first ${count(dropped, "line")} ${dropped === 1 ? "is" : "are"} not shown; the download contains all of
        them.
      </p>`
    }
    <div class=${`log ${wrap ? "wrap" : ""}`} ref=${box} onScroll=${onScroll} role="log" aria-label="Log" tabindex="0">
      <div style=${{ height: `${row(shown.length) * ROW}px` }}>
        <div style=${{ transform: `translateY(${row(first) * ROW}px)` }}>
          ${shown
            .slice(first, first + visible)
            .map(
              (line, i) =>
                html`<div
                  class=${`line ${line === current ? "here" : ""}`}
                  key=${`${line.attempt}-${line.line}`}
                  style=${{ minHeight: `${(row(first + i + 1) - row(first + i)) * ROW}px` }}
                >
                  <span class="where">${lineNumber(line)}</span><span class="text">${mark(line.text, needle)}</span>
                </div>`,
            )}
        </div>
      </div>
    </div>
  </div>`;
}

/**
 * @param {string} text
 * @param {string} needle
 */
function mark(text, needle) {
  const at = needle ? text.toLowerCase().indexOf(needle) : -1;
  if (at < 0) return text;
  return html`${text.slice(0, at)}<mark>${text.slice(at, at + needle.length)}</mark>${text.slice(at + needle.length)}`;
}
