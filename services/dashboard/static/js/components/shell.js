// The frame around every page: navigation, theme switch, sign-in button, and a banner while the server does not answer.
import { html } from "../lib/html.js";
import { useStore } from "../lib/store.js";
import { connection } from "../lib/api.js";
import { abilities, session } from "../lib/session.js";
import { href } from "../lib/router.js";
import { theme, setTheme } from "../lib/theme.js";
import { Icon, Mark } from "./icons.js";
import { SignInButton, SignInDialog } from "./sign-in.js";
import { Toasts } from "./toasts.js";

const LINKS = [
  ["experiments", "/", "Experiments", "experiments"],
  ["queue", "/queue", "Queue", "queue"],
  ["playground", "/playground", "Playground", "play"],
  ["analysis", "/analysis", "Analysis", "analysis"],
  ["reports", "/reports", "Reports", "report"],
  ["checkpoints", "/checkpoints", "Checkpoints", "checkpoints"],
  ["datasets", "/datasets", "Datasets", "datasets"],
];
/** @type {Record<string, string>} */
const PARENT_PAGE = { new: "experiments", compare: "experiments" };
/** @type {Record<string, string>} */
const NEXT_THEME = { system: "light", light: "dark", dark: "system" };
/** @type {Record<string, string>} */
const THEME_ICON = { system: "auto", light: "sun", dark: "moon" };

function ThemeButton() {
  const { chosen } = useStore(theme);
  return html`<button
    class="button small quiet"
    onClick=${() => setTheme(NEXT_THEME[chosen])}
    aria-label=${`Theme: ${chosen}. Change to ${NEXT_THEME[chosen]}.`}
    title=${`Theme: ${chosen}`}
  >
    <${Icon} name=${THEME_ICON[chosen]} />
  </button>`;
}

const Brand = () => html`<a class="brand" href=${href("/")}><${Mark} />Tidal</a>`;

/** @param {{page: string, children?: Ui.Children}} props */
export function Shell({ page, children }) {
  const online = useStore(connection) === "online";
  const state = useStore(session);
  const { version, name, known } = state;
  const shown = PARENT_PAGE[page] ?? page;
  /** @type {Ui.Handler} */
  const skip = (event) => {
    event.preventDefault();
    document.getElementById("main")?.focus();
  };
  return html`<div>
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <div class="topbar">
      <${Brand} />
      <div class="row"><${ThemeButton} /><${SignInButton} /></div>
    </div>
    <div class="shell">
      <nav class="rail" aria-label="Main">
        <${Brand} />
        ${LINKS.map(
          ([id, path, text, icon]) =>
            html`<a key=${id} class="nav-link" href=${href(path)} aria-current=${id === shown ? "page" : undefined}
              ><${Icon} name=${icon} />${text}</a
            >`,
        )}
        <div class="rail-foot">
          <div class="row"><${SignInButton} /><${ThemeButton} /></div>
          <span title=${known ? `You may: ${abilities(state)}.` : undefined}
            >${known && !name ? "Read-only" : (name ?? "")}</span
          >
          <span><a href="docs">API</a> · ${version}</span>
        </div>
      </nav>
      <div>
        ${
          !online &&
          html`<div class="banner" role="status">
            <span>The server does not answer. Trying again; no data is lost.</span>
          </div>`
        }
        <main class="page" id="main" tabindex="-1">${children}</main>
      </div>
    </div>
    <${SignInDialog} />
    <${Toasts} />
  </div>`;
}
