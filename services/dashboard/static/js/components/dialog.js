// A modal dialog, built on the <dialog> element. It traps the focus. When the dialog closes, the element that had the
// focus before gets it back.
import { html, useEffect, useId, useRef, useState } from "../lib/html.js";

/** @param {{title: string, onClose: () => void, children?: Ui.Children}} props */
export function Dialog({ title, onClose, children }) {
  const element = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const id = useId();
  useEffect(() => {
    const dialog = /** @type {HTMLDialogElement} */ (element.current);
    const opener = document.activeElement;
    if (!dialog.open) dialog.showModal();
    return () => {
      dialog.close();
      // The browser restores the focus only for a dialog that is still in the document.
      setTimeout(() => opener instanceof HTMLElement && opener.isConnected && opener.focus());
    };
  }, []);
  return html`<dialog
    ref=${element}
    aria-labelledby=${id}
    onCancel=${(event) => {
      event.preventDefault();
      onClose();
    }}
  >
    <h2 id=${id}>${title}</h2>
    ${children}
  </dialog>`;
}

/**
 * Asks for confirmation before an action that cannot be undone. `act` performs the action; if it fails, the dialog
 * shows the error.
 *
 * @param {{title: string, text: string, action: string, danger?: boolean, dismiss?: string,
 * act: () => Promise<unknown>, onClose: () => void}} props
 */
export function Confirm({ title, text, action, danger = false, dismiss = "Close", act, onClose }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(/** @type {Ui.Failure | null} */ (null));
  const go = async () => {
    setBusy(true);
    try {
      await act();
      onClose();
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <p>${text}</p>
    ${error && html`<p class="message bad" role="alert">${error.message}</p>`}
    <div class="dialog-foot">
      <button class="button" onClick=${onClose}>${dismiss}</button>
      <button class=${`button primary ${danger ? "danger" : ""}`} disabled=${busy} onClick=${go}>${action}</button>
    </div>
  <//>`;
}
