"use strict";
// Sorting, finding, showing all rows, and what shapes and headers say when asked. The page can be
// read without any of it.
(() => {
  const said = document.getElementById("said");
  const tip = document.getElementById("tip");
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  // Tables -----------------------------------------------------------------------------------

  const keyOf = (row, place) => {
    const cell = row.cells[place];
    return cell.hasAttribute("data-key") ? cell.getAttribute("data-key") : cell.textContent;
  };

  const compare = (number) => (one, two) => {
    if (!number) return collator.compare(one, two);
    if (one === "" || two === "") return 0;
    return Number(one) - Number(two);
  };

  const sort = (table, header) => {
    const number = header.classList.contains("number") || header.dataset.numeric === "yes";
    const first = number ? "descending" : "ascending";
    const other = number ? "ascending" : "descending";
    const order = header.getAttribute("aria-sort") === first ? other : first;
    for (const cell of header.parentElement.cells) cell.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", order);
    const body = table.tBodies[0];
    const place = header.cellIndex;
    const by = compare(number);
    const sign = order === "ascending" ? 1 : -1;
    const rows = Array.from(body.rows, (row) => [keyOf(row, place), row]);
    // What has no number stays last, whichever way the others go.
    const missing = ([key]) => (number && key === "" ? 1 : 0);
    rows.sort((one, two) => missing(one) - missing(two) || sign * by(one[0], two[0]));
    body.append(...rows.map(([, row]) => row));
    said.textContent = `Sorted by ${header.textContent}, ${order}`;
  };

  const limitRows = (table) => {
    const limit = Number(table.dataset.shown || 0);
    const wanted = (table.dataset.wanted || "").toLocaleLowerCase();
    const all = !limit || table.dataset.all === "yes" || wanted !== "";
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const fits = wanted === "" || row.textContent.toLocaleLowerCase().includes(wanted);
      row.hidden = !fits || (!all && count >= limit);
      if (fits) count += 1;
    }
    return count;
  };

  const addTools = (table) => {
    const tools = document.createElement("div");
    tools.className = "tools";
    const caption = table.getAttribute("aria-label");
    if (table.hasAttribute("data-find")) {
      const field = document.createElement("input");
      field.type = "search";
      field.placeholder = "Find an item";
      field.setAttribute("aria-label", `Find in: ${caption}`);
      field.addEventListener("input", () => {
        table.dataset.wanted = field.value.trim();
        said.textContent = `${limitRows(table)} rows`;
      });
      tools.append(field);
    }
    if (table.hasAttribute("data-shown")) {
      const button = document.createElement("button");
      button.type = "button";
      const name = () => {
        const all = table.dataset.all === "yes";
        button.textContent = all ? "Show fewer" : `Show all ${table.tBodies[0].rows.length}`;
        button.setAttribute("aria-expanded", String(all));
      };
      button.addEventListener("click", () => {
        table.dataset.all = table.dataset.all === "yes" ? "" : "yes";
        limitRows(table);
        name();
      });
      name();
      tools.append(button);
    }
    if (tools.children.length) table.parentElement.after(tools);
  };

  for (const table of document.querySelectorAll("table")) {
    for (const button of table.querySelectorAll("thead button")) {
      button.addEventListener("click", () => {
        sort(table, button.parentElement);
        limitRows(table);
      });
    }
    addTools(table);
    limitRows(table);
  }

  // Tips -------------------------------------------------------------------------------------

  const hide = () => { tip.hidden = true; };

  const show = (shape, x, y) => {
    tip.textContent = shape.getAttribute("data-tip");
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const wide = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(4, Math.min(x + 12, wide - box.width - 4))}px`;
    const below = y + 16 + box.height > window.innerHeight;
    tip.style.top = `${Math.max(4, below ? y - box.height - 12 : y + 16)}px`;
  };

  const showBeside = (shape) => {
    const box = shape.getBoundingClientRect();
    show(shape, box.left + box.width / 2, box.top + box.height / 2);
  };

  const shapeOf = (event) => event.target.closest && event.target.closest("[data-tip]");

  const focused = () => document.querySelector("[data-tip]:focus-visible");
  let pointer = null;

  document.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    pointer = [event.clientX, event.clientY];
    const shape = shapeOf(event);
    if (shape) show(shape, ...pointer);
    else if (!focused()) hide();
  });
  document.addEventListener("click", (event) => {
    const shape = shapeOf(event);
    if (shape) show(shape, event.clientX, event.clientY);
    else hide();
  });
  document.addEventListener("focusin", (event) => {
    if (event.target.matches("[data-tip]:focus-visible")) showBeside(event.target);
    else hide();
  });
  document.addEventListener("scroll", () => {
    if (tip.hidden) return;
    const under = pointer && document.elementFromPoint(...pointer);
    const shape = under && under.closest("[data-tip]");
    if (shape) show(shape, ...pointer);
    else if (focused()) showBeside(focused());
    else hide();
  }, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // Each group of shapes is one stop of the Tab key; arrows go from shape to shape.
  for (const group of document.querySelectorAll("svg .points")) {
    const shapes = Array.from(group.querySelectorAll("[data-tip]"));
    shapes.forEach((shape, n) => shape.setAttribute("tabindex", n === 0 ? "0" : "-1"));
    group.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const from = shapes.indexOf(document.activeElement);
      if (from < 0) return;
      let to = null;
      if (step) to = (from + step + shapes.length) % shapes.length;
      else if (event.key === "Home") to = 0;
      else if (event.key === "End") to = shapes.length - 1;
      if (to === null) return;
      event.preventDefault();
      shapes[from].setAttribute("tabindex", "-1");
      shapes[to].setAttribute("tabindex", "0");
      shapes[to].focus({ preventScroll: true });
      showBeside(shapes[to]);
    });
  }

  // On paper the first conclusion shows its certificates, and no row is hidden behind a search.
  const first = Array.from(document.querySelectorAll("#flips tbody tr:first-child details"));
  let opened = [];
  window.addEventListener("afterprint", () => { for (const part of opened) part.open = false; });
  window.addEventListener("beforeprint", () => {
    opened = first.filter((part) => !part.open);
    for (const part of opened) part.open = true;
    for (const table of document.querySelectorAll("table[data-wanted]")) {
      delete table.dataset.wanted;
      limitRows(table);
    }
  });
})();
