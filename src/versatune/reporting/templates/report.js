"use strict";
(() => {
  const PRINT_WIDTH = 680;
  const CONFIG = { displaylogo: false, responsive: false, displayModeBar: false };

  /* The panels of a grid, laid out again for the width there is: as many columns as fit. */
  const grid = (layout, width) => {
    const g = layout.meta && layout.meta.grid;
    if (!g) return { width };
    const inner = width - layout.margin.l - layout.margin.r;
    const columns = Math.max(1, Math.min(g.panels, Math.floor((inner + g.gap_x) / (g.min_width + g.gap_x))));
    const rows = Math.ceil(g.panels / columns);
    const tall = rows * g.row_height + (rows - 1) * g.gap_y;
    const gapX = g.gap_x / inner, gapY = g.gap_y / tall;
    const w = (1 - (columns - 1) * gapX) / columns, h = (1 - (rows - 1) * gapY) / rows;
    const change = { width, height: tall + layout.margin.t + layout.margin.b };
    for (let i = 0; i < g.panels; i++) {
      const left = (i % columns) * (w + gapX), top = 1 - Math.floor(i / columns) * (h + gapY);
      const suffix = i ? i + 1 : "";
      change[`xaxis${suffix}.domain`] = [left, left + w];
      change[`yaxis${suffix}.domain`] = [Math.max(0, top - h), top];
    }
    return change;
  };

  const plots = [...document.querySelectorAll(".plot")];
  for (const plot of plots) {
    const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
    plot.margin = figure.layout.margin;
    Plotly.newPlot(plot, figure.data, { ...figure.layout, width: plot.clientWidth }, CONFIG);
  }
  const fit = (width) => {
    for (const plot of plots) {
      const target = width || plot.clientWidth;
      if (plot.drawnAt === target) continue;
      plot.drawnAt = target;
      Plotly.relayout(plot, grid(plot.layout, target));
    }
  };
  fit();
  let waiting;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(fit, 100); });
  const blocks = [...document.querySelectorAll("details.block")];
  window.addEventListener("beforeprint", () => {
    fit(PRINT_WIDTH);
    for (const block of blocks) [block.wasOpen, block.open] = [block.open, true];
  });
  window.addEventListener("afterprint", () => {
    fit();
    for (const block of blocks) block.open = block.wasOpen;
  });

  /* Tables sort by a click on a column's head: first up, then down. */
  const key = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(value);
    return value === "" ? null : Number.isNaN(number) ? value : number;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
      rows.sort(([a], [b]) => (a === null || b === null ? compare(a, b) : down ? compare(b, a) : compare(a, b)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  }

  /* The probe's texts, one domain at a time. */
  const choice = document.getElementById("sample-domain");
  if (choice) {
    const rows = [...document.querySelectorAll("#samples tbody tr")];
    const show = () => {
      let shown = 0;
      for (const row of rows) {
        row.hidden = choice.value !== "" && row.dataset.domain !== choice.value;
        shown += !row.hidden;
      }
      document.getElementById("sample-count").textContent = `${shown} texts`;
    };
    choice.addEventListener("change", show);
    show();
  }
})();
