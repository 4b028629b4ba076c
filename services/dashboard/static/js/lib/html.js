// Exports the template tag `html`, which makes Preact elements (with htm), and the hooks of Preact.
import { h, render, Fragment, Component, createContext } from "../../vendor/preact.js";
import htm from "../../vendor/htm.js";

export { h, render, Fragment, Component, createContext };
export {
  useState,
  useEffect,
  useLayoutEffect,
  useMemo,
  useRef,
  useCallback,
  useContext,
  useId,
} from "../../vendor/preact-hooks.js";
export const html = /** @type {Ui.Html} */ (htm.bind(h));
