// Sets the chosen theme before the first paint, to avoid a flash of the other theme. Modules would run too late.
(() => {
  try {
    const theme = localStorage.getItem("tidal.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // The browser forbids storage; the theme of the system applies.
  }
})();
