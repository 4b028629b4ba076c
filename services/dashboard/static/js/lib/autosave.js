// Saves a text automatically after a pause in typing, with one request at a time. Each request contains the number of
// the version that it changes, so that the server detects conflicts.
//
// A failure does not throw, but sets one of these states. In `conflict`, another user has saved the text in the
// meantime, and nothing is overwritten until the user decides. In `offline` and `signed-out`, the text is saved as soon
// as the server answers or the user has signed in again. In `refused`, the server does not accept the text, and saving
// waits until the user changes it.
import { createStore } from "./store.js";
import { connection, get, put } from "./api.js";
import { session } from "./session.js";

const PAUSE_MS = 800;
const AGAIN_MS = 2000;
/** @type {Map<string, Draft>} */
const unsaved = new Map(); // path -> draft that was not saved when the user left its page

/**
 * Returns the unsaved draft of `path` from an earlier visit, or a new draft. `found` is the report as GET returned it.
 * The value of the store `now` of a draft is {title, markdown, version, state: saved | waiting | saving | conflict |
 * offline | signed-out | refused, error, stored, savedAt}. `stored` is the report on the server during a conflict,
 * otherwise null.
 *
 * @typedef {ReturnType<typeof makeDraft>} Draft
 * @param {Api.ReportPath} path
 * @param {Api.Report} found
 * @returns {Draft}
 */
export function createDraft(path, found) {
  const before = unsaved.get(path);
  unsaved.delete(path);
  // If the draft was saved after `found` was requested, the draft is newer than `found`.
  return before && (before.unsaved() || before.now.get().version > found.version) ? before : makeDraft(path, found);
}

/**
 * @param {Api.ReportPath} path
 * @param {Api.Report} found
 */
function makeDraft(path, found) {
  const now = createStore(
    /** @type {Ui.DraftState} */ ({
      title: found.title,
      markdown: found.markdown,
      version: found.version,
      state: "saved",
      error: null,
      stored: null,
      savedAt: found.updatedAt,
    }),
  );
  let timer = 0;
  /** @type {Promise<void> | null} */
  let busy = null;
  let detached = false; // true while no page shows the draft
  /** @type {(() => void)[]} */
  const stops = [];
  /** @param {Partial<Ui.DraftState>} changes */
  const update = (changes) => now.set((old) => ({ ...old, ...changes }));
  /** @param {number} pause */
  const later = (pause) => {
    clearTimeout(timer);
    timer = setTimeout(save, pause);
  };

  /**
   * Saves the text. If a request is already running, only waits for that request. Never throws, because an error only
   * changes the state.
   */
  function save() {
    clearTimeout(timer);
    busy ??= send().finally(() => {
      busy = null;
    });
    return busy;
  }

  async function send() {
    const { title, markdown, version, state } = now.get();
    if (state === "saved" || state === "conflict") return;
    update({ state: "saving", error: null });
    try {
      const reply = await put(path, { title: title.trim(), markdown, version });
      const unchanged = now.get().title === title && now.get().markdown === markdown;
      update({ version: reply.version, savedAt: reply.updatedAt, state: unchanged ? "saved" : "waiting" });
      if (!unchanged) later(PAUSE_MS);
      else if (detached) stopWatching();
    } catch (error) {
      await failed(error);
    }
  }

  /** @param {Ui.Failure} error */
  async function failed(error) {
    if (error.status === 409) {
      const stored = await get(path).catch(() => null);
      if (stored) return update({ state: "conflict", error, stored });
      update({ state: "offline", error }); // the next attempt to save loads `stored` again
      later(AGAIN_MS);
    } else if (error.status === 401) {
      update({ state: "signed-out", error });
    } else if (error.status === 0 || (error.status ?? 0) >= 500) {
      update({ state: "offline", error });
      later(AGAIN_MS);
    } else {
      update({ state: "refused", error });
    }
  }

  /** @param {Ui.Session} session */
  const signedIn = ({ name }) => {
    if (!name || now.get().state !== "signed-out") return;
    update({ state: "waiting" });
    later(0);
  };
  const stopWatching = () => stops.splice(0).forEach((stop) => stop());
  const draft = {
    now,
    /** @param {{title?: string, markdown?: string}} changes */
    change(changes) {
      const { state } = now.get();
      update({ ...changes, state: state === "conflict" || state === "signed-out" ? state : "waiting" });
      if (state !== "conflict" && state !== "signed-out") later(PAUSE_MS);
    },
    save,
    /**
     * Resolves a conflict. If `overwrite` is true, the text of this editor replaces the stored text; otherwise the
     * stored text replaces the text of this editor.
     *
     * @param {boolean} overwrite
     */
    resolve(overwrite) {
      const { stored } = now.get();
      if (!stored) return;
      if (overwrite) update({ version: stored.version, state: "waiting", error: null, stored: null });
      else update({ ...stored, state: "saved", error: null, stored: null, savedAt: stored.updatedAt });
      if (overwrite) later(0);
    },
    /** Returns whether the draft has changes that are not saved. */
    unsaved: () => now.get().state !== "saved",
    /** Must be called when a page shows the draft. */
    attach() {
      detached = false;
      stopWatching();
      stops.push(
        connection.watch((state) => state === "online" && now.get().state === "offline" && later(0)),
        session.watch(signedIn),
      );
    },
    /** Must be called when the user leaves the page. Saves changes, and keeps a draft that cannot be saved. */
    close() {
      detached = true;
      if (!draft.unsaved()) return stopWatching();
      unsaved.set(path, draft);
      return now.get().state === "waiting" ? save() : undefined;
    },
  };
  return draft;
}
