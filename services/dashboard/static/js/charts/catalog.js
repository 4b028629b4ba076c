// The charts of an experiment: their titles, units and metrics (common/metrics/names.py explains the metrics).
//
// A comparison of runs shows only the lines in which `main` is set. A metric that is in no chart of the catalogue gets
// a chart of its own.

/** Types of experiments that have metrics by step, so that charts can show and compare them. */
export const PLOTTED = ["lm", "rl"];

/** @type {Api.Kind} */
const LM = "metrics";
/** @type {Api.Kind} */
const RL = "rl-metrics";

/** @type {Ui.ChartSpec[]} */
export const CATALOG = [
  {
    id: "loss",
    title: "Loss",
    unit: "nats per token",
    kind: LM,
    lines: [
      { name: "Losses/Total", label: "training", smooth: true, colour: 1, main: true },
      { name: "Losses/Validation", label: "validation", colour: 2, points: true, main: true },
    ],
  },
  {
    id: "perplexity",
    title: "Validation perplexity",
    log: true,
    kind: LM,
    lines: [{ name: "Perplexity/Validation", label: "perplexity", colour: 2, points: true, main: true }],
  },
  {
    id: "bits-per-byte",
    title: "Validation bits per byte",
    unit: "bits per byte of text",
    kind: LM,
    lines: [{ name: "Bits per Byte/Validation", label: "bits per byte", colour: 2, points: true, main: true }],
  },
  {
    id: "learning-rate",
    title: "Learning rate",
    kind: LM,
    lines: [{ name: "Learning Rate", label: "learning rate", colour: 3, main: true }],
  },
  {
    id: "throughput",
    title: "Throughput",
    unit: "tokens per second",
    kind: LM,
    lines: [{ name: "Tokens/Second", label: "tokens/s", colour: 4, smooth: true, main: true }],
  },
  {
    id: "text-throughput",
    title: "Text throughput",
    unit: "bytes of text per second",
    kind: LM,
    lines: [{ name: "Bytes/Second", label: "bytes/s", colour: 4, smooth: true, main: true }],
  },
  {
    id: "gemm-share",
    title: "Share of the GEMM rate",
    unit: "model FLOPs per second / rate of large matrix products",
    kind: LM,
    lines: [{ name: "Compute/Share of GEMM Rate", label: "share", colour: 5, smooth: true, main: true }],
  },
  {
    id: "gradient",
    title: "Gradient norm",
    unit: "before clipping",
    kind: LM,
    lines: [{ name: "Gradient Norm", label: "norm", colour: 6, smooth: true, main: true }],
  },
  {
    id: "reward",
    title: "Reward",
    unit: "episode, moving average",
    kind: RL,
    lines: [{ name: "episode_reward", label: "episode", colour: 1, main: true }],
  },
  {
    id: "step-reward",
    title: "Reward per token",
    kind: RL,
    lines: [
      { name: "step_reward", label: "rollout", colour: 1, smooth: true, main: true },
      { name: "evaluation/step_reward", label: "evaluation", colour: 2, points: true },
    ],
  },
  {
    id: "components",
    title: "Reward components",
    kind: RL,
    lines: [
      { name: "reward/perplexity", label: "perplexity", colour: 1 },
      { name: "reward/diversity", label: "diversity", colour: 4, main: true },
      { name: "reward/sampling", label: "sampling", colour: 3 },
      { name: "reward/repetition", label: "repetition", colour: 2 },
      { name: "reward/coherence", label: "coherence", colour: 7 },
    ],
  },
  {
    id: "modulation",
    title: "Modulation",
    kind: RL,
    range: [0, 1],
    lines: [
      { name: "modulation_mean", label: "mean", colour: 1, main: true, spread: "modulation_std" },
      { name: "evaluation/modulation", label: "evaluation", colour: 2, points: true },
    ],
  },
  {
    id: "losses",
    title: "Losses",
    kind: RL,
    lines: [
      { name: "policy_loss", label: "policy", colour: 1, smooth: true, main: true },
      { name: "value_loss", label: "value", colour: 2, smooth: true },
      { name: "cost_value_loss", label: "cost value", colour: 3, smooth: true },
    ],
  },
  {
    id: "entropy",
    title: "Policy entropy",
    unit: "nats",
    kind: RL,
    lines: [{ name: "entropy", label: "entropy", colour: 3, main: true }],
  },
  {
    id: "entropy-coef",
    title: "Entropy coefficient",
    kind: RL,
    lines: [{ name: "entropy_coef", label: "coefficient", colour: 3, main: true }],
  },
  {
    id: "explained-variance",
    title: "Explained variance",
    kind: RL,
    lines: [{ name: "explained_variance", label: "explained variance", colour: 4, main: true }],
  },
  {
    id: "multiplier",
    title: "Lagrange multiplier and cost",
    unit: "of the constraint",
    kind: RL,
    lines: [
      { name: "lagrange_multiplier", label: "multiplier", colour: 5, main: true },
      { name: "cost", label: "cost", colour: 6 },
      { name: "diversity_weight", label: "diversity weight", colour: 4 },
    ],
  },
  {
    id: "kl",
    title: "Policy change",
    kind: RL,
    lines: [
      { name: "approx_kl", label: "approximate KL", colour: 1, main: true },
      { name: "clip_fraction", label: "clip fraction", colour: 6 },
    ],
  },
  {
    id: "rl-throughput",
    title: "Throughput",
    unit: "transitions per second",
    kind: RL,
    lines: [{ name: "steps_per_second", label: "transitions/s", colour: 4, main: true }],
  },
  {
    id: "rl-gradient",
    title: "Gradient norm",
    unit: "before clipping",
    kind: RL,
    lines: [{ name: "gradient_norm", label: "norm", colour: 6, main: true }],
  },
  {
    id: "rl-rates",
    title: "Learning rate",
    kind: RL,
    lines: [{ name: "learning_rate", label: "learning rate", colour: 3, main: true }],
  },
];

/** The metrics that are in a chart of the catalogue. */
const IN_CATALOG = new Set(
  CATALOG.flatMap((chart) =>
    chart.lines.flatMap((line) => [line.name, line.spread]).map((name) => `${chart.kind}:${name}`),
  ),
);
/** Metrics that are never shown in a chart. */
const HIDDEN = new Set([
  "metrics:Epoch/Progress",
  "metrics:Tokens/Seen",
  "metrics:Iterations/Second",
  "rl-metrics:episodes",
]);

/**
 * Returns the charts that have data. `has(kind, name)` returns whether a metric exists, and `names(kind)` returns the
 * names of all metrics.
 *
 * @param {(kind: Api.Kind, name: string) => unknown} has
 * @param {(kind: Api.Kind) => string[]} names
 * @returns {Ui.ChartSpec[]}
 */
export function chartsFor(has, names) {
  const known = CATALOG.filter((chart) => chart.lines.some((line) => has(chart.kind, line.name)));
  const others = [LM, RL].flatMap((kind) =>
    names(kind)
      .filter((name) => !IN_CATALOG.has(`${kind}:${name}`) && !HIDDEN.has(`${kind}:${name}`))
      .map((name) => ({
        id: `other-${kind}-${name}`,
        title: name,
        kind,
        lines: [{ name, label: name, colour: 8, main: true }],
      })),
  );
  return [...known, ...others];
}
