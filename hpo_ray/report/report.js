// Links what the page shows of a trial, sorts and filters the table of trials, chooses pictures and the theme.
// Without it the page shows everything one below the other.
"use strict";
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);
  all(".script-only").forEach((element) => { element.hidden = false; });

  one("theme").addEventListener("change", (event) => {
    document.documentElement.dataset.theme = event.target.value;
  });

  // Of a choice one picture is shown.
  all("[data-choice]").forEach((choice) => {
    const show = (key) => all("figure", choice).forEach((figure) => { figure.hidden = figure.dataset.picture !== key; });
    all("select, input", choice).forEach((control) => {
      control.addEventListener("change", () => show(control.value));
      if (control.tagName === "SELECT" || control.checked) show(control.value);
    });
  });

  // Trials by id: rows and drawings. Ids are looked up in a map, never put into a selector.
  const parts = new Map();
  all("[data-trial]").forEach((element) => {
    const id = element.dataset.trial;
    if (!parts.has(id)) parts.set(id, []);
    parts.get(id).push(element);
  });
  const table = one("every-trial");
  const rows = table ? all("tbody tr", table) : [];
  const names = table ? all("thead th", table).map((cell) => cell.textContent) : [];
  const rowOf = new Map(rows.map((row) => [row.dataset.trial, row]));
  const shown = () => all("tbody tr", table || document).filter((row) => row.dataset.trial && row.offsetParent !== null);
  let lit = null;
  let pinned = null;

  function light(id) {
    if (id === lit) return;
    (parts.get(lit) || []).forEach((element) => element.classList.remove("on"));
    (parts.get(id) || []).forEach((element) => element.classList.add("on"));
    lit = id;
    document.body.classList.toggle("linked", id !== null);
    const row = rowOf.get(id);
    one("panel").hidden = !row;
    if (!row) return;
    one("panel-title").textContent = `Trial ${id}${id === pinned ? ", chosen" : ""}`;
    const facts = [...row.cells].slice(1).map((cell, place) => [names[place + 1], cell.textContent]);
    one("panel-facts").replaceChildren(...facts.filter(([, value]) => value !== "–").map(([name, value]) => {
      const fact = document.createElement("div");
      for (const [kind, text] of [["dt", name], ["dd", value]]) {
        const element = document.createElement(kind);
        element.textContent = text;
        fact.append(element);
      }
      return fact;
    }));
  }

  function pin(id) {
    const press = (trial, on) => {
      const row = rowOf.get(trial);
      if (row) row.querySelector("button").setAttribute("aria-pressed", String(on));
    };
    press(pinned, false);
    pinned = id === pinned ? null : id;
    press(pinned, true);
    // What is drawn last lies on top.
    (parts.get(pinned) || []).forEach((part) => { if (part.ownerSVGElement) part.parentNode.append(part); });
    lit = lit === pinned ? undefined : lit; // so that the panel's title is written again
    light(pinned);
  }

  const close = () => { if (pinned !== null) pin(pinned); else light(null); };
  const step = (by) => {
    const order = shown().map((row) => row.dataset.trial);
    const next = order[(order.indexOf(pinned) + by + order.length) % order.length];
    if (next !== undefined && next !== pinned) pin(next);
  };
  one("panel-close").addEventListener("click", () => {
    const row = rowOf.get(pinned);
    close();
    if (row) row.querySelector("button").focus({ preventScroll: true });
  });
  one("panel-next").addEventListener("click", () => step(1));
  one("panel-previous").addEventListener("click", () => step(-1));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && lit !== null) close(); });

  // Lines are thin: what lies within a few pixels counts.
  const NEAR = [[0, 0], [0, 3], [0, -3], [3, 0], [-3, 0], [0, 6], [0, -6]];
  const at = (event) => {
    for (const [x, y] of NEAR) {
      const hit = document.elementFromPoint(event.clientX + x, event.clientY + y);
      const found = hit && hit.closest("[data-trial]");
      if (found) return found.dataset.trial;
    }
    return null;
  };
  all(".picture").forEach((picture) => {
    picture.addEventListener("pointermove", (event) => light(at(event) ?? pinned));
    picture.addEventListener("pointerleave", () => light(pinned));
    picture.addEventListener("click", (event) => { const id = at(event); if (id !== null) pin(id); });
  });
  rows.forEach((row) => {
    row.addEventListener("pointerenter", () => light(row.dataset.trial));
    row.addEventListener("pointerleave", () => light(pinned));
    row.addEventListener("focusin", () => light(row.dataset.trial));
    row.addEventListener("focusout", () => light(pinned));
    row.querySelector("button").addEventListener("click", () => pin(row.dataset.trial));
  });

  if (!table) return;
  const value = (row, place) => {
    const cell = row.cells[place];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  const rank = (x) => (x === "–" || Number.isNaN(x) ? 2 : typeof x === "number" ? 0 : 1); // what is missing comes last
  all("thead th", table).forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    all("thead th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const sorted = [...rows].sort((a, b) => {
      const [x, y] = [value(a, place), value(b, place)];
      if (rank(x) !== rank(y)) return rank(x) - rank(y);
      return (up ? 1 : -1) * (typeof x === "number" ? x - y : x < y ? -1 : x > y ? 1 : 0);
    });
    table.tBodies[0].append(...sorted);
  }));

  const filter = () => {
    const text = one("filter-text").value.trim().toLowerCase();
    const status = one("filter-status").value;
    const noStopped = one("hide-stopped").checked;
    document.body.classList.toggle("hide-stopped", noStopped);
    let count = 0;
    rows.forEach((row) => {
      const fits = (!status || row.dataset.status === status) && row.textContent.toLowerCase().includes(text);
      row.hidden = !fits;
      count += fits && !(noStopped && row.dataset.status === "stopped");
    });
    one("filter-count").textContent = `${count} of ${rows.length} trials shown`;
  };
  ["filter-text", "filter-status", "hide-stopped"].forEach((id) => one(id).addEventListener("input", filter));
})();
