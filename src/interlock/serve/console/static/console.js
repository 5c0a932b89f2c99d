// Live pages: pause and resume. While paused the newest fragment is kept and shown on resume.
"use strict";

(() => {
  const button = document.getElementById("pause");
  let isPaused = false;
  let latest = null;

  function show(text) {
    const target = document.getElementById("live");
    htmx.swap({ sourceElement: target, target, text, swap: "innerMorph" });
  }

  function toggle() {
    isPaused = !isPaused;
    button.setAttribute("aria-pressed", String(isPaused));
    button.textContent = isPaused ? "Resume live view" : "Pause live view";
    if (!isPaused && latest !== null) {
      show(latest);
      latest = null;
    }
  }

  document.addEventListener("htmx:sse:before:message", (event) => {
    if (isPaused && !event.detail.message.event) {
      latest = event.detail.message.data;
      event.detail.cancelled = true;
    }
  });

  // The session has ended: the page itself says where to sign in.
  document.addEventListener("signed-out", () => location.reload());
  document.addEventListener("htmx:sse:error", (event) => {
    if (event.detail.status === 401) location.reload();
  });

  if (button) {
    button.hidden = false;
    button.addEventListener("click", toggle);
    document.addEventListener("keydown", (event) => {
      const isField = event.target.closest("input, textarea, select");
      if (event.key === "p" && !isField && !event.ctrlKey && !event.metaKey && !event.altKey) toggle();
    });
  }
})();
