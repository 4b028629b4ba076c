// The sign-in dialog. Users without a token can change nothing. They can read the dashboard unless the server requires
// a token for reading. The dialog also opens when a signed-in user tries what the token does not allow.
import { html, useState } from "../lib/html.js";
import { useStore } from "../lib/store.js";
import { signIn, signOut } from "../lib/api.js";
import { abilities, session, signInOpen } from "../lib/session.js";
import { Dialog } from "./dialog.js";
import { Field } from "./parts.js";
import { Icon } from "./icons.js";

export function SignInButton() {
  const state = useStore(session);
  if (state.name) {
    return html`<button
      class="button small"
      onClick=${() => signOut()}
      title=${`Signed in as ${state.name}. You may: ${abilities(state)}.`}
    >
      <${Icon} name="key" />Sign out
    </button>`;
  }
  return html`<button class="button small" onClick=${() => signInOpen.set(true)}>
    <${Icon} name="key" />Sign in
  </button>`;
}

export function SignInDialog() {
  const open = useStore(signInOpen);
  return open ? html`<${Form} />` : null;
}

/** @param {Ui.Session} state */
function explanation(state) {
  if (state.name) {
    const end = state.expiresAt ? ` until ${new Date(state.expiresAt).toLocaleString()}` : "";
    return `You are signed in as ${state.name}${end} and may: ${abilities(state)}. For more, use another token.`;
  }
  return state.readsOpen
    ? `Without a token you may: ${abilities(state)}. A token is needed to submit, control and delete jobs.`
    : "This server requires a token.";
}

function Form() {
  const state = useStore(session);
  const [value, setValue] = useState("");
  const [keep, setKeep] = useState(false);
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState(false);
  const close = () => signInOpen.set(false);
  /** @param {Ui.Event} event */
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      if (await signIn(value.trim(), keep)) close();
      else setWrong("This token is wrong or has expired.");
    } catch (error) {
      setWrong(error.message);
    }
    setBusy(false);
  };
  return html`<${Dialog} title="Sign in" onClose=${close}>
    <form class="stack" onSubmit=${submit}>
      <p class="note">
        ${explanation(state)}${" "}A token is <code>TIDAL_AUTH_TOKEN</code> of the server (<code>tidal status</code>
        shows that of a local stack), or one that an administrator has made with <code>tidal tokens create</code>.
      </p>
      <${Field} label="Token" wrong=${wrong}>
        ${(props) =>
          html`<input
            ...${props}
            type="password"
            autocomplete="current-password"
            required
            autofocus
            value=${value}
            onInput=${(event) => {
              setValue(event.target.value);
              setWrong("");
            }}
          />`}
      <//>
      <label class="check">
        <input type="checkbox" checked=${keep} onChange=${(event) => setKeep(event.target.checked)} />
        Stay signed in on this device, not only in this tab
      </label>
      <div class="dialog-foot">
        <button type="button" class="button" onClick=${close}>Close</button>
        <button class="button primary" disabled=${busy || !value.trim()}>Sign in</button>
      </div>
    </form>
  <//>`;
}
