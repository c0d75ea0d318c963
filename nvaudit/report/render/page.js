"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const status = document.getElementById("status");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  /* Charts. They are drawn in the light colours; in the dark each is replaced by its counterpart. */
  const holder = document.getElementById("content");
  const content = holder ? JSON.parse(holder.textContent) : { figures: {}, dark: {} };
  const plots = all("[data-figure]");
  const night = matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false, doubleClick: false, scrollZoom: false, showTips: false };
  const PAPER = { width: 640, height: 260, tall: 400 };
  const NARROW = 480;
  const FURTHER = 1.4;
  const chosen = {};
  let printing = false;

  const coloured = (value, swap) => {
    if (typeof value === "string") return swap[value] || value;
    if (Array.isArray(value)) return value.map((item) => coloured(item, swap));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, swap)]));
    }
    return value;
  };

  const prepared = (plot, light) => {
    const name = plot.dataset.figure;
    const figure = coloured(content.figures[name], night.matches && !light ? content.dark : {});
    if (name in chosen) {
      const surfaces = figure.data.filter((trace) => trace.z);
      surfaces.forEach((trace, i) => { trace.visible = i === chosen[name]; });
    }
    const camera = figure.layout.scene?.camera;
    if (camera && plot.clientWidth < NARROW) {
      for (const side of ["x", "y", "z"]) camera.eye[side] *= FURTHER;
    }
    figure.layout.autosize = true;
    figure.layout.uirevision = "keep";
    return figure;
  };

  const draw = (plot) => {
    const figure = prepared(plot, printing);
    if (printing) {
      figure.layout.autosize = false;
      figure.layout.width = PAPER.width;
      figure.layout.height ??= plot.classList.contains("tall") ? PAPER.tall : PAPER.height;
    }
    return Plotly.react(plot, figure.data, figure.layout, config);
  };

  const say = (plot, text) => {
    plot.style.height = "auto";
    plot.textContent = text;
  };

  /* A surface is drawn by WebGL, which leaves nothing to print: a still stands in for it. */
  const still = async (plot) => {
    const image = document.getElementById(`still-${plot.dataset.figure}`);
    if (!image) return;
    const figure = prepared(plot, true);
    image.src = await Plotly.toImage(
      { data: figure.data, layout: figure.layout }, { format: "png", width: 720, height: 520, scale: 2 });
    image.hidden = false;
    plot.classList.add("replaced");
  };

  const drawAll = async () => {
    for (const plot of plots) {
      try {
        await draw(plot);
        await still(plot);
      } catch (error) {
        say(plot, "This chart cannot be drawn here; its numbers are in the text below.");
      }
    }
    root.dataset.charts = "drawn";
  };

  if (plots.length) {
    drawAll();
    night.addEventListener("change", () => plots.forEach(draw));
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === width) return;
      width = innerWidth;
      plots.forEach((plot) => Plotly.Plots.resize(plot));
    });
  }

  /* On paper: light, as wide as the page, nothing folded away. */
  let opened = [];
  addEventListener("beforeprint", () => {
    printing = true;
    opened = all("details:not([open])");
    opened.forEach((one) => { one.open = true; });
    plots.filter((plot) => !plot.classList.contains("replaced")).forEach(draw);
  });
  addEventListener("afterprint", () => {
    printing = false;
    opened.forEach((one) => { one.open = false; });
    plots.forEach(draw);
  });

  /* Turn a surface by buttons, for those who do not drag. */
  const RADIUS = 1.84;
  const angles = {};
  all("[data-turn]").forEach((button) => button.addEventListener("click", () => {
    const name = button.dataset.plot;
    const plot = document.getElementById(`plot-${name}`);
    const above = button.dataset.turn === "top";
    angles[name] = (angles[name] ?? 45) + (above ? 0 : Number(button.dataset.turn));
    const turn = (angles[name] * Math.PI) / 180;
    const far = plot.clientWidth < NARROW ? FURTHER : 1;
    const eye = above
      ? { x: 0.01, y: 0.01, z: 2.2 * far }
      : { x: far * RADIUS * Math.cos(turn), y: far * RADIUS * Math.sin(turn), z: 0.8 * far };
    Plotly.relayout(plot, { "scene.camera.eye": eye });
  }));

  /* Save a chart for a slide or a paper: light, on white, as wide as a printed page. */
  all("[data-save]").forEach((button) => button.addEventListener("click", async () => {
    const name = button.dataset.save;
    const plot = document.getElementById(`plot-${name}`);
    const figure = prepared(plot, true);
    figure.layout.paper_bgcolor = "white";
    const link = document.createElement("a");
    link.href = await Plotly.toImage({ data: figure.data, layout: figure.layout },
      { format: "svg", width: 720, height: figure.layout.height ?? plot.clientHeight });
    link.download = `${name}.svg`;
    link.click();
    status.textContent = `Saved ${name}.svg`;
  }));

  /* Which of several surfaces is shown: the same one in every drawing. */
  const offers = all("[data-offer]");
  offers.forEach((select) => select.addEventListener("change", () => {
    offers.forEach((other) => {
      other.value = select.value;
      chosen[other.dataset.offer] = Number(select.value);
      draw(document.getElementById(`plot-${other.dataset.offer}`));
    });
  }));

  /* Tables: sort by a column, keep the rows that match. */
  const value = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.classList.contains("number") ? null : cell.textContent.trim().toLowerCase();
  };

  const order = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };

  const sort = (table, column) => {
    const head = table.tHead.rows[0].cells;
    const down = head[column].getAttribute("aria-sort") === "ascending";
    [...head].forEach((cell, i) => {
      if (i === column) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    const rows = [...table.tBodies[0].rows].map((row) => [value(row, column), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return down ? order(b, a) : order(a, b);
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
    status.textContent = `Sorted by ${head[column].textContent}, ${down ? "descending" : "ascending"}`;
  };

  const filter = (box, table) => {
    const search = box.querySelector("input");
    const choice = box.querySelector("select");
    const words = search.value.trim().toLowerCase();
    const rows = [...table.tBodies[0].rows];
    rows.forEach((row) => {
      const fits = !choice || !choice.value
        || row.cells[choice.dataset.column].textContent.trim() === choice.value;
      row.hidden = !fits || !row.textContent.toLowerCase().includes(words);
    });
    const shown = rows.filter((row) => !row.hidden).length;
    box.querySelector("output").textContent =
      shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
  };

  all(".sortable").forEach((box) => {
    const table = box.querySelector("table");
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...cell.cloneNode(true).childNodes);
      cell.replaceChildren(button);
      button.addEventListener("click", () => sort(table, column));
    });
    all("input, select", box).forEach((control) => {
      ["input", "change"].forEach((event) => control.addEventListener(event, () => filter(box, table)));
    });
  });

  /* Copy a command. */
  const copied = async (text, source) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch (error) {
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      return document.execCommand("copy");
    }
  };

  all(".copy").forEach((button) => button.addEventListener("click", async () => {
    const source = button.parentElement.querySelector("code");
    const done = await copied(source.textContent, source);
    status.textContent = done ? "Copied" : "Selected; copy it with your keyboard";
    button.textContent = done ? "Copied" : "Selected";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }));
})();
