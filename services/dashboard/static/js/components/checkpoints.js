// Checkpoints of an experiment: download, generate from, train a controller on.
import { html, useState } from "../lib/html.js";
import { send } from "../lib/api.js";
import { useStore } from "../lib/store.js";
import { session } from "../lib/session.js";
import { href } from "../lib/router.js";
import { bytes, integer } from "../lib/format.js";
import { download } from "../charts/export.js";
import { Time } from "./parts.js";
import { Icon } from "./icons.js";
import { toast } from "./toasts.js";

export function CheckpointTable({ checkpoints }) {
  return html`<div class="table-wrap">
    <table class="checkpoints">
      <thead>
        <tr><th>Checkpoint</th><th>Kind</th><th class="num">Step</th><th class="num">Size</th><th class="wide">Written</th><th><span class="visually-hidden">Actions</span></th></tr>
      </thead>
      <tbody>
        ${checkpoints.map(
          (one) => html`<tr key=${one.reference}>
            <td class="mono">${one.name} ${one.best && html`<span class="status good">best</span>`}</td>
            <td>${one.kind}</td>
            <td class="num">${integer(one.step)}</td>
            <td class="num">${bytes(one.sizeBytes)}</td>
            <td class="wide note"><${Time} at=${one.createdAt} /></td>
            <td><${Actions} one=${one} /></td>
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function Actions({ one }) {
  const { readsOpen } = useStore(session);
  return html`<div class="row end">
    ${one.usableAsBase && html`<a class="button small" href=${href("/playground", { checkpoint: one.reference })}><${Icon} name="play" />Generate</a>`}
    ${one.usableAsPolicy && html`<a class="button small" href=${href("/playground", { policy: one.reference })}><${Icon} name="play" />Generate</a>`}
    ${one.usableAsBase && html`<a class="button small" href=${href("/new", { type: "rl-training", checkpoint: one.reference })}>Train a controller</a>`}
    ${readsOpen
      ? html`<a class="button small" href=${one.download} download aria-label=${`Download ${one.name}`}><${Icon} name="download" /></a>`
      : html`<${SignedDownload} one=${one} />`}
  </div>`;
}

/** Where reads need the token a plain link would not do: the file goes through memory. */
function SignedDownload({ one }) {
  const [busy, setBusy] = useState(false);
  const start = async () => {
    setBusy(true);
    try {
      const reply = await send(one.download, { headers: { Accept: "*/*" } });
      const name = /filename="?([^";]+)/.exec(reply.headers.get("Content-Disposition") ?? "")?.[1] ?? one.name.split("/").at(-1);
      download(await reply.blob(), name);
    } catch (error) {
      toast(error.message, "bad");
    }
    setBusy(false);
  };
  return html`<button class="button small" disabled=${busy} aria-label=${`Download ${one.name}`} onClick=${start}><${Icon} name="download" /></button>`;
}
