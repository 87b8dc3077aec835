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

// --- names: spaces become hyphens as one types ---

for (const field of document.querySelectorAll("[data-hyphens]")) {
  field.addEventListener("input", () => {
    const place = field.selectionStart;
    field.value = field.value.replace(/\s/g, "-");
    field.setSelectionRange(place, place);
  });
}

// --- search as one types: the same page, of which the list is taken ---

for (const form of document.querySelectorAll("[data-search]")) {
  const list = document.querySelector(form.dataset.search);
  const field = form.querySelector("input[type=search]");
  let waiting = 0;
  let running = null;
  let shown = field.value.trim();
  const search = async () => {
    const wanted = field.value.trim();
    if (wanted === shown) return;
    running?.abort();
    running = new AbortController();
    const query = wanted ? `?q=${encodeURIComponent(wanted)}` : location.pathname;
    list.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(query, { signal: running.signal });
      if (!answer.ok) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      list.replaceChildren(...page.querySelector(form.dataset.search).childNodes);
      history.replaceState(null, "", query);
      shown = wanted;
    } catch (error) {
      if (error.name === "AbortError") return;
      form.submit();
    }
    list.removeAttribute("aria-busy");
  };
  field.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 150); });
}

// --- uploads: several files, dropped or chosen, one request each ---

for (const form of document.querySelectorAll("[data-upload]")) {
  const field = form.querySelector("input[type=file]");
  const results = form.querySelector("[data-uploads]");
  const zone = form.querySelector(".drop");
  const queue = [];
  let busy = false;
  let stored = 0;
  field.multiple = true;
  form.querySelector("[data-drop-hint]").hidden = false;

  const line = (name) => {
    const item = document.createElement("li");
    const text = document.createElement("span");
    const bar = document.createElement("progress");
    text.textContent = `${name} `;
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", `Progress of ${name}`);
    item.append(text, bar);
    results.append(item);
    return { item, text, bar };
  };
  const end = ({ item, text, bar }, kind, sentence) => {
    item.className = kind;
    text.textContent = sentence;
    bar.remove();
  };
  const send = (file, row) => new Promise((resolve) => {
    const request = new XMLHttpRequest();
    const body = new FormData();
    body.append(field.name, file, file.name);
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("X-CSRFToken", form.querySelector("[name=csrf_token]").value);
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) row.bar.value = event.loaded / event.total;
    });
    request.addEventListener("loadend", () => {
      let message = "";
      try { message = JSON.parse(request.responseText).message; } catch { /* no answer, or none of ours */ }
      const good = request.status === 200;
      if (good) stored += 1;
      end(row, good ? "done" : "failed", good ? message : `${file.name}: ${message || "the upload broke off; try it again"}`);
      resolve();
    });
    request.send(body);
  });
  const work = async () => {
    if (busy) return;
    busy = true;
    while (queue.length) await send(...queue.shift());
    busy = false;
    if (stored && !form.querySelector("[data-reload]")) {
      const link = document.createElement("a");
      link.href = location.pathname;
      link.dataset.reload = "";
      link.textContent = "Show the packages";
      results.after(link);
    }
  };
  const take = (files) => {
    for (const file of files) queue.push([file, line(file.name)]);
    work();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take([...field.files]);
    field.value = "";
  });
  for (const kind of ["dragenter", "dragover"]) {
    zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => { event.preventDefault(); take([...event.dataTransfer.files]); });
}
