"use strict";
(() => {
  const PRINT_WIDTH = 900; /* shown at three quarters by report.css */
  const LOWER = 0.65; /* height of a plot on paper: what does not fit below leaves less of a page empty */
  const CONFIG = { displaylogo: false, responsive: false, displayModeBar: false };

  /* The size of a plot for the width there is; panels of a grid in as many columns as fit. */
  const fitted = (layout, width, height, onPaper) => {
    const g = layout.meta && layout.meta.grid;
    const margins = layout.margin.t + layout.margin.b;
    if (!g) return { width, height: onPaper ? LOWER * (height - margins) + margins : height };
    const inner = width - layout.margin.l - layout.margin.r;
    const least = onPaper ? 0.75 * g.min_width : g.min_width;
    const columns = Math.max(1, Math.min(g.panels, Math.floor((inner + g.gap_x) / (least + g.gap_x))));
    const rows = Math.ceil(g.panels / columns);
    const between = onPaper ? 0.75 * g.gap_y : g.gap_y;
    const each = onPaper ? LOWER * g.row_height : g.row_height;
    const tall = rows * each + (rows - 1) * between;
    const gapX = g.gap_x / inner, gapY = between / tall;
    const w = (1 - (columns - 1) * gapX) / columns, h = (1 - (rows - 1) * gapY) / rows;
    const change = { width, height: tall + margins };
    for (let i = 0; i < g.panels; i++) {
      const left = (i % columns) * (w + gapX), top = 1 - Math.floor(i / columns) * (h + gapY);
      const suffix = i ? i + 1 : "";
      change[`xaxis${suffix}.domain`] = [left, left + w];
      change[`yaxis${suffix}.domain`] = [Math.max(0, top - h), top];
    }
    return change;
  };

  /* Dark or light: what the reader chose here, else what the system asks for. Paper is light. */
  const root = document.documentElement;
  const dark = JSON.parse(document.body.dataset.dark);
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  const plots = [...document.querySelectorAll(".plot")];
  const draw = (width, inDark) => {
    if (!window.Plotly) return; /* not unpacked yet */
    for (const plot of plots) {
      const target = width || plot.clientWidth;
      if (plot.drawnAt === target && plot.drawnDark === inDark) continue;
      if (plot.drawnDark !== inDark) {
        const text = document.getElementById(plot.dataset.figure).textContent;
        const figure = JSON.parse(
          inDark ? text.replace(/#[0-9a-f]{6}/gi, (colour) => dark[colour.toUpperCase()] ?? colour) : text);
        Plotly.react(plot, figure.data, { ...figure.layout, width: target }, CONFIG);
        plot.tall = figure.layout.height;
      }
      [plot.drawnAt, plot.drawnDark] = [target, inDark];
      Plotly.relayout(plot, fitted(plot.layout, target, plot.tall, Boolean(width)));
    }
  };
  const fit = () => draw(0, isDark());

  const toggle = document.getElementById("theme");
  const name = () => { toggle.textContent = isDark() ? "Light" : "Dark"; };
  const kept = (theme) => {
    try {
      if (theme) localStorage.setItem("versatune-theme", theme);
      return localStorage.getItem("versatune-theme");
    } catch { return null; }
  };
  if (!root.dataset.theme && kept()) root.dataset.theme = kept();
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept(root.dataset.theme);
    name();
    fit();
  });
  system.addEventListener("change", () => { name(); fit(); });
  name();

  /* Plotly lies in the page gzipped. The page's policy knows the hash of what comes out. */
  const unpack = async () => {
    const packed = atob(document.getElementById("plotly").textContent);
    const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
    const text = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(text).text();
    document.head.append(script);
  };
  unpack().then(fit, () => {
    for (const plot of plots) plot.textContent = "Charts need a browser of 2023 or newer. All tables work.";
  }).then(() => document.dispatchEvent(new Event("drawn")));

  let waiting;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(fit, 100); });
  const blocks = [...document.querySelectorAll("details.block")];
  window.addEventListener("beforeprint", () => {
    for (const block of blocks) [block.wasOpen, block.open] = [block.open, !block.matches(".long")];
    draw(PRINT_WIDTH, false);
  });
  window.addEventListener("afterprint", () => {
    for (const block of blocks) block.open = block.wasOpen;
    fit();
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

  /* Every table can be downloaded as CSV: numbers with all digits in the unit that the table shows,
     intervals and verdicts in columns of their own. */
  const quoted = (value) => {
    const text = String(value ?? "").replace(/\s+/g, " ").trim();
    const safe = /^[=+@\t-]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",']/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const extras = {
    interval: (cell) => cell.querySelector("small")?.textContent,
    verdict: (cell) => (cell.title ? cell.title.split(",")[0] : cell.querySelector(".chip")?.textContent),
  };
  const UNIT = /, (%|points)/;
  const csv = (table, heading) => {
    const rows = [...table.tBodies[0].rows];
    const columns = [...table.tHead.rows[0].cells].flatMap((head, i) => {
      const title = head.textContent;
      const text = (row) => row.cells[i].textContent;
      if (!head.matches(".n")) return [[title, text]];
      const percent = rows.some((row) => row.cells[i].querySelector("b")?.textContent.endsWith("%"));
      const scaled = percent || UNIT.test(title) || UNIT.test(heading);
      const value = (row) => {
        const exact = row.cells[i].dataset.value ?? text(row);
        return scaled && exact !== "" ? Number((100 * exact).toPrecision(12)) : exact;
      };
      const unit = percent && !/%|points/.test(title) ? ", %" : "";
      const more = Object.entries(extras).filter(([, of]) => rows.some((row) => of(row.cells[i])));
      return [[title + unit, value], ...more.map(([what, of]) => [`${title}: ${what}`, (row) => of(row.cells[i])])];
    });
    const lines = [columns.map(([title]) => title), ...rows.map((row) => columns.map(([, of]) => of(row)))];
    return lines.map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
  };
  const titled = (element) => {
    const before = element.closest("details")?.querySelector("summary");
    for (let at = element; !before && at; at = at.previousElementSibling) {
      if (at.matches("h2, h3")) return at.textContent;
    }
    return before ? before.textContent : "table";
  };
  for (const table of document.querySelectorAll(".scroll > table")) {
    if (!table.tHead) continue;
    const link = document.createElement("a");
    const heading = titled(table.parentElement);
    const slug = heading.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
    Object.assign(link, { className: "get", href: "#", download: `${slug}.csv`, textContent: "Download CSV" });
    link.addEventListener("click", () => {
      URL.revokeObjectURL(link.href);
      link.href = URL.createObjectURL(new Blob(["\ufeff" + csv(table, heading)], { type: "text/csv" }));
    });
    table.parentElement.after(link);
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
