// The dashboard: picks the page that the address names and keeps it in the frame.
import { Component, html, render, useEffect } from "./lib/html.js";
import { refreshSession } from "./lib/api.js";
import { route } from "./lib/router.js";
import { useStore } from "./lib/store.js";
import { Shell } from "./components/shell.js";
import { Empty, Failed } from "./components/parts.js";
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

const PAGES = {
  experiments: ({ parts }) => (parts[1] ? html`<${Experiment} id=${parts[1]} key=${parts[1]} />` : html`<${Experiments} />`),
  jobs: ({ parts }) => html`<${JobPage} id=${parts[1] ?? ""} />`,
  new: () => html`<${NewJob} />`,
  compare: () => html`<${Compare} />`,
  queue: () => html`<${Queue} />`,
  checkpoints: () => html`<${CheckpointsPage} />`,
  datasets: () => html`<${Datasets} />`,
  analysis: ({ params }) => html`<${AnalysisPage} key=${params.get("saved") ?? ""} />`,
  reports: ({ parts }) => (parts[1] ? html`<${Report} id=${parts[1]} key=${parts[1]} />` : html`<${Reports} />`),
  playground: () => html`<${Playground} />`,
};

/** Keeps one broken page from taking the frame with it. */
class Guard extends Component {
  constructor() {
    super();
    this.state = { error: null };
  }
  static getDerivedStateFromError(error) {
    return { error };
  }
  componentDidCatch(error) {
    console.error(error);
  }
  render() {
    const { error } = this.state;
    if (!error) return this.props.children;
    return html`<${Failed} error=${error} retry=${() => location.reload()} />`;
  }
}

function App() {
  const now = useStore(route);
  useEffect(() => {
    refreshSession().catch(() => {});
  }, []);
  useEffect(() => window.scrollTo(0, 0), [now.path]);
  const page = PAGES[now.page];
  return html`<${Shell} page=${now.page}>
    <${Guard} key=${now.path}>
      ${page ? page(now) : html`<${Empty} title="There is no such page"><a href="#/">To the experiments</a><//>`}
    <//>
  <//>`;
}

render(html`<${App} />`, document.getElementById("app"));
