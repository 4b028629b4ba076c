// Redirects the address of a job to the experiment of the job.
import { html, useEffect } from "../lib/html.js";
import { get } from "../lib/api.js";
import { useLoad } from "../lib/load.js";
import { href } from "../lib/router.js";
import { Loaded, Loading } from "../components/parts.js";

/** @param {{id: string}} props */
export function JobPage({ id }) {
  const state = useLoad((signal) => get(`api/jobs/${encodeURIComponent(id)}`, signal), [id]);
  useEffect(() => {
    if (state.data) location.replace(href(`/experiments/${encodeURIComponent(state.data.experimentId)}`));
  }, [state.data]);
  return html`<${Loaded} state=${state}>${() => html`<${Loading} />`}<//>`;
}
