// The page that generates text in one panel, or in two panels with the same prompt and seed. Tokens are coloured by
// their modulation.
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { findings, get } from "../lib/api.js";
import { generate } from "../lib/generate.js";
import { keep, recall } from "../lib/tab-storage.js";
import { useLoad } from "../lib/load.js";
import { useStore } from "../lib/store.js";
import { route } from "../lib/router.js";
import { count, duration, integer } from "../lib/format.js";
import { choices, preferred } from "../lib/references.js";
import { Empty, Field, Loaded } from "../components/parts.js";
import { Icon } from "../components/icons.js";
import { Scale, TokenText } from "../components/token-text.js";
import { FlatNote } from "../components/flat-note.js";
import { TrajectoryChart } from "../components/trajectory-chart.js";
import { PanelSettings } from "../components/panel-settings.js";

const REFRESH_MS = 60;
const NAMES = ["A", "B"];
/** @type {Ui.Panel} */
const SETTINGS = {
  gatingMode: "none",
  modulation: 0.5,
  temperature: 0.8,
  topK: 50,
  topP: 1,
  repetitionPenalty: 1.2,
  checkpoint: "",
  rlCheckpoint: "",
};
const STORAGE_KEY = "tidal.playground"; // settings are stored under this key, so that they survive a reload of the tab
const FIELDS = ["prompt", "seed", "maxTokens", ...Object.keys(SETTINGS)];
/**
 * The fields that both panels share, as the user typed them.
 *
 * @typedef {{prompt: string, seed: string, maxTokens: string}} Shared
 */
/**
 * The generated text of a panel.
 *
 * @typedef {object} TextState
 * @property {Api.Token[]} tokens
 * @property {boolean} running
 * @property {Ui.Failure | null} error
 * @property {Api.Generated | null} reply
 * @property {string} prompt
 * @property {Ui.Panel} panel The settings with which the text was generated.
 */
/** @type {TextState} */
const IDLE = { tokens: [], running: false, error: null, reply: null, prompt: "", panel: SETTINGS };

export function Playground() {
  const state = useLoad((signal) => get("api/checkpoints?limit=200", signal), []);
  return html`
    <div class="page-head">
      <div class="grow"><h1>Playground</h1></div>
    </div>
    <${Loaded} state=${state} rows=${6}
      >${(/** @type {Ui.Data<typeof state>} */ { experiments }) => html`<${Workspace} groups=${experiments} />`}<//
    >
  `;
}

/**
 * @param {Ui.Panel} panel
 * @param {Ui.Option[]} bases
 * @param {Ui.Option[]} policies
 */
const known = (panel, bases, policies) =>
  bases.some((option) => option.value === panel.checkpoint) &&
  (panel.gatingMode !== "learned" || policies.some((option) => option.value === panel.rlCheckpoint));

/**
 * Returns the number in a field. If the field is empty, returns undefined, so that the server uses its default.
 *
 * @param {string | number} text
 */
const given = (text) => (text === "" ? undefined : Number(text));

/**
 * @param {Shared} shared
 * @param {Ui.Panel} panel
 */
function bodyOf(shared, panel) {
  /** @type {Api.Body<"api/generate", "post">} */
  const body = {
    checkpoint: panel.checkpoint,
    prompt: shared.prompt,
    maxTokens: Number(shared.maxTokens) || 50,
    gatingMode: panel.gatingMode,
  };
  if (shared.seed !== "") body.seed = Number(shared.seed);
  if (panel.gatingMode === "none") {
    Object.assign(body, {
      temperature: given(panel.temperature),
      topK: given(panel.topK) ?? null,
      repetitionPenalty: given(panel.repetitionPenalty),
    });
    if (panel.topP !== "" && Number(panel.topP) !== 1) body.topP = Number(panel.topP);
  }
  if (panel.gatingMode === "fixed") body.modulation = Number(panel.modulation);
  if (panel.gatingMode === "learned") body.rlCheckpoint = panel.rlCheckpoint;
  return body;
}

/** @param {{groups: Api.CheckpointGroup[]}} props */
function Workspace({ groups }) {
  const { params } = useStore(route);
  const bases = choices(groups, "usableAsBase");
  const policies = choices(groups, "usableAsPolicy");
  /** @type {Ui.Panel} */
  const start = {
    ...SETTINGS,
    checkpoint: params.get("checkpoint") || preferred(bases),
    rlCheckpoint: params.get("policy") || preferred(policies),
  };
  if (params.get("policy")) start.gatingMode = "learned";
  const [before] = useState(() => /** @type {{shared: Shared, panels: Ui.Panel[]} | null} */ (recall(STORAGE_KEY)));
  const [shared, setShared] = useState(before?.shared ?? { prompt: "Once upon a time", seed: "1", maxTokens: "80" });
  const linked = params.get("checkpoint") || params.get("policy");
  const [panels, setPanels] = useState(() =>
    before && !linked && before.panels.every((panel) => known(panel, bases, policies)) ? before.panels : [start],
  );
  useEffect(() => keep(STORAGE_KEY, { shared, panels }), [shared, panels]);
  const [texts, setTexts] = useState([IDLE, IDLE]);
  const aborters = useRef(/** @type {AbortController[]} */ ([]));
  useEffect(() => () => aborters.current.forEach((aborter) => aborter?.abort()), []);

  /**
   * @param {number} i
   * @param {Partial<TextState>} change
   */
  const setText = (i, change) => setTexts((old) => old.map((text, j) => (j === i ? { ...text, ...change } : text)));
  /** @param {number} i */
  const run = async (i) => {
    aborters.current[i]?.abort();
    const aborter = new AbortController();
    aborters.current[i] = aborter;
    /** @type {Api.Token[]} */
    const tokens = [];
    let timer = 0;
    const showTokens = () => {
      timer = 0;
      setText(i, { tokens: [...tokens] });
    };
    setText(i, { ...IDLE, running: true, prompt: shared.prompt, panel: panels[i] });
    try {
      /** @param {Api.Token} token */
      const onToken = (token) => {
        tokens.push(token);
        timer ||= setTimeout(showTokens, REFRESH_MS);
      };
      const reply = await generate(bodyOf(shared, panels[i]), { onToken, signal: aborter.signal });
      setText(i, { reply, tokens: reply.trajectory ?? tokens, running: false });
    } catch (error) {
      if (!aborter.signal.aborted) setText(i, { error, tokens: [...tokens], running: false });
      else if (aborters.current[i] === aborter) setText(i, { tokens: [...tokens], running: false });
    } finally {
      clearTimeout(timer);
    }
  };
  const runAll = () => panels.forEach((_, i) => void run(i));
  const stop = () => aborters.current.forEach((aborter) => aborter?.abort());
  const running = texts.some((text) => text.running);
  const both = panels.length === 2;
  const found = texts.map((text) => findings(text.error, FIELDS));
  /** @param {string} name */
  const wrong = (name) => found[0].wrong(name) ?? found[1].wrong(name);
  /** @type {(name: keyof Shared) => Ui.Handler} */
  const share = (name) => (event) => setShared((old) => ({ ...old, [name]: event.target.value }));

  if (!bases.length) {
    return html`<${Empty} icon="play" title="No model yet"
      ><p>Train a language model first. Its checkpoints can be used here, even during the training.</p><//
    >`;
  }
  return html`<div class="stack">
    <form
      class="card stack"
      onSubmit=${(event) => {
        event.preventDefault();
        runAll();
      }}
    >
      <${Field} label="Prompt" wrong=${wrong("prompt")}>
        ${(props) =>
          html`<textarea
            ...${props}
            rows="2"
            value=${shared.prompt}
            onInput=${share("prompt")}
            onKeyDown=${(event) => {
              if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) {
                event.preventDefault();
                runAll();
              }
            }}
          ></textarea>`}
      <//>
      <div class="row apart">
        <div class="row">
          <${Field} label="Seed" wrong=${wrong("seed")}
            >${(props) =>
              html`<input
                ...${props}
                class="narrow"
                type="number"
                min="0"
                placeholder="random"
                value=${shared.seed}
                onInput=${share("seed")}
              />`}<//
          >
          <${Field} label="Tokens" wrong=${wrong("maxTokens")}
            >${(props) =>
              html`<input
                ...${props}
                class="narrow"
                type="number"
                min="1"
                max="4096"
                required
                value=${shared.maxTokens}
                onInput=${share("maxTokens")}
              />`}<//
          >
        </div>
        <div class="row">
          <button
            type="button"
            class="button"
            aria-pressed=${both}
            onClick=${() =>
              setPanels(
                both
                  ? [panels[0]]
                  : [panels[0], { ...panels[0], gatingMode: panels[0].gatingMode === "none" ? "fixed" : "none" }],
              )}
          >
            <${Icon} name="compare" />Side by side
          </button>
          ${running && html`<button type="button" class="button" onClick=${stop}><${Icon} name="stop" />Stop</button>`}
          <button class="button primary" title="Ctrl + Enter"><${Icon} name="play" />Generate</button>
        </div>
      </div>
    </form>
    <div class=${both ? "panels two" : "panels"}>
      ${panels.map(
        (panel, i) =>
          html`<section class="card stack" key=${i} aria-label=${both ? `Panel ${NAMES[i]}` : "Text"}>
            ${
              both &&
              html`<header class="panel-name">
                <i style=${{ "--swatch": `var(--chart-${i + 1})` }}></i>
                <h2>${NAMES[i]}</h2>
              </header>`
            }
            <${PanelSettings}
              panel=${panel}
              wrong=${found[i].wrong}
              bases=${bases}
              policies=${policies}
              onChange=${(/** @type {Partial<Ui.Panel>} */ change) =>
                setPanels((old) => old.map((other, j) => (j === i ? { ...other, ...change } : other)))}
            />
            <${Text} text=${texts[i]} found=${found[i]} again=${() => run(i)} />
          </section>`,
      )}
    </div>
    ${
      texts.some((text, i) => i < panels.length && text.tokens.length > 0) &&
      html`<${TrajectoryChart}
        runs=${panels.map((_, i) => ({ label: both ? NAMES[i] : "text", tokens: texts[i].tokens }))}
      />`
    }
  </div>`;
}

/** @param {{text: TextState, found: Ui.Findings, again: () => void}} props */
function Text({ text, found, again }) {
  const { tokens, running, error, reply, prompt, panel } = text;
  if (error && !tokens.length) return html`<${GenerationError} error=${error} found=${found} again=${again} />`;
  if (!running && !tokens.length) return html`<p class="note blank">The generated text appears here.</p>`;
  return html`<div class="stack tight">
    <${TokenText} prompt=${prompt} tokens=${tokens} live=${running} />
    ${tokens.some((token) => token.modulation !== null) && html`<${Scale} />`}
    <p class="note" role="status">
      ${
        running
          ? `${count(tokens.length, "token")} …`
          : reply
            ? outcome(reply)
            : `Stopped after ${count(tokens.length, "token")}.`
      }
    </p>
    ${!running && html`<${FlatNote} tokens=${tokens} panel=${panel} />`}
    ${error && html`<${GenerationError} error=${error} found=${found} again=${again} />`}
  </div>`;
}

/**
 * Returns a summary of a generation.
 *
 * @param {Api.Generated} reply
 */
function outcome({ tokensGenerated, elapsedMs, finishReason, truncated }) {
  const parts = [count(tokensGenerated, "token"), duration(elapsedMs / 1000)];
  if (elapsedMs > 0) {
    const rate = (1000 * tokensGenerated) / elapsedMs;
    if (rate) parts.push(`${integer(rate)} tokens/s`);
  }
  parts.push(finishReason === "stop" ? "ended by the end-of-text token" : "reached the token limit");
  if (truncated) parts.push(`${count(truncated, "token")} dropped from the context window`);
  return `${parts.join(", ")}.`;
}

/** @param {{error: Ui.Failure, found: Ui.Findings, again: () => void}} props */
function GenerationError({ error, found, again }) {
  useEffect(() => {
    const field = document.querySelector('main [aria-invalid="true"]');
    if (field instanceof HTMLElement) field.focus();
  }, [error]);
  return html`<div class="message bad" role="alert">
    <p>
      ${found.marked ? ["Some values are invalid. Their fields are marked.", ...found.rest].join(" ") : error.message}${
        error.status === 429 && error.retryAfter
          ? ` Try again in ${error.retryAfter} s, or sign in, because requests with a token are not limited.`
          : ""
      }
    </p>
    <button class="button small" onClick=${again}>Try again</button>
  </div>`;
}
