// Applies the chosen theme before the first paint, to avoid a flash of the other theme.
// An ES module would run too late.
(() => {
  try {
    const theme = localStorage.getItem("tidal.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // The browser forbids access to the storage, so the theme of the operating system applies.
  }
})();
