// Sets the chosen theme before the first paint, so that nothing flashes. A plain script: modules run too late.
(() => {
  try {
    const theme = localStorage.getItem("tidal.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage may be forbidden; the system's theme is used then.
  }
})();
