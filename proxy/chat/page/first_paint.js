// A classic script, run before the first paint: a theme chosen earlier must not flash in the other colours.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("llm-chat-theme");
  } catch {
    // Storage may be forbidden; the system's own preference holds then.
  }
  if (theme === "dark" || theme === "light") {
    document.documentElement.dataset.theme = theme;
  }
})();
