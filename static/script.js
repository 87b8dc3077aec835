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

// --- filters as one types: a list whose items have text ---

for (const field of document.querySelectorAll("[data-filter]")) {
  const list = document.getElementById(field.dataset.filter);
  if (!list) continue;
  const count = document.querySelector(`[data-filter-count="${field.dataset.filter}"]`);
  const before = count.textContent;
  const members = [...list.querySelectorAll(".member")].map((item) => {
    const folders = [];
    for (let box = item.parentElement.closest("details"); box && list.contains(box); box = box.parentElement.closest("details")) {
      folders.push(box);
    }
    const path = [...folders].reverse().map((box) => box.querySelector(".member-name").textContent).join("");
    return { item, folders, path: (path + item.querySelector(".member-name").textContent).toLowerCase() };
  });
  const wasOpen = new Map([...list.querySelectorAll("details")].map((box) => [box, box.open]));
  const started = field.value;
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    const kept = new Set();
    let found = 0;
    for (const { item, folders, path } of members) {
      item.hidden = !path.includes(wanted);
      if (!item.hidden) {
        found += 1;
        for (const box of folders) kept.add(box);
      }
    }
    for (const [box, open] of wasOpen) {
      box.parentElement.hidden = !kept.has(box);
      box.open = wanted ? kept.has(box) : open;
    }
    count.textContent = field.value === started ? before : `${found} of ${members.length} shown`;
  });
}
