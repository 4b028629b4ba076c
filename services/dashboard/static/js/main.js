// The entry point of the dashboard. It shows the page for the current address inside `Shell`.
import { Component, html, render, useEffect, useLayoutEffect } from "./lib/html.js";
import { Problem, refreshSession } from "./lib/api.js";
import { route, useTitle } from "./lib/router.js";
import { useStore } from "./lib/store.js";
import { Shell } from "./components/shell.js";
import { Empty, Failed } from "./components/parts.js";
import { toast } from "./components/toasts.js";
import { Experiments } from "./pages/experiments.js";
import { Experiment } from "./pages/experiment.js";
import { AnalysisPage } from "./pages/analysis.js";
import { Compare } from "./pages/compare.js";
import { NewJob } from "./pages/new-job.js";
import { Playground } from "./pages/playground.js";
import { CheckpointsPage } from "./pages/checkpoints.js";
import { Datasets } from "./pages/datasets.js";
import { JobPage } from "./pages/job.js";
import { Queue } from "./pages/queue.js";
import { Report } from "./pages/report.js";
import { Reports } from "./pages/reports.js";

/**
 * @typedef {ReturnType<typeof route.get>} Route
 * @typedef {[title: string, view: (route: Route) => Ui.Node, parts?: number[]]} Page `parts` are the allowed numbers of
 * path parts in an address of the page; default: [1]
 * @type {Record<string, Page>}
 */
const PAGES = {
  experiments: [
    "Experiments",
    ({ parts }) => (parts[1] ? html`<${Experiment} id=${parts[1]} key=${parts[1]} />` : html`<${Experiments} />`),
    [1, 2],
  ],
  jobs: ["Job", ({ parts }) => html`<${JobPage} id=${parts[1]} />`, [2]],
  new: ["New job", () => html`<${NewJob} />`],
  compare: ["Compare", () => html`<${Compare} />`],
  queue: ["Queue", () => html`<${Queue} />`],
  checkpoints: ["Checkpoints", () => html`<${CheckpointsPage} />`],
  datasets: ["Datasets", () => html`<${Datasets} />`],
  analysis: ["Analysis", ({ params }) => html`<${AnalysisPage} key=${params.get("saved") ?? ""} />`],
  reports: [
    "Reports",
    ({ parts }) => (parts[1] ? html`<${Report} id=${parts[1]} key=${parts[1]} />` : html`<${Reports} />`),
    [1, 2],
  ],
  playground: ["Playground", () => html`<${Playground} />`],
};

/** @param {Route} route */
function pageOf({ parts, page }) {
  const found = page !== null && Object.hasOwn(PAGES, page) ? PAGES[page] : null;
  return (found?.[2] ?? [1]).includes(parts.length || 1) && !parts.includes(null) ? found : null;
}

/**
 * If a page fails to render, shows the error in place of the page until the address changes.
 *
 * @extends {Component<{at: string, children: Ui.Children}, {error?: Ui.Failure, at?: string}>}
 */
class Guard extends Component {
  /** @param {Ui.Failure} error */
  static getDerivedStateFromError(error) {
    return { error };
  }
  /** @param {Ui.Failure} error */
  componentDidCatch(error) {
    console.error(error);
    this.setState({ at: this.props.at });
  }
  render() {
    const { error, at = this.props.at } = this.state;
    return error && at === this.props.at ? html`<${Broken} error=${error} />` : this.props.children;
  }
}

/** @param {{error: Ui.Failure}} props */
function Broken({ error }) {
  useTitle("Error");
  return html`<${Failed} error=${error} retry=${() => location.reload()} />`;
}

/** @param {{path: string}} props */
const NotFound = ({ path }) =>
  html`<${Empty} title="This page does not exist">
    <p>There is no page at <code>${path}</code>. The link may be incomplete or mistyped.</p>
    <a class="button" href="#/">Go to the experiments</a>
  <//>`;

function App() {
  const now = useStore(route);
  useEffect(() => {
    refreshSession().catch(() => {});
  }, []);
  useEffect(() => window.scrollTo(0, 0), [now.path]);
  const [title, view] = pageOf(now) ?? ["Not found", NotFound];
  // A layout effect runs before the effects of the page, so that the page can set a more specific title.
  useLayoutEffect(() => {
    document.title = `${title} · Tidal`;
  }, [now.path]);
  return html`<${Shell} page=${now.page}>
    <${Guard} key=${now.path} at=${now.search}>${view(now)}<//>
  <//>`;
}

// Shows the errors of requests that no component handles.
window.addEventListener("unhandledrejection", (event) => {
  if (!(event.reason instanceof Problem)) return;
  event.preventDefault();
  toast(event.reason.message, "bad");
});

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
