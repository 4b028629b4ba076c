// Shows the vocabulary of an experiment's language model: name, size and, if it was trained, some entries.
import { html } from "../lib/html.js";
import { get } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { integer, number } from "../lib/format.js";
import { FileButton, Loaded } from "./parts.js";

/** @param {Api.Vocabulary} vocabulary */
export const vocabularyLabel = ({ name, size }) => `${name === "gpt2" ? "GPT-2" : name}, ${integer(size)} entries`;

/** @param {{path: Api.ExperimentPath, vocabulary: Api.Vocabulary}} props */
export function VocabularyCard({ path, vocabulary }) {
  const state = useLoad((signal) => get(`${path}/vocabulary`, signal), [path, vocabulary.digest]);
  return html`<${Loaded} state=${state} rows=${2}>
    ${(/** @type {Ui.Data<typeof state>} */ found) =>
      html`<section class="card" aria-label="Vocabulary">
        <header>
          <h2 class="grow">Vocabulary</h2>
          ${
            found.download &&
            html`<${FileButton} small path=${found.download} name="tokenizer.json" label="Download the vocabulary" />`
          }
        </header>
        <dl class="facts">
          <dt>name</dt>
          <dd>${found.name}</dd>
          <dt>entries</dt>
          <dd>${integer(found.size)}</dd>
          <dt>digest</dt>
          <dd class="mono">${found.digest.slice(0, 12)}</dd>
          ${
            found.meanBytes !== null &&
            html`<dt>mean length of an entry</dt>
              <dd>${number(found.meanBytes, 3)} bytes</dd>`
          }
        </dl>
        <${Entries} title="Frequent entries" entries=${found.words} />
        <${Entries} title="Longest entries" entries=${found.longest} />
      </section>`}
  <//>`;
}

/** @param {{title: string, entries: string[]}} props */
function Entries({ title, entries }) {
  if (!entries.length) return null;
  return html`<p class="note">${title}</p>
    <p class="row">${entries.map((entry) => html`<code class="tag" key=${entry}>${visible(entry)}</code>`)}</p>`;
}

/**
 * Replaces spaces and line breaks, which would be invisible at the ends of an entry.
 *
 * @param {string} entry
 */
const visible = (entry) => entry.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
