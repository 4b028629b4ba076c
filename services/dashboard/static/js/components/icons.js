// The icons: 24 × 24 outlines. Screen readers ignore them, because each icon has a text or label beside it.
import { html } from "../lib/html.js";

/** @type {Record<string, string>} */
const PATHS = {
  experiments: "M4 18l5-7 4 4 7-10M4 21h16",
  queue: "M5 7h14M5 12h14M5 17h9",
  play: "M5 5.5h14v9H11l-4 4v-4H5z",
  checkpoints: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
  analysis: "M4 20V4M4 20h16M8 16v-5M12.5 16V7M17 16v-3",
  report: "M6 3h8l5 5v13H6zM14 3v5h5M9 13h6.5M9 17h6.5",
  datasets:
    "M4 6c0-1.7 3.6-3 8-3s8 1.3 8 3-3.6 3-8 3-8-1.3-8-3zM4 6v12c0 1.7 3.6 3 8 3s8-1.3 8-3V6" +
    "M4 12c0 1.7 3.6 3 8 3s8-1.3 8-3",
  upload: "M12 16V4M7 9l5-5 5 5M5 20h14",
  compare: "M4 6c5 0 5 12 10 12h6M4 18c5 0 5-12 10-12h6",
  plus: "M12 5v14M5 12h14",
  sun:
    "M12 8a4 4 0 100 8 4 4 0 000-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5" +
    "M17.5 17.5L19 19M5 19l1.5-1.5M17.5 6.5L19 5",
  moon: "M20 14.5A8.5 8.5 0 119.5 4a7 7 0 0010.5 10.5z",
  auto: "M4 5h16v11H4zM9 20h6M12 16v4",
  key: "M14 10a4 4 0 11-1.2-2.8M13 10h8v3M17 10v3",
  search: "M11 4a7 7 0 100 14 7 7 0 000-14zM16 16l5 5",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  trash: "M5 7h14M9 7V4h6v3M7 7l1 13h8l1-13",
  stop: "M7 7h10v10H7z",
  pause: "M8 6v12M16 6v12",
  resume: "M8 5l11 7-11 7z",
  finish: "M6 21V4M6 5h12l-3 4 3 4H6",
  cross: "M6 6l12 12M18 6L6 18",
  empty: "M3 15c3-4 6-4 9 0s6 4 9 0M3 9c3-4 6-4 9 0s6 4 9 0",
  alert: "M12 4l9 16H3zM12 10v4M12 17v.5",
  up: "M6 14l6-6 6 6",
  down: "M6 10l6 6 6-6",
  edit: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
};

/** @param {{name: string}} props */
export const Icon = ({ name }) =>
  html`<svg
    width="16"
    height="16"
    viewBox="0 0 24 24"
    fill="none"
    stroke="currentColor"
    stroke-width="1.7"
    stroke-linecap="round"
    stroke-linejoin="round"
    aria-hidden="true"
  >
    <path d=${PATHS[name]} />
  </svg>`;

export const Mark = () =>
  html`<svg viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" rx="8" fill="#0b6470" />
    <path d="M4 19c4-7 8-7 12 0s8 7 12 0" fill="none" stroke="#fff" stroke-width="2.6" stroke-linecap="round" />
    <path d="M4 13c4-5 8-5 12 0s8 5 12 0" fill="none" stroke="#9fd8d6" stroke-width="2" stroke-linecap="round" />
  </svg>`;
