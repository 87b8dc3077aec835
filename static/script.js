// What pages can do more with JavaScript; without it, everything but copying, search as one types and drag and drop works.
"use strict";

// --- copy buttons ---

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent.replace(/\n$/, ""));
    } catch {
      // Browsers give the clipboard to https and loopback pages alone: select it, for the keyboard.
      getSelection().selectAllChildren(source);
      return;
    }
    button.classList.add("done");
    button.title = "Copied";
    setTimeout(() => { button.classList.remove("done"); button.title = "Copy"; }, 1500);
  });
}
