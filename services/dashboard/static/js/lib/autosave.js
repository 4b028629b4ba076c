// A text that saves itself: a pause after typing, one request at a time, each naming the version it was made to.
//
// What may go wrong is a state, not an exception: somebody else saved meanwhile (`conflict`, nothing is overwritten),
// the server is away or the sign-in is over (asked again by itself), a text the server refuses (until it is changed).
import { createStore } from "./store.js";
import { connection, get, put } from "./api.js";
import { session } from "./session.js";

const PAUSE_MS = 800;
const AGAIN_MS = 2000;
/** @type {Map<string, Draft>} */
const unsaved = new Map(); // path -> draft: a page that is left does not take its text along

/**
 * `path` takes PUT {title, markdown, version}; `found` is what GET gave. The store `now` holds {title, markdown,
 * version, state: saved | waiting | saving | conflict | offline | signed-out | refused, error, theirs}.
 *
 * @typedef {ReturnType<typeof makeDraft>} Draft
 * @param {Api.ReportPath} path
 * @param {Api.Report} found
 * @returns {Draft}
 */
export function createDraft(path, found) {
  const before = unsaved.get(path);
  unsaved.delete(path);
  // It may have been saved after `found` was asked for.
  return before && (before.open() || before.now.get().version > found.version) ? before : makeDraft(path, found);
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
      theirs: null,
      savedAt: found.updatedAt,
    }),
  );
  let timer = 0;
  /** @type {Promise<void> | null} */
  let busy = null;
  let left = false; // no page shows it
  /** @type {(() => void)[]} */
  const stops = [];
  /** @param {Partial<Ui.DraftState>} changes */
  const update = (changes) => now.set((old) => ({ ...old, ...changes }));
  /** @param {number} pause */
  const later = (pause) => {
    clearTimeout(timer);
    timer = setTimeout(save, pause);
  };

  /** Saves, or waits for the request that is running. Never throws: an error is set as the state. */
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
      else if (left) detach();
    } catch (error) {
      await failed(error);
    }
  }

  /** @param {Ui.Failure} error */
  async function failed(error) {
    if (error.status === 409) {
      const theirs = await get(path).catch(() => null);
      if (theirs) return update({ state: "conflict", error, theirs });
      update({ state: "offline", error }); // it is asked again, and then answered with theirs
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
  const detach = () => stops.splice(0).forEach((stop) => stop());
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
     * Resolves a conflict: takes the stored text, or overwrites it with the text of this editor (`mine`).
     *
     * @param {boolean} mine
     */
    take(mine) {
      const { theirs } = now.get();
      if (!theirs) return; // what they wrote could not be read
      if (mine) update({ version: theirs.version, state: "waiting", error: null, theirs: null });
      else update({ ...theirs, state: "saved", error: null, theirs: null, savedAt: theirs.updatedAt });
      if (mine) later(0);
    },
    /** Whether something would be lost if the page went away now. */
    open: () => now.get().state !== "saved",
    /** A page shows it. */
    attach() {
      left = false;
      detach();
      stops.push(
        connection.watch((line) => line === "online" && now.get().state === "offline" && later(0)),
        session.watch(signedIn),
      );
    },
    /** The page is left: what waits is saved at once, what cannot be is kept for the next visit. */
    close() {
      left = true;
      if (!draft.open()) return detach();
      unsaved.set(path, draft);
      return now.get().state === "waiting" ? save() : undefined;
    },
  };
  return draft;
}
